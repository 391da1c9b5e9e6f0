package stores

import (
	"context"
	"errors"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// GetBySlug returns the master's data about the store with that slug. Unlike Get it
// opens no tenant database: Profile is nil. It fails with store_not_found.
func (r *Registry) GetBySlug(ctx context.Context, p authz.Principal, slug string) (Store, error) {
	if !slugPattern.MatchString(slug) {
		return Store{}, authz.ErrStoreNotFound()
	}
	var id stoa.StoreID
	err := r.db.Get(ctx, &id, `SELECT id FROM stores WHERE slug = $1`, slug)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Store{}, authz.ErrStoreNotFound()
	}
	if err != nil {
		return Store{}, err
	}
	s, err := r.read(ctx, p, id)
	if err != nil {
		return Store{}, err
	}
	r.addUnreachable([]Store{s})
	return s, nil
}

// GetForOperator is GetBySlug for operators of the platform: others get forbidden, whatever
// the slug.
func (r *Registry) GetForOperator(ctx context.Context, p authz.Principal, slug string) (Store, error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil {
		return Store{}, err
	}
	return r.GetBySlug(ctx, p, slug)
}

// maxSearch is how much of a search text is used, in characters.
const maxSearch = 100

// Search returns up to limit of the caller's stores whose name or slug contains text,
// newest first, with no details but name, slug and status.
func (r *Registry) Search(ctx context.Context, p authz.Principal, text string, limit int) ([]Store, error) {
	if err := p.SignedIn(); err != nil {
		return nil, err
	}
	var list []Store
	err := r.db.Select(ctx, &list, `
		SELECT s.id, s.name, s.slug, s.status, m.role, s.created_at, s.updated_at, s.delete_after, s.held
		FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.user_id = $1 AND s.status <> 'deleted' AND (s.slug LIKE $2 ESCAPE '!' OR lower(s.name) LIKE $2 ESCAPE '!')
		ORDER BY m.store_id DESC LIMIT $3`, p.UserID, containing(text), limit)
	return list, err
}

// containing returns a LIKE pattern, with ! as escape, for lower-case texts that
// contain text.
func containing(text string) string {
	runes := []rune(strings.ToLower(strings.ToValidUTF8(strings.ReplaceAll(strings.TrimSpace(text), "\x00", ""), "")))
	if len(runes) > maxSearch {
		runes = runes[:maxSearch]
	}
	return "%" + strings.NewReplacer("!", "!!", "%", "!%", "_", "!_").Replace(string(runes)) + "%"
}
