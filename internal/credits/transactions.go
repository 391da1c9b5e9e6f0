package credits

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/page"
)

// Type is the kind of a transaction.
type Type string

// The types. Amounts of purchases and bonuses are positive. Amounts of spends, captures
// and expiries are negative. Amounts of the other types can be either.
const (
	TypePurchase   Type = "purchase"
	TypeSpend      Type = "spend"
	TypeCapture    Type = "capture"
	TypeRefund     Type = "refund"
	TypeDispute    Type = "dispute"
	TypeAdjustment Type = "adjustment"
	TypeBonus      Type = "bonus"
	TypeExpiry     Type = "expiry"
)

var types = []Type{
	TypePurchase, TypeSpend, TypeCapture, TypeRefund, TypeDispute, TypeAdjustment, TypeBonus, TypeExpiry,
}

// Transaction is one change of a store's credits. It is never updated.
type Transaction struct {
	ID           stoa.TransactionID
	StoreID      stoa.StoreID
	Sequence     int64 `db:"seq"` // 1, 2, 3, … in each store
	Type         Type
	Amount       Amount // negative when the balance decreases
	BalanceAfter Amount
	DebtChange   Amount  // positive when the debt increases
	ServiceKey   *string // set, with Quantity and UnitPrice, when the transaction paid for a service
	Quantity     *int64
	UnitPrice    *Amount
	Description  string
	Reference    *string
	UserID       *stoa.UserID
	HoldID       *stoa.HoldID // set for a capture
	CreatedAt    time.Time
}

// TransactionColumns are the columns of a Transaction in the table credit_transactions.
const TransactionColumns = `id, store_id, seq, type, amount, balance_after, debt_change, service_key, quantity, unit_price,
		description, reference, user_id, hold_id, created_at`

const selectTransaction = `
	SELECT ` + TransactionColumns

// Filter selects transactions. Its zero value selects the newest 20.
type Filter struct {
	Type       Type
	ServiceKey string
	From, To   *time.Time // From is inclusive, To is exclusive
	Limit      int        // 1 to 100; 0 means 20
	Cursor     string     // NextCursor of the previous page
}

// Page is one page of transactions, newest first. NextCursor is nil on the last page.
type Page struct {
	Transactions []Transaction
	NextCursor   *string
}

// Transactions lists the store's transactions, newest first. Pages are ordered by the
// sequence number, so that no transaction is missed or listed twice while new ones are
// added. It fails with invalid_request for an invalid filter and with store_not_found for
// a caller who is not a member.
func (l *Ledger) Transactions(ctx context.Context, p authz.Principal, store stoa.StoreID, f Filter) (Page, error) {
	bounds, err := f.validate()
	if err != nil {
		return Page{}, err
	}
	if _, err := authz.Check(ctx, l.db, p, store, authz.ReadCredits); err != nil {
		return Page{}, err
	}
	query, args := f.query(store, bounds)
	rows := []Transaction{}
	if err := l.db.Select(ctx, &rows, query, args...); err != nil {
		return Page{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(t Transaction) string { return page.EncodeSequence(t.Sequence) })
	return Page{Transactions: rows, NextCursor: next}, nil
}

// historyChunk is how many rows History reads at a time.
const historyChunk = 1000

// History returns every transaction that the filter selects, newest first. It reads them
// in chunks and ignores Limit and Cursor. Transactions added after the first chunk is
// read are not included. An error ends the sequence.
func (l *Ledger) History(ctx context.Context, p authz.Principal, store stoa.StoreID, f Filter) (iter.Seq2[Transaction, error], error) {
	f.Limit, f.Cursor = 0, ""
	bounds, err := f.validate()
	if err != nil {
		return nil, err
	}
	if _, err := authz.Check(ctx, l.db, p, store, authz.ReadCredits); err != nil {
		return nil, err
	}
	bounds.Limit = historyChunk
	return func(yield func(Transaction, error) bool) {
		for at := bounds; ; {
			query, args := f.query(store, at)
			var rows []Transaction
			if err := l.db.Select(ctx, &rows, query, args...); err != nil {
				yield(Transaction{}, err)
				return
			}
			for _, t := range rows {
				if !yield(t, nil) {
					return
				}
				at.Before = t.Sequence
			}
			if len(rows) <= historyChunk {
				return
			}
		}
	}, nil
}

// accountRow is an account beside one of its spendings, whose columns are NULL if there is none.
type accountRow struct {
	Balance
	Spent struct {
		ID           stoa.TransactionID
		Seq          *int64
		Type         *Type
		Amount       *Amount
		BalanceAfter *Amount
		ServiceKey   *string
		Quantity     *int64
		Description  *string
		CreatedAt    *time.Time
	}
}

const selectAccount = selectBalance + `, t.id AS "spent.id", t.seq AS "spent.seq", t.type AS "spent.type", t.amount AS "spent.amount",
		t.balance_after AS "spent.balance_after", t.service_key AS "spent.service_key", t.quantity AS "spent.quantity",
		t.description AS "spent.description", t.created_at AS "spent.created_at"
	FROM credit_balances b LEFT JOIN (SELECT * FROM credit_transactions
		WHERE store_id = $1 AND seq > $2 AND type IN ('spend', 'capture') ORDER BY seq LIMIT $3) t ON TRUE
	WHERE b.store_id = $1 ORDER BY t.seq`

// ReadAccount returns the account, and what was spent after a transaction, oldest first, at most
// limit of them. All of it is of one moment. The spendings lack what concerns their callers. Like
// ReadBalance it checks no permission, and fails with store_not_found.
func (l *Ledger) ReadAccount(ctx context.Context, store stoa.StoreID, after int64, limit int) (Balance, []Transaction, error) {
	var rows []accountRow
	if err := l.db.Select(ctx, &rows, selectAccount, store, after, limit); err != nil {
		return Balance{}, nil, err
	}
	if len(rows) == 0 {
		return Balance{}, nil, authz.ErrStoreNotFound()
	}
	var spent []Transaction
	for _, r := range rows {
		if t := r.Spent; t.Seq != nil {
			spent = append(spent, Transaction{
				ID: t.ID, StoreID: store, Sequence: *t.Seq, Type: *t.Type, Amount: *t.Amount, BalanceAfter: *t.BalanceAfter,
				ServiceKey: t.ServiceKey, Quantity: t.Quantity, Description: *t.Description, CreatedAt: *t.CreatedAt,
			})
		}
	}
	return rows[0].Balance, spent, nil
}

// query adds only the conditions that are set: PostgreSQL cannot infer the type of a
// parameter that is only compared with NULL.
func (f Filter) query(store stoa.StoreID, bounds page.Bounds[int64]) (string, []any) {
	query, args := selectTransaction+` FROM credit_transactions WHERE store_id = $1 AND seq < $2`, []any{store, bounds.Before}
	and := func(column, operator string, value any) {
		args = append(args, value)
		query += fmt.Sprintf(` AND %s %s $%d`, column, operator, len(args))
	}
	if f.Type != "" {
		and("type", "=", string(f.Type))
	}
	if f.ServiceKey != "" {
		and("service_key", "=", f.ServiceKey)
	}
	if f.From != nil {
		and("created_at", ">=", *f.From)
	}
	if f.To != nil {
		and("created_at", "<", *f.To)
	}
	args = append(args, bounds.Rows())
	return query + fmt.Sprintf(` ORDER BY seq DESC LIMIT $%d`, len(args)), args
}

// validate returns the bounds of the page.
func (f Filter) validate() (page.Bounds[int64], error) {
	var faults stoa.Invalid
	if f.Type != "" && !slices.Contains(types, f.Type) {
		faults.Add("type", "must be one of %v", types)
	}
	if !storable(f.ServiceKey, maxServiceKey) {
		faults.Add("serviceKey", "is not the key of a service")
	}
	if f.From != nil && f.To != nil && !f.From.Before(*f.To) {
		faults.Add("from", "must be before to")
	}
	bounds := page.BySequence(f.Limit, f.Cursor, &faults)
	return bounds, faults.Err()
}
