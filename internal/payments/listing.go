package payments

import (
	"context"
	"fmt"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Listed is a purchase with the slug of its store.
type Listed struct {
	Purchase
	StoreSlug string
}

// Filter selects purchases for ListAll. A zero field does not restrict the selection.
type Filter struct {
	Status Status
	Store  stoa.StoreID
	Limit  int // the maximum number of purchases; the newest are returned
}

// ListAll returns purchases of all stores, newest first. It checks no permission: it is
// for the platform's operator, who has access to the master database.
func ListAll(ctx context.Context, q masterdb.Querier, f Filter) ([]Listed, error) {
	conditions, args := []string{"true"}, []any{f.Limit}
	add := func(column string, value any) {
		args = append(args, value)
		conditions = append(conditions, fmt.Sprintf("%s = $%d", column, len(args)))
	}
	if f.Status != "" {
		add("status", string(f.Status))
	}
	if !f.Store.IsZero() {
		add("store_id", f.Store)
	}
	rows := []Listed{}
	err := q.Select(ctx, &rows, `
		SELECT `+purchaseColumns+`, (SELECT s.slug FROM stores s WHERE s.id = purchases.store_id) AS store_slug
		FROM purchases WHERE `+strings.Join(conditions, " AND ")+` ORDER BY id DESC LIMIT $1`, args...)
	return rows, err
}

// CountMismatched returns the number of purchases whose money the operator has to refund.
func CountMismatched(ctx context.Context, q masterdb.Querier) (n int, err error) {
	err = q.Get(ctx, &n, `SELECT count(*) FROM purchases WHERE status = 'mismatched'`)
	return n, err
}
