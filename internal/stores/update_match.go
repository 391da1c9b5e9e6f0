package stores

import (
	"context"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Version identifies what UpdateIfMatch can change of the store as it was read: its name
// and slug in the master, the rest of its profile in its database. It is empty without a
// profile.
func (s Store) Version() string {
	if s.Profile == nil {
		return ""
	}
	return versionOf(*s.Profile, Identity{Name: s.Name, Slug: s.Slug})
}

func versionOf(p storedata.Profile, master Identity) string {
	p.Name, p.Slug = master.Name, master.Slug
	return p.Version()
}

// UpdateIfMatch changes a store's profile as Update does, if its Version is one of
// versions. Otherwise somebody has changed the store since the caller read it, and
// UpdateIfMatch fails with edit_conflict and changes nothing.
func (r *Registry) UpdateIfMatch(ctx context.Context, p authz.Principal, id stoa.StoreID, versions []string, patch storedata.ProfilePatch) (Store, error) {
	return r.update(ctx, p, id, patch, append([]string{}, versions...))
}

// updateMatching changes the profile if it has one of the versions. It compares them
// while it has locked both the store's row in its own database, which orders changes of
// the profile, and the one in the master, which orders changes of name and slug.
func (r *Registry) updateMatching(ctx context.Context, db *tenantdb.DB, p authz.Principal, id stoa.StoreID, patch storedata.ProfilePatch, versions []string) (storedata.Profile, error) {
	var before, written Identity
	recorded := false // in the master, which has name and slug then
	profile, err := storedata.ChangeProfile(ctx, db, id, func(present storedata.Profile) (storedata.ProfilePatch, error) {
		if recorded { // the tenant's transaction is repeated
			if !slices.Contains(versions, versionOf(present, before)) {
				return storedata.ProfilePatch{}, errEditConflict()
			}
			return patch, nil
		}
		err := r.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
			if before, err = lockActive(ctx, tx, id); err != nil {
				return err
			}
			if !slices.Contains(versions, versionOf(present, before)) {
				return errEditConflict()
			}
			if patch.Name == nil && patch.Slug == nil {
				return recordUpdate(ctx, tx, p, id, patch, audit.Success, nil)
			}
			written, err = r.renameLocked(ctx, tx, p, id, patch, before)
			return err
		})
		if err != nil {
			return storedata.ProfilePatch{}, err
		}
		recorded = true
		if patch.Name != nil || patch.Slug != nil {
			patch.Name, patch.Slug = &written.Name, &written.Slug
		}
		return patch, nil
	})
	renamed := patch.Name != nil || patch.Slug != nil
	if err != nil {
		if !recorded {
			return storedata.Profile{}, err
		}
		patch.Name, patch.Slug = nil, nil // the job completes name and slug
		return storedata.Profile{}, r.recordFailure(ctx, p, id, patch, err)
	}
	if !renamed {
		return profile, nil
	}
	present, err := r.ReadIdentity(ctx, id)
	if err != nil || present == written {
		return profile, err
	}
	return r.writeIdentity(ctx, db, id, present, storedata.ProfilePatch{})
}

func errEditConflict() error {
	return stoa.Errorf(stoa.EditConflict, "The store has been changed since you read it. Read it again, and repeat your change if it still applies.")
}
