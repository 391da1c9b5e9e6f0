package stores

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/storedata"
)

// The functions of this file are for stores that an operator with access to the master
// database imports or creates. They check no permission and no quota: such a store counts
// for its owner all the same.

// importKey is the idempotency key of an imported store.
func importKey(slug string) string { return "import:" + slug }

// CheckImport fails with invalid_request, naming every fault of a store to import and of
// its profile.
func (r *Registry) CheckImport(n NewStore, profile storedata.ProfilePatch) error {
	_, err := r.validateNew(n)
	var faults stoa.Invalid
	var known *stoa.Error
	if errors.As(err, &known) {
		faults = known.Fields
	}
	if n.Slug == "" {
		faults.Add("slug", "is required")
	}
	if errors.As(profile.Validate(), &known) {
		faults = append(faults, known.Fields...)
	}
	return faults.Err()
}

// Import creates a store for a user, as Create does for the caller. A second call for the
// same slug, name and owner returns the store of the first, also if it has another slug by
// now. It fails with hostname_taken for another's slug, and with idempotency_conflict when
// the owner has changed the slug since and the file has another name.
func (r *Registry) Import(ctx context.Context, by authz.Principal, owner stoa.UserID, n NewStore) (id stoa.StoreID, created bool, err error) {
	n.IdempotencyKey = importKey(n.Slug)
	return r.createFor(ctx, by, owner, n, "import")
}

// CreateByOperator creates a store for a user, as Create does for the caller.
func (r *Registry) CreateByOperator(ctx context.Context, by authz.Principal, owner stoa.UserID, n NewStore) (Store, error) {
	id, _, err := r.createFor(ctx, by, owner, n, "operator")
	if err != nil {
		return Store{}, err
	}
	return Find(ctx, r.db, id.String())
}

// createFor creates a store for a user. how is recorded in the audit log.
func (r *Registry) createFor(ctx context.Context, by authz.Principal, owner stoa.UserID, n NewStore, how string) (id stoa.StoreID, created bool, err error) {
	if n, err = r.validateNew(n); err != nil {
		return stoa.StoreID{}, false, err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		created = false // the transaction may be repeated
		if id, err = earlierCreation(ctx, tx, owner, n); err != nil || !id.IsZero() {
			return err
		}
		if _, err := quotas.LockUser(ctx, tx, owner); err != nil { // the account may be deleted at the same time
			return err
		}
		s, err := r.insert(ctx, tx, owner, n, by, map[string]string{"owner": owner.String(), "by": how})
		id, created = s.ID, err == nil
		return err
	})
	if masterdb.IsUnique(err) || stoa.CodeOf(err) == stoa.HostnameTaken { // a concurrent call may have created it
		if earlier, lookup := earlierCreation(ctx, r.db, owner, n); lookup != nil || !earlier.IsZero() {
			return earlier, false, lookup
		}
	}
	return id, created && err == nil, err
}

// FillImported writes the profile of an active store, unless it was changed since the store
// was made: an import that was interrupted is completed, and what the owner has changed
// meanwhile is kept. It reports whether it has written.
func (r *Registry) FillImported(ctx context.Context, by authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch) (filled bool, err error) {
	if len(patch.Fields()) == 0 {
		return false, nil
	}
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return false, err
	}
	defer lease.Release()
	untouched := func(p storedata.Profile) bool { return p.UpdatedAt.Equal(p.CreatedAt) }
	present, err := storedata.ReadProfile(ctx, lease.DB, id)
	if err != nil || !untouched(present) {
		return false, err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error { return recordUpdate(ctx, tx, by, id, patch, "", nil) })
	if err != nil {
		return false, err
	}
	_, err = storedata.ChangeProfile(ctx, lease.DB, id, func(present storedata.Profile) (storedata.ProfilePatch, error) {
		if filled = untouched(present); !filled {
			return storedata.ProfilePatch{}, nil
		}
		return patch, nil
	})
	return filled && err == nil, r.recordFailure(ctx, by, id, patch, err)
}

// SlugUse says who has a slug.
type SlugUse struct {
	Store    stoa.StoreID // zero if a store has released the slug and its owner may have it back
	Status   Status
	Imported bool // Import created the store
	Owners   []stoa.UserID
}

// OwnedBy reports whether the user owns the store, or owned the one that released the slug.
func (u SlugUse) OwnedBy(user stoa.UserID) bool { return slices.Contains(u.Owners, user) }

// SlugUses returns the uses of the slugs, of which there may be some hundreds. A slug that
// is free is not in the result.
func (r *Registry) SlugUses(ctx context.Context, slugs []string) (map[string]SlugUse, error) {
	uses := map[string]SlugUse{}
	if len(slugs) == 0 {
		return uses, nil
	}
	args, marks := []any{importKey(""), r.db.Now()}, make([]string, len(slugs))
	for i, slug := range slugs {
		args, marks[i] = append(args, slug), "$"+strconv.Itoa(i+3)
	}
	in := ` IN (` + strings.Join(marks, ", ") + `)`
	var rows []struct {
		Slug     string
		StoreID  *stoa.StoreID
		Status   Status
		Imported bool
		UserID   *stoa.UserID
	}
	err := r.db.Select(ctx, &rows, `SELECT s.slug, s.id AS store_id, s.status, coalesce(s.idempotency_key, '') = $1 || s.slug AS imported, m.user_id
		FROM stores s LEFT JOIN store_members m ON m.store_id = s.id AND m.role = 'owner' WHERE s.slug`+in+`
		UNION ALL SELECT k.slug, NULL, '', false, m.user_id
		FROM released_slugs k LEFT JOIN store_members m ON m.store_id = k.store_id AND m.role = 'owner' WHERE k.kept_until > $2 AND k.slug`+in, args...)
	for _, row := range rows {
		use := uses[row.Slug]
		switch {
		case row.StoreID != nil && *row.StoreID != use.Store:
			use = SlugUse{Store: *row.StoreID, Status: row.Status, Imported: row.Imported}
		case row.StoreID == nil && !use.Store.IsZero():
			continue // the store that has the slug counts, not the one that had it
		}
		if row.UserID != nil {
			use.Owners = append(use.Owners, *row.UserID)
		}
		uses[row.Slug] = use
	}
	return uses, err
}
