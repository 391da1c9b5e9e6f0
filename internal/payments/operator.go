package payments

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/page"
)

// ListedPage is a page of purchases of all stores, newest first.
type ListedPage struct {
	Purchases  []Listed
	NextCursor *string // nil on the last page
}

// ListForOperator lists purchases of all stores, for operators of the platform: all, or
// those that need attention, which are Mismatched and Pending. It fails with forbidden
// and with invalid_request.
func (s *Service) ListForOperator(ctx context.Context, p authz.Principal, status Status, limit int, cursor string) (ListedPage, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "payments:read"); err != nil {
		return ListedPage{}, err
	}
	var faults stoa.Invalid
	bounds := page.ByID[stoa.PurchaseID](limit, cursor, &faults)
	// A constant condition, so that the partial index of the status serves it.
	where, known := map[Status]string{"": "", Pending: ` AND status = 'pending'`, Mismatched: ` AND status = 'mismatched'`}[status]
	if !known {
		faults.Add("status", "must be %s or %s", Pending, Mismatched)
	}
	if err := faults.Err(); err != nil {
		return ListedPage{}, err
	}
	var rows []Listed
	err := s.db.Select(ctx, &rows, `
		SELECT `+purchaseColumns+`, (SELECT s.slug FROM stores s WHERE s.id = purchases.store_id) AS store_slug
		FROM purchases WHERE id < $1`+where+` ORDER BY id DESC LIMIT $2`, bounds.Before, bounds.Rows())
	if err != nil {
		return ListedPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(l Listed) string { return l.ID.String() })
	return ListedPage{Purchases: rows, NextCursor: next}, nil
}
