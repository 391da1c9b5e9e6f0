package stores

import (
	"context"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// NewStore describes a store to create. Without a Slug one is derived from the name.
type NewStore struct {
	Name           string
	Slug           string
	IdempotencyKey string
}

// Create creates a store that belongs to the caller, in the state pending_database and
// with a zero balance. The same idempotency key with the same request returns the store
// of the first call. With another request it fails with idempotency_conflict.
func (r *Registry) Create(ctx context.Context, p authz.Principal, n NewStore) (Store, error) {
	if err := p.InPerson(); err != nil {
		return Store{}, err
	}
	n, err := r.validateNew(n)
	if err != nil {
		return Store{}, err
	}
	var id stoa.StoreID
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		earlier, err := earlierCreation(ctx, tx, p.UserID, n)
		if err != nil || !earlier.IsZero() {
			id = earlier
			return err
		}
		s, err := r.create(ctx, tx, p, n)
		id = s.ID
		return err
	})
	if code := stoa.CodeOf(err); masterdb.IsUnique(err) || code == stoa.HostnameTaken || code == stoa.QuotaExceeded || code == stoa.RateLimited {
		// Of two concurrent calls with one key, the other may have used the key, and with
		// it the slug or the last store of the quota.
		earlier, lookup := earlierCreation(ctx, r.db, p.UserID, n)
		if lookup != nil || !earlier.IsZero() {
			id, err = earlier, lookup
		}
	}
	if err != nil {
		return Store{}, err
	}
	return r.read(ctx, p, id)
}

// CreateFirst creates a store for a new user in the transaction that creates the
// user.
func (r *Registry) CreateFirst(ctx context.Context, tx *masterdb.Tx, owner authz.Principal, name string) (Store, error) {
	n, err := r.validateNew(NewStore{Name: name})
	if err != nil {
		return Store{}, err
	}
	return r.create(ctx, tx, owner, n)
}

func (r *Registry) create(ctx context.Context, tx *masterdb.Tx, owner authz.Principal, n NewStore) (Store, error) {
	if err := r.checkStoreQuota(ctx, tx, owner.UserID); err != nil {
		return Store{}, err
	}
	return r.insert(ctx, tx, owner.UserID, n, owner, nil)
}

// insert adds the store with its owner and its account of credits. The audit log names
// who did it.
func (r *Registry) insert(ctx context.Context, tx *masterdb.Tx, owner stoa.UserID, n NewStore, by authz.Principal, details map[string]string) (Store, error) {
	s := Store{
		ID: stoa.NewID[stoa.StoreID](), Name: n.Name, Status: PendingDatabase, Role: authz.Owner,
		CreatedAt: tx.Now, UpdatedAt: tx.Now,
	}
	s.Credits = &credits.Balance{StoreID: s.ID, UpdatedAt: tx.Now}
	var err error
	if s.Slug, err = r.insertStore(ctx, tx, s, owner, n); err != nil {
		return Store{}, err
	}
	if err := authz.Grant(ctx, tx, s.ID, owner, authz.Owner); err != nil {
		return Store{}, err
	}
	if err := audit.Record(ctx, tx, by, audit.Event{Action: audit.StoreCreated, Store: s.ID, Details: details}); err != nil {
		return Store{}, err
	}
	return s, r.ledger.Open(ctx, tx, s.ID)
}

// insertStore inserts the row with the first free slug. A slug that the caller chose is
// the only candidate.
func (r *Registry) insertStore(ctx context.Context, tx *masterdb.Tx, s Store, owner stoa.UserID, n NewStore) (slug string, err error) {
	candidates := []string{n.Slug}
	if n.Slug == "" {
		candidates = r.slugCandidates(n.Name)
	}
	key, hash := n.idempotency()
	for _, slug = range candidates {
		inserted, err := tx.Exec(ctx, `
			INSERT INTO stores (id, slug, name, status, created_by, idempotency_key, request_hash, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8) ON CONFLICT (slug) DO NOTHING`,
			s.ID, slug, s.Name, string(s.Status), owner, key, hash, tx.Now)
		if err != nil {
			return "", err
		}
		if inserted == 0 {
			continue
		}
		free, err := claimSlug(ctx, tx, s.ID, owner, slug)
		if err != nil || free {
			return slug, err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM stores WHERE id = $1`, s.ID); err != nil {
			return "", err
		}
	}
	return "", errSlugTaken(slug)
}

// idempotency returns the columns that make a request idempotent. Without a key
// both are NULL.
func (n NewStore) idempotency() (key, hash *string) {
	if n.IdempotencyKey == "" {
		return nil, nil
	}
	h := credits.RequestHash("store.create", n.Name, n.Slug)
	return &n.IdempotencyKey, &h
}

// earlierCreation returns the store that an earlier request with the same key
// created, or the zero id. It fails with idempotency_conflict when the key belongs
// to another request.
func earlierCreation(ctx context.Context, q masterdb.Querier, user stoa.UserID, n NewStore) (stoa.StoreID, error) {
	key, hash := n.idempotency()
	if key == nil {
		return stoa.StoreID{}, nil
	}
	var row struct {
		ID          stoa.StoreID
		RequestHash string
	}
	err := q.Get(ctx, &row, `SELECT id, request_hash FROM stores WHERE created_by = $1 AND idempotency_key = $2`, user, *key)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return stoa.StoreID{}, nil
	case err != nil:
		return stoa.StoreID{}, err
	case row.RequestHash != *hash:
		return stoa.StoreID{}, credits.ErrIdempotencyConflict()
	}
	return row.ID, nil
}

// validateNew returns the request as it is stored, or invalid_request with every
// fault.
func (r *Registry) validateNew(n NewStore) (NewStore, error) {
	n.Name = strings.TrimSpace(n.Name)
	var faults stoa.Invalid
	if fault := NameFault(n.Name); fault != "" {
		faults.Add("name", "%s", fault)
	}
	if n.Slug != "" {
		if fault := r.slugFault(n.Slug); fault != "" {
			faults.Add("slug", "%s", fault)
		}
	}
	credits.CheckIdempotencyKey(&faults, n.IdempotencyKey)
	return n, faults.Err()
}

// NameFault returns why a store's name is not accepted, or "". It ignores white space at
// both ends.
func NameFault(name string) string {
	name = strings.TrimSpace(name)
	length := utf8.RuneCountInString(name)
	switch {
	case length == 0:
		return "is required"
	case length > 120:
		return "must be at most 120 characters"
	case !utf8.ValidString(name) || strings.ContainsFunc(name, unicode.IsControl) || strings.ContainsFunc(name, stoa.IsHidden):
		return "must not contain control or invisible characters"
	case mail.HasLink(name): // mails contain the name
		return "must not contain a web or e-mail address: a hostname of your own is added once the store is there"
	}
	return ""
}
