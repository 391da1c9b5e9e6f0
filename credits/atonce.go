package credits

import (
	"context"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// spendAtOnce answers all calls of those accounts of the batch for which one
// statement suffices: every caller may, no key was used before, no lot is to
// be chosen, and what is available covers the sum. It gives those to finish
// and returns the others, of which nothing has been changed. PostgreSQL only.
//
// A race that it loses, such as for a key with another process, fails the
// statement as a whole: the locked way then finds out what is what. When the
// connection is lost, nobody knows whether the statement was carried out: the
// calls fail, and must not be tried again here.
func (l *Ledger) spendAtOnce(ctx context.Context, batch []group, finish func(group)) (rest []group) {
	now := l.db.Now()
	var services []string
	for _, g := range batch {
		for _, it := range g.calls {
			services = append(services, it.req.ServiceKey)
		}
	}
	prices, err := pricesOf(ctx, l.db, services, now)
	if err != nil {
		return batch
	}
	var ready []quote
	for _, g := range batch {
		if q, ok := g.quote(prices); ok {
			ready = append(ready, q)
		} else {
			rest = append(rest, g)
		}
	}
	done, err := l.spendQuotes(ctx, ready, now)
	for _, q := range ready {
		balance, ok := done[q.queue.store]
		switch {
		case ok:
			q.answer(balance, now)
			l.changed(q.queue.store)
			finish(q.group)
		case err == nil || masterdb.IsRefused(err):
			rest = append(rest, q.group)
		default:
			q.fail(err)
			finish(q.group)
		}
	}
	return rest
}

// quote is a group whose prices are known.
type quote struct {
	group
	transactions []Transaction
	total        Amount
}

// quote prices the calls. It is not ok when a call needs an answer of its own.
func (g group) quote(prices map[string]Amount) (q quote, ok bool) {
	q.group = g
	keys := map[string]bool{}
	for _, it := range g.calls {
		t, err := it.req.price(prices)
		if err != nil || !q.total.canAdd(t.Amount) || it.key != "" && keys[it.key] {
			return q, false
		}
		keys[it.key] = true
		q.total += t.Amount
		t.ID, t.StoreID, t.Type, t.Amount = stoa.NewID[stoa.TransactionID](), it.store, TypeSpend, -t.Amount
		t.Description, t.UserID = it.req.Description, &it.user.UserID
		q.transactions = append(q.transactions, t)
	}
	return q, true
}

// answer gives each call its outcome. After is the account after the last.
func (q quote) answer(after Balance, now time.Time) {
	b := after
	for i, it := range slices.Backward(q.calls) {
		t := q.transactions[i]
		t.Sequence, t.BalanceAfter, t.CreatedAt = b.Seq, b.Balance, now
		it.spent = Spent{Transaction: t, Balance: b}
		b.Balance -= t.Amount
		b.LifetimeSpent += t.Amount
		b.Seq--
	}
}

func (l *Ledger) spendQuotes(ctx context.Context, quotes []quote, now time.Time) (map[stoa.StoreID]Balance, error) {
	if len(quotes) == 0 {
		return nil, nil
	}
	query, args := quotes[0].statement(now)
	if len(quotes) > 1 || len(quotes[0].calls) > 1 {
		query, args = spendMany, manyArgs(quotes, now)
	}
	rows, err := l.db.Pool().Query(ctx, query, args...)
	if err != nil {
		return nil, l.db.MapError(ctx, err)
	}
	done := make(map[stoa.StoreID]Balance, len(quotes))
	// Plain types: what a lone caller waits for is also how long the driver takes
	// to find out how to read another one.
	var id [16]byte
	var at time.Time
	var balance, reserved, debt, purchased, spent, seq, version int64
	_, err = pgx.ForEachRow(rows, []any{&id, &balance, &reserved, &debt, &purchased, &spent, &seq, &version, &at}, func() error {
		done[id] = Balance{
			StoreID: id, Balance: Amount(balance), Reserved: Amount(reserved), Debt: Amount(debt),
			LifetimePurchased: Amount(purchased), LifetimeSpent: Amount(spent), Seq: seq, Version: version, UpdatedAt: at,
		}
		return nil
	})
	if err != nil {
		return nil, l.db.MapError(ctx, err)
	}
	return done, nil
}

const returning = `store_id, balance, reserved, debt, lifetime_purchased, lifetime_spent, seq, version, updated_at`

// spendOne is the way of a caller who is alone; spendOneKeyed, with a key.
var (
	spendOne      = spendAlone(``, `NULL, NULL`)
	spendOneKeyed = spendAlone(`AND NOT EXISTS (SELECT 1 FROM credit_transactions WHERE store_id = $1 AND idempotency_key = $10)`, `$10, $11`)
)

func spendAlone(unused, key string) string {
	return `
	WITH paid AS (
		UPDATE credit_balances b
		SET balance = balance - $3, lifetime_spent = lifetime_spent + $3, seq = seq + 1, version = version + 1, updated_at = $4
		WHERE store_id = $1 AND balance - reserved >= $3 AND lotted = 0
			AND ` + access.MaySQL(access.SpendCredits, "$1", "$2") + `
			` + unused + `
		RETURNING ` + returning + `
	), recorded AS (
		INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
			description, user_id, idempotency_key, request_hash, created_at)
		SELECT $5::uuid, store_id, seq, 'spend', -$3, balance, $6::text, $7::bigint, $8::bigint, $9::text, $2, ` + key + `, $4 FROM paid
	)
	SELECT * FROM paid`
}

// statement is that of the first call alone, with its parameters.
func (q quote) statement(now time.Time) (query string, args []any) {
	it, t := q.calls[0], q.transactions[0]
	args = []any{
		[16]byte(it.store), [16]byte(it.user.UserID), int64(-t.Amount), now, [16]byte(t.ID),
		t.ServiceKey, t.Quantity, (*int64)(t.UnitPrice), t.Description,
	}
	if it.key == "" {
		return spendOne, args
	}
	return spendOneKeyed, append(args, it.key, it.hash)
}

// spendMany pays for several calls of several accounts. It takes the locks in
// the order of the stores and passes by the rows that another process has
// locked: so it neither waits nor deadlocks, and a hot account delays no other.
//
// It finds each row by its index, however few or many rows there are: the
// planner cannot take a lateral look-up apart, and INSERT … ON CONFLICT, which
// inserts nothing here since the rows are there, knows no other way. A join
// would read whole tables of a thousand stores, and again each time. The
// statement's snapshot may be older than the rows it locks; ON CONFLICT changes
// them as they are now (Transaction Isolation, Read Committed).
var spendMany = `
	WITH refused AS (
		SELECT u.store_id FROM unnest($5::uuid[], $6::uuid[]) AS u (store_id, user_id)
		CROSS JOIN LATERAL (SELECT count(*) AS n WHERE ` + access.MaySQL(access.SpendCredits, "u.store_id", "u.user_id") + `) may
		WHERE may.n = 0
		UNION ALL
		SELECT k.store_id FROM unnest($7::uuid[], $8::text[]) AS k (store_id, key)
		CROSS JOIN LATERAL (SELECT 1 FROM credit_transactions t WHERE t.store_id = k.store_id AND t.idempotency_key = k.key OFFSET 0) used
	), locked AS MATERIALIZED (
		SELECT w.store_id, w.total, w.n FROM unnest($2::uuid[], $3::bigint[], $4::bigint[]) AS w (store_id, total, n)
		CROSS JOIN LATERAL (SELECT 1 FROM credit_balances WHERE store_id = w.store_id FOR UPDATE SKIP LOCKED) b
		WHERE w.store_id NOT IN (SELECT store_id FROM refused)
	), paid AS (
		INSERT INTO credit_balances AS b (store_id, balance, seq, updated_at) SELECT store_id, total, n, $1 FROM locked
		ON CONFLICT (store_id) DO UPDATE
		SET balance = b.balance - excluded.balance, lifetime_spent = b.lifetime_spent + excluded.balance,
			seq = b.seq + excluded.seq, version = b.version + 1, updated_at = excluded.updated_at
		WHERE b.balance - b.reserved >= excluded.balance AND b.lotted = 0
		RETURNING b.store_id, b.balance, b.reserved, b.debt, b.lifetime_purchased, b.lifetime_spent, b.seq, b.version, b.updated_at
	), recorded AS (
		INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
			description, user_id, idempotency_key, request_hash, created_at)
		SELECT e.id, e.store_id, p.seq - e.later, 'spend', e.amount, p.balance + e.rest, e.service_key, e.quantity, e.unit_price,
			e.description, e.user_id, e.key, e.hash, $1
		FROM unnest($9::uuid[], $10::uuid[], $11::bigint[], $12::bigint[], $13::bigint[], $14::text[], $15::bigint[], $16::bigint[],
			$17::text[], $18::uuid[], $19::text[], $20::text[])
			AS e (id, store_id, later, amount, rest, service_key, quantity, unit_price, description, user_id, key, hash)
		JOIN paid p ON p.store_id = e.store_id
	)
	SELECT * FROM paid`

// manyArgs are the parameters of spendMany: per account what it needs, per
// user and per key what is to be checked, and the rows to be recorded. Later
// and rest say how many calls of the account come after a row, and what they
// take.
func manyArgs(quotes []quote, now time.Time) []any {
	slices.SortFunc(quotes, func(a, b quote) int { return slices.Compare(a.queue.store[:], b.queue.store[:]) })
	var stores, userStores, users, keyStores [][16]byte
	var keys []string
	var totals, counts []int64
	var rows entryColumns
	for _, q := range quotes {
		store := [16]byte(q.queue.store)
		stores, totals, counts = append(stores, store), append(totals, int64(q.total)), append(counts, int64(len(q.calls)))
		seen := map[stoa.UserID]bool{}
		rest := q.total
		for i, it := range q.calls {
			if !seen[it.user.UserID] {
				seen[it.user.UserID] = true
				userStores, users = append(userStores, store), append(users, it.user.UserID)
			}
			if it.key != "" {
				keyStores, keys = append(keyStores, store), append(keys, it.key)
			}
			rest += q.transactions[i].Amount
			rows.add(q.transactions[i], it, store, len(q.calls)-1-i, rest)
		}
	}
	return append([]any{now, stores, totals, counts, userStores, users, keyStores, keys}, rows.args()...)
}

// entryColumns are rows turned on their side, as unnest takes them.
type entryColumns struct {
	id, store, user     [][16]byte
	description         []string
	later, amount, rest []int64
	service, key, hash  []*string
	quantity, price     []*int64
}

func (c *entryColumns) add(t Transaction, it *call, store [16]byte, later int, rest Amount) {
	c.id, c.store, c.user = append(c.id, t.ID), append(c.store, store), append(c.user, it.user.UserID)
	c.later, c.amount, c.rest = append(c.later, int64(later)), append(c.amount, int64(t.Amount)), append(c.rest, int64(rest))
	c.service, c.quantity, c.price = append(c.service, t.ServiceKey), append(c.quantity, t.Quantity), append(c.price, (*int64)(t.UnitPrice))
	c.description = append(c.description, t.Description)
	c.key, c.hash = append(c.key, nullable(it.key)), append(c.hash, nullable(it.hash))
}

func (c *entryColumns) args() []any {
	return []any{c.id, c.store, c.later, c.amount, c.rest, c.service, c.quantity, c.price, c.description, c.user, c.key, c.hash}
}
