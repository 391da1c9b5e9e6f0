package credits

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Summarize is the job that adds the transactions of all stores to credit_days.
type Summarize struct{}

// Kind implements jobs.Args.
func (Summarize) Kind() string { return "credits.summarize" }

const (
	// SummarizeEvery is the interval of the job.
	SummarizeEvery = 2 * time.Minute
	// SummarizeTimeout limits one execution. The next one continues.
	SummarizeTimeout = 10 * time.Minute

	// summaryChunk is the number of transactions that one transaction of the master adds.
	summaryChunk = 20_000
	// minUnsummarized is the number of new transactions from which on a store is worth a
	// write. Statistics adds up fewer itself.
	minUnsummarized = 1000
	// summaryStores is the number of stores that are read at a time.
	summaryStores = 200
)

// selectPosition selects the last transaction of an account, and the last one that
// credit_days includes.
const selectPosition = `SELECT b.store_id, b.seq AS last, coalesce(p.seq, 0) AS "from"
	FROM credit_balances b LEFT JOIN credit_day_positions p ON p.store_id = b.store_id`

type position struct {
	StoreID    stoa.StoreID
	Last, From int64
}

// SummarizeAll is the handler of the job. Each round adds one chunk of every store that has
// new transactions, so that a store with millions of them does not delay the others.
func (l *Ledger) SummarizeAll(ctx context.Context, _ Summarize) error {
	for more := true; more; {
		more = false
		var after stoa.StoreID
		for {
			var found []position
			if err := l.db.Select(ctx, &found, selectPosition+` WHERE b.store_id > $1 AND b.seq >= coalesce(p.seq, 0) + $2 ORDER BY b.store_id LIMIT $3`,
				after, minUnsummarized, summaryStores); err != nil {
				return err
			}
			for _, at := range found {
				if err := l.summarizeChunk(ctx, at); err != nil {
					return err
				}
				more = more || at.Last-at.From > summaryChunk
			}
			if len(found) < summaryStores {
				break
			}
			after = found[len(found)-1].StoreID
		}
	}
	return nil
}

// summarizeChunk adds the next transactions of a store. Sequence numbers have no gaps and
// become visible in their order, so that one number says what has been added. It changes
// nothing when another caller has added them meanwhile.
func (l *Ledger) summarizeChunk(ctx context.Context, at position) error {
	upTo, sums := min(at.Last, at.From+summaryChunk), sumStatement[l.db.Engine]
	return l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		moved, err := tx.Exec(ctx, `
			INSERT INTO credit_day_positions (store_id, seq) VALUES ($1, $3)
			ON CONFLICT (store_id) DO UPDATE SET seq = $3 WHERE credit_day_positions.seq = $2`, at.StoreID, at.From, upTo)
		if err != nil || moved == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `
			INSERT INTO credit_days AS d (store_id, day, service_key, seq, balance_after, purchased, spent, quantity)
			SELECT $1, s.* FROM (`+sums+`) s WHERE true
			ON CONFLICT (store_id, day, service_key) DO UPDATE SET seq = excluded.seq, balance_after = excluded.balance_after,
				purchased = d.purchased + excluded.purchased, spent = d.spent + excluded.spent, quantity = d.quantity + excluded.quantity`, at.StoreID, at.From, upTo)
		return err
	})
}

// sumStatement adds up the transactions of store $1 after $2 and up to $3 by day and
// service, with the columns of credit_days.
var sumStatement = map[masterdb.Engine]string{
	masterdb.Postgres: sumByDay(`CAST(floor(extract(epoch FROM created_at) / 86400) AS integer)`),
	// SQLite has times as text in UTC, such as 2026-01-31 23:59:59.5+00:00.
	masterdb.SQLite: sumByDay(`CAST(julianday(substr(created_at, 1, 10)) - julianday('1970-01-01') AS integer)`),
}

func sumByDay(day string) string {
	return `SELECT s.day, s.service AS service_key, s.seq, t.balance_after, s.purchased, s.spent, s.quantity FROM (
		SELECT ` + day + ` AS day, coalesce(service_key, '') AS service, max(seq) AS seq,
			CAST(sum(CASE WHEN type = 'purchase' THEN amount ELSE 0 END) AS bigint) AS purchased,
			CAST(sum(CASE WHEN type IN ('spend', 'capture') THEN -amount ELSE 0 END) AS bigint) AS spent,
			CAST(sum(CASE WHEN type IN ('spend', 'capture') THEN coalesce(quantity, 0) ELSE 0 END) AS bigint) AS quantity
		FROM credit_transactions WHERE store_id = $1 AND seq > $2 AND seq <= $3 GROUP BY 1, 2) s
	JOIN credit_transactions t ON t.store_id = $1 AND t.seq = s.seq`
}
