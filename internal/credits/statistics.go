package credits

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Statistics says how a store's credits changed over the last days.
type Statistics struct {
	Days []Day // without gaps, oldest first; the last one is today
	// Services are what was spent on most, at most maxStatisticServices and the rest as
	// one without a key and with Others set.
	Services []ServiceSpend
	// Complete is false while the newest transactions are still being added up. The
	// next call continues.
	Complete bool
}

// Day is one day in UTC.
type Day struct {
	Date      time.Time // its beginning
	Balance   Amount    // at its end, or now
	Purchased Amount
	Spent     Amount
}

// ServiceSpend is what was spent on one service.
type ServiceSpend struct {
	ServiceKey string // empty: spent without a service
	Spent      Amount
	Quantity   int64 // of the service's unit
	Others     bool  // all further services together
}

// The bounds of Statistics.
const (
	MaxStatisticDays     = 90
	defaultStatisticDays = 30
	maxStatisticServices = 12

	summaryChunk = 20_000 // transactions that are added up at once
	// summaryBudget is how long one call adds up what has come since the last one.
	summaryBudget = 400 * time.Millisecond
)

// Statistics returns the changes of the last days, today included; 0 means 30 days. It
// reads what the transactions add up to by day and service (credit_days), after adding
// those that came since the last call: so its cost follows from the new transactions, not
// from the length of the history. It fails with invalid_request for a number of days that
// is not 1 to 90, and with store_not_found for a caller who is not a member.
func (l *Ledger) Statistics(ctx context.Context, p authz.Principal, store stoa.StoreID, days int) (Statistics, error) {
	if days == 0 {
		days = defaultStatisticDays
	}
	if days < 1 || days > MaxStatisticDays {
		var faults stoa.Invalid
		faults.Add("days", "must be between 1 and %d", MaxStatisticDays)
		return Statistics{}, faults.Err()
	}
	if _, err := authz.Check(ctx, l.db, p, store, authz.ReadCredits); err != nil {
		return Statistics{}, err
	}
	complete, err := l.summarize(ctx, store, summaryBudget)
	if err != nil {
		return Statistics{}, err
	}
	out := Statistics{Complete: complete}
	today := dayOf(l.db.Now())
	first := today - int64(days) + 1
	err = l.db.Snapshot(ctx, func(q masterdb.Querier) error {
		if out.Days, err = readDays(ctx, q, store, first, today); err != nil {
			return err
		}
		out.Services, err = readServices(ctx, q, store, first, today)
		return err
	})
	return out, err
}

// dayOf returns the number of a time's day in UTC, counted from 1970-01-01.
func dayOf(t time.Time) int64 {
	const seconds = 24 * 60 * 60
	n := t.Unix()
	if n < 0 {
		n -= seconds - 1
	}
	return n / seconds
}

func dateOf(day int64) time.Time { return time.Unix(day*24*60*60, 0).UTC() }

// readDays reads the days first to last. The balance of a day without transactions is
// that of the day before.
func readDays(ctx context.Context, q masterdb.Querier, store stoa.StoreID, first, last int64) ([]Day, error) {
	var balance Amount
	err := q.Get(ctx, &balance, `
		SELECT balance_after FROM credit_days WHERE store_id = $1 AND day < $2 ORDER BY day DESC, seq DESC LIMIT 1`, store, first)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return nil, err
	}
	var rows []struct {
		Day                       int64
		Purchased, Spent, Balance Amount
	}
	if err := q.Select(ctx, &rows, `
		SELECT t.day, t.purchased, t.spent, l.balance_after AS balance FROM (
			SELECT day, CAST(sum(purchased) AS bigint) AS purchased, CAST(sum(spent) AS bigint) AS spent, max(seq) AS seq
			FROM credit_days WHERE store_id = $1 AND day >= $2 AND day <= $3 GROUP BY day) t
		JOIN credit_days l ON l.store_id = $1 AND l.day = t.day AND l.seq = t.seq
		ORDER BY t.day`, store, first, last); err != nil {
		return nil, err
	}
	out := make([]Day, 0, last-first+1)
	for day := first; day <= last; day++ {
		d := Day{Date: dateOf(day)}
		if len(rows) > 0 && rows[0].Day == day {
			d.Purchased, d.Spent, balance = rows[0].Purchased, rows[0].Spent, rows[0].Balance
			rows = rows[1:]
		}
		d.Balance = balance
		out = append(out, d)
	}
	return out, nil
}

// readServices reads what was spent on each service in the days first to last, the most
// first.
func readServices(ctx context.Context, q masterdb.Querier, store stoa.StoreID, first, last int64) ([]ServiceSpend, error) {
	var rows []struct {
		ServiceSpend
		Total Amount
	}
	if err := q.Select(ctx, &rows, `
		SELECT service_key, CAST(sum(spent) AS bigint) AS spent, CAST(sum(quantity) AS bigint) AS quantity, false AS others,
			CAST(sum(sum(spent)) OVER () AS bigint) AS total
		FROM credit_days WHERE store_id = $1 AND day >= $2 AND day <= $3
		GROUP BY service_key HAVING sum(spent) > 0
		ORDER BY 2 DESC, service_key LIMIT $4`, store, first, last, maxStatisticServices); err != nil {
		return nil, err
	}
	out := make([]ServiceSpend, 0, len(rows)+1)
	var listed, total Amount
	for _, row := range rows {
		out = append(out, row.ServiceSpend)
		listed += row.Spent
		total = row.Total
	}
	if total > listed {
		out = append(out, ServiceSpend{Spent: total - listed, Others: true})
	}
	return out, nil
}

// summarize adds transactions to credit_days, oldest first, until all are added or budget
// is spent. It reports whether all are.
func (l *Ledger) summarize(ctx context.Context, store stoa.StoreID, budget time.Duration) (complete bool, err error) {
	for end := time.Now().Add(budget); ; {
		complete, err := l.summarizeChunk(ctx, store)
		if err != nil || complete || time.Now().After(end) {
			return complete, err
		}
	}
}

// summarizeChunk adds the next transactions. Sequence numbers have no gaps and become
// visible in their order, so that one number says what has been added. It changes nothing
// when another caller has added them meanwhile.
func (l *Ledger) summarizeChunk(ctx context.Context, store stoa.StoreID) (complete bool, err error) {
	var at struct{ From, Last int64 }
	if err := l.db.Get(ctx, &at, `
		SELECT b.seq AS last, coalesce((SELECT p.seq FROM credit_day_positions p WHERE p.store_id = b.store_id), 0) AS "from"
		FROM credit_balances b WHERE b.store_id = $1`, store); err != nil || at.From >= at.Last {
		return err == nil, err
	}
	upTo := min(at.Last, at.From+summaryChunk)
	statement := summarizeSQL[l.db.Engine]
	err = l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		moved, err := tx.Exec(ctx, `
			INSERT INTO credit_day_positions (store_id, seq) VALUES ($1, $3)
			ON CONFLICT (store_id) DO UPDATE SET seq = $3 WHERE credit_day_positions.seq = $2`, store, at.From, upTo)
		complete = moved > 0 && upTo == at.Last
		if err != nil || moved == 0 {
			return err
		}
		_, err = tx.Exec(ctx, statement, store, at.From, upTo)
		return err
	})
	return complete && err == nil, err
}

// summarizeSQL adds the transactions after $2 and up to $3.
var summarizeSQL = map[masterdb.Engine]string{
	masterdb.Postgres: summarizeStatement(`CAST(floor(extract(epoch FROM created_at) / 86400) AS integer)`),
	// SQLite has times as text in UTC, such as 2026-01-31 23:59:59.5+00:00.
	masterdb.SQLite: summarizeStatement(`CAST(julianday(substr(created_at, 1, 10)) - julianday('1970-01-01') AS integer)`),
}

func summarizeStatement(day string) string {
	return `
	INSERT INTO credit_days AS d (store_id, day, service_key, seq, balance_after, purchased, spent, quantity)
	SELECT $1, s.day, s.service, s.seq, t.balance_after, s.purchased, s.spent, s.quantity FROM (
		SELECT ` + day + ` AS day, coalesce(service_key, '') AS service, max(seq) AS seq,
			CAST(sum(CASE WHEN type = 'purchase' THEN amount ELSE 0 END) AS bigint) AS purchased,
			CAST(sum(CASE WHEN type IN ('spend', 'capture') THEN -amount ELSE 0 END) AS bigint) AS spent,
			CAST(sum(CASE WHEN type IN ('spend', 'capture') THEN coalesce(quantity, 0) ELSE 0 END) AS bigint) AS quantity
		FROM credit_transactions WHERE store_id = $1 AND seq > $2 AND seq <= $3 GROUP BY 1, 2) s
	JOIN credit_transactions t ON t.store_id = $1 AND t.seq = s.seq
	WHERE true
	ON CONFLICT (store_id, day, service_key) DO UPDATE SET seq = excluded.seq, balance_after = excluded.balance_after,
		purchased = d.purchased + excluded.purchased, spent = d.spent + excluded.spent, quantity = d.quantity + excluded.quantity`
}
