// Package credits is the ledger: the credits of each store, every transaction, and
// the price list of services.
//
// A store has one balance row and an append-only list of transactions, numbered
// without gaps. Package verify checks the invariants: the amounts add up to the
// balance and the debt, each balance_after is the one before plus the amount, the
// open holds and freezes add up to what is reserved, an account in debt has
// nothing available, and an idempotency key moves credits once.
//
// A change of an account locks it (lockAccount), changes it in memory and writes
// it back (flush). Most spends are faster: see spendBatcher.
package credits

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Ledger reads and moves credits. It is safe for concurrent use, also by
// several processes on one master database.
type Ledger struct {
	db       *masterdb.DB
	balances *authz.CheckedRows[balanceRow]
	spends   *spendBatcher
	metrics  metrics
	onChange []func(stoa.StoreID)
}

// New returns the ledger kept in db.
func New(db *masterdb.DB) *Ledger {
	l := &Ledger{db: db, metrics: newMetrics(), balances: newBalanceRows(db)}
	l.spends = newSpendBatcher(l)
	db.Subscribe(changeTopic, func(payload string) {
		if store, err := stoa.ParseID[stoa.StoreID](payload); err == nil {
			l.changed(store)
		}
	}, func() {}) // the sweeps of those who follow find what was missed
	return l
}

// changeTopic is the topic of the notification that a command has changed an account.
const changeTopic = "credits"

// OnChange registers fn, which is called with the store after each change of its
// account that this process or a command commits. fn must not block. OnChange must not be
// called once the ledger is in use.
func (l *Ledger) OnChange(fn func(stoa.StoreID)) { l.onChange = append(l.onChange, fn) }

func (l *Ledger) changed(store stoa.StoreID) {
	for _, fn := range l.onChange {
		fn(store)
	}
}

// Balance is the state of a store's account.
type Balance struct {
	StoreID           stoa.StoreID
	Balance           Amount
	Reserved          Amount // held for spends that are not captured yet
	Debt              Amount // owed after a reversed payment; prevents spending
	LifetimePurchased Amount
	LifetimeSpent     Amount
	Seq               int64 // the number of transactions
	Version           int64 // how often the account has changed, also by holds
	UpdatedAt         time.Time
	ExpiresSoon       *Expiring `db:"-"` // only Ledger.Balance fills it in
}

// Expiring is credits that expire within 30 days.
type Expiring struct {
	Amount Amount
	Next   time.Time // when the first of them expire
}

// Available returns what can be spent now, without regard to a debt.
func (b Balance) Available() Amount { return b.Balance - b.Reserved }

const (
	selectBalance  = `SELECT ` + balanceColumns
	balanceColumns = `b.store_id, b.balance, b.reserved, b.debt, b.lifetime_purchased, b.lifetime_spent, b.seq, b.version, b.updated_at`
)

// Open creates the account of a new store, empty, in the transaction that
// creates the store.
func (l *Ledger) Open(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	return tx.ExecLater(ctx, `INSERT INTO credit_balances (store_id, updated_at) VALUES ($1, $2)`, store, tx.Now)
}

// balanceRow is a balance with the right to it and what expires soon.
type balanceRow struct {
	authz.Checked
	Balance
	NextExpiry     *time.Time
	ExpiringAmount *Amount
}

func newBalanceRows(db *masterdb.DB) *authz.CheckedRows[balanceRow] {
	const expiring = `credit_lots WHERE store_id = s.id AND remaining > 0 AND expires_at > $3 AND expires_at <= $4`
	return authz.NewCheckedRows[balanceRow](db, balanceColumns+`, lot.expires_at AS next_expiry,
			CASE WHEN lot.id IS NOT NULL THEN (SELECT CAST(sum(remaining) AS bigint) FROM `+expiring+`) END AS expiring_amount`, `
		JOIN credit_balances b ON b.store_id = s.id
		LEFT JOIN credit_lots lot ON lot.id = (SELECT id FROM `+expiring+` ORDER BY expires_at LIMIT 1)`,
		func() []any { now := db.Now(); return []any{now, now.Add(soon)} })
}

// Balance returns the state of the store's account. It fails with store_not_found for a
// caller who is not a member.
func (l *Ledger) Balance(ctx context.Context, p authz.Principal, store stoa.StoreID) (Balance, error) {
	row, err := l.balances.Get(ctx, p, store, authz.ReadCredits)
	if row.NextExpiry != nil {
		row.ExpiresSoon = &Expiring{Next: *row.NextExpiry, Amount: *row.ExpiringAmount}
	}
	return row.Balance, err
}

// BalanceQuery is the query of ReadBalance.
func BalanceQuery(b *Balance, store stoa.StoreID) masterdb.Query {
	return masterdb.One(b, selectBalance+` FROM credit_balances b WHERE store_id = $1`, store)
}

// ReadBalance returns the balance without a permission check, for callers that have
// already checked. It fails with store_not_found when there is no such account.
func (l *Ledger) ReadBalance(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Balance, error) {
	var b Balance
	err := q.Batch(ctx, BalanceQuery(&b, store))
	if errors.Is(err, masterdb.ErrNotFound) {
		return Balance{}, authz.ErrStoreNotFound()
	}
	return b, err
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
