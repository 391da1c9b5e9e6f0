package stores

import (
	"context"
	"fmt"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// selectSolelyOwned lists stores that have no owner but $1, newest first. A store that
// is being deleted needs none any more.
const selectSolelyOwned = `
	SELECT s.id, s.name, s.slug, s.status, m.role, s.created_at, s.updated_at, s.delete_after, s.held
	FROM store_members m JOIN stores s ON s.id = m.store_id
	WHERE m.user_id = $1 AND m.role = 'owner' AND s.status NOT IN ('deleting', 'deleted')
		AND NOT EXISTS (SELECT 1 FROM store_members o WHERE o.store_id = m.store_id AND o.role = 'owner' AND o.user_id <> $1)
	ORDER BY m.store_id DESC LIMIT $2`

// SolelyOwned lists the caller's stores that have no other owner, newest first, at most
// page.MaxLimit: each keeps its owner from deleting their account.
func (r *Registry) SolelyOwned(ctx context.Context, p authz.Principal) ([]Store, error) {
	if err := p.SignedIn(); err != nil {
		return nil, err
	}
	var list []Store
	err := r.db.Select(ctx, &list, selectSolelyOwned, p.UserID, page.MaxLimit)
	return list, err
}

// EndMemberships ends all memberships of a user who deletes their account, in that
// transaction. It fails with forbidden, with a field for each store by its slug, while
// stores have no other owner: they are to be handed over or deleted first. A store that
// is being deleted does not count: its deletion goes on.
func (r *Registry) EndMemberships(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) ([]authz.Withdrawn, error) {
	if err := authz.LockMemberships(ctx, tx, user); err != nil {
		return nil, err
	}
	var owned []Store
	if err := tx.Select(ctx, &owned, selectSolelyOwned, user, page.MaxLimit); err != nil {
		return nil, err
	}
	if len(owned) > 0 {
		return nil, errSolelyOwned(owned)
	}
	return authz.WithdrawAll(ctx, tx, user)
}

// maxNamed is how many stores a message names.
const maxNamed = 5

func errSolelyOwned(owned []Store) error {
	err := stoa.Errorf(stoa.Forbidden, "")
	var names []string
	for i, s := range owned {
		if i < maxNamed {
			names = append(names, s.Name+" ("+s.Slug+")")
		}
		err.Fields = append(err.Fields, stoa.FieldError{Field: "stores." + s.Slug, Message: "has no other owner"})
	}
	if more := len(owned) - maxNamed; more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	err.Message = "These stores have no other owner: " + strings.Join(names, ", ") + ". Hand each over to another member or delete it, then delete your account."
	return err
}
