package credits

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// spendByStatement carries out the calls of those accounts of the batch that
// one statement can decide about: every caller may spend, no key was used
// before, no lot is to be chosen, and the sum is available. It returns their
// outcomes. The other accounts have no outcomes and are unchanged. PostgreSQL
// only.
//
// The statement fails as a whole when it loses a race, such as for a key with
// another process. No account has outcomes then. When the connection is lost,
// it is unknown whether the statement was carried out: the calls fail, and must
// not be carried out again here.
func (l *Ledger) spendByStatement(ctx context.Context, batch []accountBatch) spendOutcomes {
	now := l.db.Now()
	var named []string
	for _, account := range batch {
		named = append(named, services(account.calls)...)
	}
	prices, err := pricesOf(ctx, l.db, named, now)
	if err != nil {
		return nil
	}
	var priced []pricedBatch
	for _, account := range batch {
		if p, ok := account.price(prices); ok {
			priced = append(priced, p)
		}
	}
	balances, err := l.spendPriced(ctx, priced, now)
	outcomes := spendOutcomes{}
	for _, p := range priced {
		balance, paid := balances[p.queue.store]
		switch {
		case paid:
			outcomes[p.queue.store] = p.outcomes(balance, now)
			l.changed(p.queue.store)
		case err != nil && !masterdb.IsRefused(err):
			outcomes[p.queue.store] = p.failed(err)
		}
	}
	return outcomes
}

// pricedBatch is an accountBatch whose prices are known.
type pricedBatch struct {
	accountBatch
	transactions []Transaction // of the calls, in their order
	total        Amount        // of all calls, above 0
}

// price prices the calls. ok is false when the statement cannot decide about
// them: one has no price, or two have the same key.
func (b accountBatch) price(prices map[string]Amount) (p pricedBatch, ok bool) {
	p.accountBatch = b
	keys := map[string]bool{}
	for _, call := range b.calls {
		t, err := call.req.price(prices)
		if err != nil || !p.total.canAdd(t.Amount) || call.key != "" && keys[call.key] {
			return p, false
		}
		keys[call.key] = true
		p.total += t.Amount
		t.ID, t.StoreID, t.Type, t.Amount = stoa.NewID[stoa.TransactionID](), call.store, TypeSpend, -t.Amount
		t.Description, t.UserID = call.req.Description, &call.user.UserID
		p.transactions = append(p.transactions, t)
	}
	return p, true
}

// outcomes returns the outcome of each call. after is the account after the
// last of them.
func (p pricedBatch) outcomes(after Balance, now time.Time) []spendOutcome {
	outcomes := make([]spendOutcome, len(p.calls))
	b := after
	for i, t := range slices.Backward(p.transactions) {
		t.Sequence, t.BalanceAfter, t.CreatedAt = b.Seq, b.Balance, now
		outcomes[i].result = SpendResult{Transaction: t, Balance: b}
		b.Balance -= t.Amount
		b.LifetimeSpent += t.Amount
		b.Seq--
	}
	return outcomes
}

// spendPriced runs the statement and returns the accounts that it has changed,
// as they are after it.
func (l *Ledger) spendPriced(ctx context.Context, priced []pricedBatch, now time.Time) (map[stoa.StoreID]Balance, error) {
	if len(priced) == 0 {
		return nil, nil
	}
	query, args := priced[0].statement(now)
	if len(priced) > 1 || len(priced[0].calls) > 1 {
		query, args = spendMany, spendManyArgs(priced, now)
	}
	var balances map[stoa.StoreID]Balance
	err := l.db.Retry(ctx, func() (err error) {
		balances, err = readPaid(ctx, l.db.Pool(), query, args)
		return err
	})
	return balances, err
}

// readPaid runs the statement of a batch and reads the accounts that it returns.
func readPaid(ctx context.Context, db *pgxpool.Pool, query string, args []any) (map[stoa.StoreID]Balance, error) {
	rows, err := db.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	balances := map[stoa.StoreID]Balance{}
	// Plain types are read faster. The driver looks up how to read any other type in each
	// statement, and a single caller waits for that.
	var id [16]byte
	var at time.Time
	var balance, reserved, debt, purchased, spent, seq, version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &balance, &reserved, &debt, &purchased, &spent, &seq, &version, &at}, func() error {
		balances[id] = Balance{
			StoreID: id, Balance: Amount(balance), Reserved: Amount(reserved), Debt: Amount(debt),
			LifetimePurchased: Amount(purchased), LifetimeSpent: Amount(spent), Seq: seq, Version: version, UpdatedAt: at,
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return balances, nil
}

const paidColumns = `store_id, balance, reserved, debt, lifetime_purchased, lifetime_spent, seq, version, updated_at`

// spendOne carries out the one call of one account. spendOneKeyed does so for a
// call with an idempotency key.
var (
	spendOne      = spendOneStatement(``, `NULL, NULL, NULL`)
	spendOneKeyed = spendOneStatement(`AND NOT EXISTS (`+keyUsedSQL("$1", "$10")+`)`,
		`$10, $11, `+accountAfterSQL("balance", "reserved", "debt", "lifetime_purchased", "lifetime_spent"))
)

func spendOneStatement(keyIsNew, key string) string {
	return `
	WITH paid AS (
		UPDATE credit_balances b
		SET balance = balance - $3, lifetime_spent = lifetime_spent + $3, seq = seq + 1, version = version + 1, updated_at = $4
		WHERE store_id = $1 AND ` + coversSQL("$3") + `
			AND ` + maySpendSQL("$1", "$2") + `
			` + keyIsNew + `
		RETURNING ` + paidColumns + `
	), recorded AS (
		INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
			description, user_id, idempotency_key, request_hash, account_after, created_at)
		SELECT $5::uuid, store_id, seq, 'spend', -$3, balance, $6::text, $7::bigint, $8::bigint, $9::text, $2, ` + key + `, $4 FROM paid
	)
	SELECT * FROM paid`
}

// statement returns the statement for the first call alone and its arguments.
func (p pricedBatch) statement(now time.Time) (query string, args []any) {
	call, t := p.calls[0], p.transactions[0]
	args = []any{
		[16]byte(call.store), [16]byte(call.user.UserID), int64(-t.Amount), now, [16]byte(t.ID),
		t.ServiceKey, t.Quantity, (*int64)(t.UnitPrice), t.Description,
	}
	if call.key == "" {
		return spendOne, args
	}
	return spendOneKeyed, append(args, call.key, call.hash)
}

// spendMany carries out several calls of several accounts. It takes the locks
// in the order of the stores and skips rows that another process has locked. So
// it neither waits nor deadlocks, and a busy account delays no other.
//
// It finds each row by its index, however few or many rows there are: the
// planner cannot flatten a lateral look-up, and INSERT … ON CONFLICT, which
// inserts nothing here since the rows exist, always uses the index. A join
// would read whole tables of a thousand stores. The statement's snapshot may be
// older than the rows it locks. ON CONFLICT updates the rows as they are now
// (PostgreSQL manual, Transaction Isolation, Read Committed).
var spendMany = `
	WITH refused AS (
		SELECT u.store_id FROM unnest($5::uuid[], $6::uuid[]) AS u (store_id, user_id)
		CROSS JOIN LATERAL (SELECT count(*) AS n WHERE ` + maySpendSQL("u.store_id", "u.user_id") + `) may
		WHERE may.n = 0
		UNION ALL
		SELECT k.store_id FROM unnest($7::uuid[], $8::text[]) AS k (store_id, key)
		CROSS JOIN LATERAL (` + keyUsedSQL("k.store_id", "k.key") + ` OFFSET 0) used
	), locked AS MATERIALIZED (
		SELECT w.store_id, w.total, w.n FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS w (store_id, total, n)
		CROSS JOIN LATERAL (SELECT 1 FROM credit_balances WHERE store_id = w.store_id FOR UPDATE SKIP LOCKED) b
		WHERE w.store_id NOT IN (SELECT store_id FROM refused)
	), paid AS (
		INSERT INTO credit_balances AS b (store_id, balance, seq, updated_at) SELECT store_id, total, n, $1 FROM locked
		ON CONFLICT (store_id) DO UPDATE
		SET balance = b.balance - excluded.balance, lifetime_spent = b.lifetime_spent + excluded.balance,
			seq = b.seq + excluded.seq, version = b.version + 1, updated_at = excluded.updated_at
		WHERE ` + coversSQL("excluded.balance") + `
		RETURNING b.store_id, b.balance, b.reserved, b.debt, b.lifetime_purchased, b.lifetime_spent, b.seq, b.version, b.updated_at
	), recorded AS (
		INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
			description, user_id, idempotency_key, request_hash, account_after, created_at)
		SELECT e.id, e.store_id, p.seq - e.later, 'spend', e.amount, p.balance + e.rest, e.service_key, e.quantity, e.unit_price,
			e.description, e.user_id, e.key, e.hash, CASE WHEN e.key IS NOT NULL THEN ` +
	accountAfterSQL("p.balance + e.rest", "p.reserved", "p.debt", "p.lifetime_purchased", "p.lifetime_spent - e.rest") + ` END, $1
		FROM unnest($9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[], $15::bigint[], $16::bigint[],
			$17::text[], $18::uuid[], $19::text[], $20::text[])
			AS e (id, store_id, later, amount, rest, service_key, quantity, unit_price, description, user_id, key, hash)
		JOIN paid p ON p.store_id = e.store_id
	)
	SELECT * FROM paid`

// spendManyArgs returns the arguments of spendMany: what each account needs, the
// users and the keys to check, and the rows to record. later is the number of
// calls of the account after a row, and rest is the sum of their amounts.
func spendManyArgs(priced []pricedBatch, now time.Time) []any {
	slices.SortFunc(priced, func(a, b pricedBatch) int { return compareStores(a.accountBatch, b.accountBatch) })
	var stores, userStores, users, keyStores [][16]byte
	var keys []string
	var totals, counts []int64
	var rows entryColumns
	for _, p := range priced {
		store := [16]byte(p.queue.store)
		stores, totals, counts = append(stores, store), append(totals, int64(p.total)), append(counts, int64(len(p.calls)))
		seen := map[stoa.UserID]bool{}
		rest := p.total
		for i, call := range p.calls {
			if !seen[call.user.UserID] {
				seen[call.user.UserID] = true
				userStores, users = append(userStores, store), append(users, call.user.UserID)
			}
			if call.key != "" {
				keyStores, keys = append(keyStores, store), append(keys, call.key)
			}
			rest += p.transactions[i].Amount
			rows.add(p.transactions[i], call, len(p.calls)-1-i, rest)
		}
	}
	return append([]any{now, stores, totals, counts, userStores, users, keyStores, keys}, rows.args()...)
}

// entryColumns holds rows by column, as unnest takes them.
type entryColumns struct {
	id, store, user     [][16]byte
	description         []string
	later, amount, rest []int64
	service, key, hash  []*string
	quantity, price     []*int64
}

func (c *entryColumns) add(t Transaction, call *spendCall, later int, rest Amount) {
	c.id, c.store, c.user = append(c.id, t.ID), append(c.store, call.store), append(c.user, call.user.UserID)
	c.later, c.amount, c.rest = append(c.later, int64(later)), append(c.amount, int64(t.Amount)), append(c.rest, int64(rest))
	c.service, c.quantity, c.price = append(c.service, t.ServiceKey), append(c.quantity, t.Quantity), append(c.price, (*int64)(t.UnitPrice))
	c.description = append(c.description, t.Description)
	c.key, c.hash = append(c.key, nullable(call.key)), append(c.hash, nullable(call.hash))
}

func (c *entryColumns) args() []any {
	return []any{c.id, c.store, c.later, c.amount, c.rest, c.service, c.quantity, c.price, c.description, c.user, c.key, c.hash}
}
