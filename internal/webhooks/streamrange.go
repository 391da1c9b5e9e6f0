package webhooks

import (
	"context"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// StreamRange selects published events in the order of their positions.
type StreamRange struct {
	Store       stoa.StoreID // zero: those of the whole platform
	After, UpTo int64        // positions after After, and not after UpTo
	Types       []string     // empty: all
	NewestFirst bool
	Limit       int
}

// published is an event that has a position: a row of events, or, without data, a transaction of
// the ledger in one of its ranges.
type published struct {
	Position int64
	Data     *string
	credits.Transaction
}

func (p published) event() (events.Event, error) {
	e := events.Event{ID: stoa.EventID(p.ID), Position: p.Position, UserID: p.UserID, Type: events.Type(p.Type), CreatedAt: p.CreatedAt}
	if !p.StoreID.IsZero() {
		e.StoreID = &p.StoreID
	}
	if p.Data != nil {
		e.Data = *p.Data
		return e, nil
	}
	e.Type = transactionTypes[p.Type]
	var err error
	e.Data, err = transactionData(p.Transaction)
	return e, err
}

// Read reads the events.
func (r StreamRange) Read(ctx context.Context, q masterdb.Querier, engine masterdb.Engine) ([]events.Event, error) {
	query, args := r.query(engine)
	var rows []published
	if err := q.Select(ctx, &rows, query, args...); err != nil {
		return nil, err
	}
	found := make([]events.Event, len(rows))
	for i, row := range rows {
		var err error
		if found[i], err = row.event(); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// The two parts of the query: rows of events, and transactions in ranges, found by their numbers.
// $1 and $2 are the positions, $3 is the limit.
const (
	recordedPart = `
	SELECT * FROM (SELECT position, data, id, store_id, 0 AS seq, type, 0 AS amount, 0 AS balance_after, CAST(NULL AS text) AS service_key,
			'' AS description, CAST(NULL AS text) AS reference, user_id, created_at
		FROM events WHERE {recorded}{types} ORDER BY {by position} LIMIT $3) e`
	rangedPart = `
	SELECT * FROM (SELECT r.last_position - (r.last_seq - t.seq), CAST(NULL AS text), t.id, t.store_id, t.seq, t.type, t.amount, t.balance_after,
			t.service_key, t.description, t.reference, t.user_id, t.created_at
		FROM event_ranges r {transactions} WHERE {ranges} ORDER BY {by range}, t.seq{desc} LIMIT $3) t`

	// The transactions of a range r. Joined in this way, no planner reads all of them first.
	transactionsPostgres = `CROSS JOIN LATERAL (SELECT * FROM credit_transactions WHERE store_id = r.store_id
			AND seq >= r.last_seq - (r.last_position - greatest(r.first_position, $1 + 1)) AND seq <= r.last_seq - (r.last_position - least(r.last_position, $2))
			{transaction types} ORDER BY seq{desc} LIMIT $3) t`
	transactionsLite = `CROSS JOIN credit_transactions t ON t.store_id = r.store_id
			AND t.seq >= r.last_seq - (r.last_position - max(r.first_position, $1 + 1)) AND t.seq <= r.last_seq - (r.last_position - min(r.last_position, $2))
			{transaction types}`
)

// streamScope is whose events are read.
//
// The events of one store are bounded and ordered by pairs of store and position, which only the
// index of both fits. For "store_id = … ORDER BY position" the planner of PostgreSQL may choose
// the index of all positions, and would read whatever other stores have done since. Ranges have
// two positions, each with one index.
type streamScope struct {
	recorded, byPosition string // condition and order of rows of events
	ranges, byRange      string // condition and order of ranges r
	// bound adds to ranges to begin with the one that After is in, or to end with the one that
	// UpTo is in. It is left out where it bounds nothing: what the planner of PostgreSQL cannot
	// know it takes for few rows, all of which it would sort.
	bound string
}

// The scopes of the platform, and of one store, $4.
var (
	scopePlatform = streamScope{
		recorded: `position > $1 AND position <= $2`, byPosition: `position{desc}`, ranges: `r.first_position <= $2`, byRange: `r.first_position{desc}`,
		bound: ` AND r.first_position >= coalesce((SELECT first_position FROM event_ranges WHERE first_position <= $1 + 1 ORDER BY first_position DESC LIMIT 1), 0)`,
	}
	scopeStore = streamScope{
		recorded: `(store_id, position) > ($4, $1) AND (store_id, position) <= ($4, $2)`, byPosition: `store_id{desc}, position{desc}`,
		ranges: `r.store_id = $4 AND r.last_position > $1`, byRange: `r.last_position{desc}`,
		bound: ` AND r.last_position <= coalesce(
			(SELECT last_position FROM event_ranges WHERE store_id = $4 AND last_position >= $2 ORDER BY last_position LIMIT 1), $2)`,
	}
)

// query returns the query of the events, and its arguments.
func (r StreamRange) query(engine masterdb.Engine) (string, []any) {
	scope, bounded, args := scopePlatform, r.After > 0, []any{r.After, r.UpTo, r.Limit}
	if !r.Store.IsZero() {
		scope, bounded, args = scopeStore, r.UpTo < math.MaxInt64, append(args, r.Store)
	}
	if bounded {
		scope.ranges += scope.bound
	}
	oneOf := func(types []string) string {
		if len(types) == 0 {
			return ""
		}
		in := make([]string, len(types))
		for i, t := range types {
			args = append(args, t)
			in[i] = "$" + strconv.Itoa(len(args))
		}
		return ` AND type IN (` + strings.Join(in, ", ") + `)`
	}
	transactions, desc, parts := transactionsPostgres, "", recordedPart
	if engine == masterdb.SQLite {
		transactions = transactionsLite
	}
	if r.NewestFirst {
		desc = " DESC"
	}
	types, ofTransactions := oneOf(r.Types), ""
	if among := transactionTypesOf(r.Types); len(among) > 0 || len(r.Types) == 0 {
		ofTransactions = oneOf(among)
		parts += ` UNION ALL ` + strings.ReplaceAll(rangedPart, "{transactions}", transactions)
	}
	query := strings.NewReplacer("{recorded}", scope.recorded, "{by position}", scope.byPosition, "{ranges}", scope.ranges, "{by range}", scope.byRange,
		"{types}", types, "{transaction types}", ofTransactions).Replace(`SELECT * FROM (` + parts + `) u ORDER BY position{desc} LIMIT $3`)
	return strings.ReplaceAll(query, "{desc}", desc), args
}

// transactionTypesOf returns the types of the transactions that are events of these types.
func transactionTypesOf(types []string) (of []string) {
	for t, event := range transactionTypes {
		if slices.Contains(types, string(event)) {
			of = append(of, string(t))
		}
	}
	return of
}

// readEvent returns an event that was published or recorded, without its position. It fails with
// masterdb.ErrNotFound, also for an event that is too old.
func (s *Service) readEvent(ctx context.Context, q masterdb.Querier, id stoa.EventID) (events.Event, error) {
	e, err := events.Read(ctx, q, id)
	if !errors.Is(err, masterdb.ErrNotFound) {
		return e, err
	}
	var t published
	err = q.Get(ctx, &t, `SELECT 0 AS position, CAST(NULL AS text) AS data, t.id, t.store_id, t.seq, t.type, t.amount, t.balance_after, t.service_key, t.description,
		t.reference, t.user_id, t.created_at FROM credit_transactions t JOIN published_credits p ON p.store_id = t.store_id AND p.seq >= t.seq
		WHERE t.id = $1 AND t.created_at > $2`, id, s.db.Now().Add(-events.Retention))
	if err != nil {
		return e, err
	}
	return t.event()
}
