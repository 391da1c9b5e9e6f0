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
	// Complete is false while so many of the newest transactions are still to be added
	// up that they are left out. A job adds them up in the background.
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

	// maxUnsummarized is the number of transactions that one call adds up itself.
	maxUnsummarized = 20_000
)

// Statistics returns the changes of the last days, today included; 0 means 30 days. It
// reads what the transactions add up to by day and service (credit_days), which a job
// writes (Summarize), and adds up those that came since, of which there are few. It writes
// nothing. It fails with invalid_request for a number of days that is not 1 to 90, and with
// store_not_found for a caller who is not a member.
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
	var out Statistics
	today := dayOf(l.db.Now())
	read := daysReader{store: store, first: today - int64(days) + 1, last: today, engine: l.db.Engine}
	err := l.db.Snapshot(ctx, func(q *masterdb.Tx) (err error) {
		read.q = q
		if out.Complete, err = read.loadPosition(ctx); err != nil {
			return err
		}
		if out.Days, err = read.days(ctx); err != nil {
			return err
		}
		out.Services, err = read.services(ctx)
		return err
	})
	return out, err
}

// daysReader reads the days first to last of a store in one snapshot.
type daysReader struct {
	q           masterdb.Querier
	store       stoa.StoreID
	first, last int64
	engine      masterdb.Engine
	// The transactions after from and up to upTo are added to what credit_days has.
	from, upTo int64
}

// loadPosition reads which transactions credit_days lacks. It reports whether they are few
// enough to be added up; otherwise none are.
func (d *daysReader) loadPosition(ctx context.Context) (complete bool, err error) {
	var at position
	err = d.q.Get(ctx, &at, selectPosition+` WHERE b.store_id = $1`, d.store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return true, nil
	}
	d.from, d.upTo = at.From, at.Last
	if at.Last-at.From > maxUnsummarized {
		d.upTo = at.From
		return false, err
	}
	return true, err
}

// source selects the rows of credit_days together with the same sums of the transactions
// that it lacks. The parameters $1 to $3 are those of args.
func (d *daysReader) source() string {
	return `(SELECT day, service_key, seq, balance_after, purchased, spent, quantity FROM credit_days WHERE store_id = $1 UNION ALL ` +
		sumStatement[d.engine] + `)`
}

func (d *daysReader) args(more ...any) []any { return append([]any{d.store, d.from, d.upTo}, more...) }

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

// balanceBefore returns the balance before the first day.
func (d *daysReader) balanceBefore(ctx context.Context) (balance Amount, err error) {
	err = d.q.Get(ctx, &balance, `SELECT balance_after FROM `+sumAlias(sumStatement[d.engine])+` WHERE day < $4 ORDER BY seq DESC LIMIT 1`, d.args(d.first)...)
	if errors.Is(err, masterdb.ErrNotFound) {
		err = d.q.Get(ctx, &balance, `
			SELECT balance_after FROM credit_days WHERE store_id = $1 AND day < $2 ORDER BY day DESC, seq DESC LIMIT 1`, d.store, d.first)
	}
	if errors.Is(err, masterdb.ErrNotFound) {
		return 0, nil
	}
	return balance, err
}

func sumAlias(statement string) string { return `(` + statement + `) d` }

// days reads the days. The balance of a day without transactions is that of the day before.
func (d *daysReader) days(ctx context.Context) ([]Day, error) {
	balance, err := d.balanceBefore(ctx)
	if err != nil {
		return nil, err
	}
	var rows []struct {
		Day                       int64
		Purchased, Spent, Balance Amount
	}
	if err := d.q.Select(ctx, &rows, `
		SELECT t.day, t.purchased, t.spent, l.balance_after AS balance FROM (
			SELECT day, CAST(sum(purchased) AS bigint) AS purchased, CAST(sum(spent) AS bigint) AS spent, max(seq) AS seq
			FROM `+d.source()+` s WHERE day >= $4 AND day <= $5 GROUP BY day) t
		JOIN credit_transactions l ON l.store_id = $1 AND l.seq = t.seq
		ORDER BY t.day`, d.args(d.first, d.last)...); err != nil {
		return nil, err
	}
	out := make([]Day, 0, d.last-d.first+1)
	for day := d.first; day <= d.last; day++ {
		at := Day{Date: dateOf(day)}
		if len(rows) > 0 && rows[0].Day == day {
			at.Purchased, at.Spent, balance = rows[0].Purchased, rows[0].Spent, rows[0].Balance
			rows = rows[1:]
		}
		at.Balance = balance
		out = append(out, at)
	}
	return out, nil
}

// services reads what was spent on each service, the most first.
func (d *daysReader) services(ctx context.Context) ([]ServiceSpend, error) {
	var rows []struct {
		ServiceSpend
		Total Amount
	}
	if err := d.q.Select(ctx, &rows, `
		SELECT service_key, CAST(sum(spent) AS bigint) AS spent, CAST(sum(quantity) AS bigint) AS quantity, false AS others,
			CAST(sum(sum(spent)) OVER () AS bigint) AS total
		FROM `+d.source()+` s WHERE day >= $4 AND day <= $5
		GROUP BY service_key HAVING sum(spent) > 0
		ORDER BY 2 DESC, service_key LIMIT $6`, d.args(d.first, d.last, maxStatisticServices)...); err != nil {
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
