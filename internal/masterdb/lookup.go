package masterdb

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
)

const (
	// lookupPatience is how long calls wait for the statement in progress. Then they get one of
	// their own, unless there are lookupStatements. While statements are fast there is one at a
	// time, which many calls share.
	lookupPatience   = 20 * time.Millisecond
	lookupStatements = 4
	lookupKeys       = 512 // keys in one statement
	lookupDeadline   = 30 * time.Second
)

// Lookup finds rows by a unique key. On PostgreSQL calls that wait at the same time are one
// statement, so that many callers cost the server little more than one. A call never joins a
// statement that was sent before it: it sees whatever was committed before. It is safe for
// concurrent use.
type Lookup[K comparable, R any] struct {
	db        *DB
	one, many query[K]
	keyOf     func(R) K
	patience  time.Duration

	mu      sync.Mutex
	running int // statements in progress
	waiting []*lookupCall[K, R]
	hurry   *time.Timer // set while calls wait
}

// query is an SQL query for keys, and its arguments.
type query[K comparable] struct {
	text string
	args func(keys []K) []any
}

// lookupCall is a call that waits for a statement.
type lookupCall[K comparable, R any] struct {
	key   K
	found chan lookupResult[R] // its buffer holds the one result, also when the caller has left
}

type lookupResult[R any] struct {
	row R
	err error
}

// NewLookup returns the Lookup of rows that the query selects, "SELECT … FROM …", by the value of
// a column. keyOf returns that value of a row.
func NewLookup[K comparable, R any](db *DB, text, column string, keyOf func(R) K) *Lookup[K, R] {
	return &Lookup[K, R]{
		db: db, keyOf: keyOf, patience: lookupPatience,
		one:  query[K]{text + ` WHERE ` + column + ` = $1`, func(keys []K) []any { return []any{keys[0]} }},
		many: query[K]{text + ` WHERE ` + column + ` = ANY($1)`, func(keys []K) []any { return []any{keys} }},
	}
}

// Pair is a key of two UUIDs.
type Pair[A, B comparable] struct {
	First  A
	Second B
}

// NewPairLookup returns the Lookup of rows by two UUIDs. The query, "SELECT … FROM keys JOIN …",
// joins a table "keys" with the columns "first" and "second". Its parameters $3 and following
// are what more returns when a statement is sent; nil if there are none.
func NewPairLookup[A, B comparable, R any](db *DB, text string, keyOf func(R) Pair[A, B], more func() []any) *Lookup[Pair[A, B], R] {
	if more == nil {
		more = func() []any { return nil }
	}
	if db.pool == nil { // SQLite has no arrays, and combines nothing
		return &Lookup[Pair[A, B], R]{db: db, keyOf: keyOf, one: query[Pair[A, B]]{
			`WITH keys (first, second) AS (SELECT $1, $2) ` + text,
			func(keys []Pair[A, B]) []any { return append([]any{keys[0].First, keys[0].Second}, more()...) },
		}}
	}
	q := query[Pair[A, B]]{
		`WITH keys (first, second) AS (SELECT * FROM unnest($1::uuid[], $2::uuid[])) ` + text,
		func(keys []Pair[A, B]) []any {
			firsts, seconds := make([]A, len(keys)), make([]B, len(keys))
			for i, key := range keys {
				firsts[i], seconds[i] = key.First, key.Second
			}
			return append([]any{firsts, seconds}, more()...)
		},
	}
	return &Lookup[Pair[A, B], R]{db: db, keyOf: keyOf, patience: lookupPatience, one: q, many: q}
}

// Get returns the row with this key. It fails with ErrNotFound.
func (l *Lookup[K, R]) Get(ctx context.Context, key K) (R, error) {
	call := l.enter(key)
	if call == nil {
		return l.alone(ctx, key)
	}
	span := l.db.BeginSpan(ctx, l.many.text) // with the wait for the statement
	select {
	case out := <-call.found:
		span.End(out.err)
		return out.row, out.err
	case <-ctx.Done():
		span.End(ctx.Err())
		l.withdraw(call)
		var none R
		return none, ctx.Err()
	}
}

// enter returns nil for a call that sends its own statement, and otherwise queues it.
func (l *Lookup[K, R]) enter(key K) *lookupCall[K, R] {
	if l.db.pool == nil {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.running == 0 {
		l.running++
		return nil
	}
	call := &lookupCall[K, R]{key, make(chan lookupResult[R], 1)}
	l.waiting = append(l.waiting, call)
	if len(l.waiting) == 1 {
		l.hurry = time.AfterFunc(l.patience, l.another)
	}
	return call
}

// alone reads one row, and then lets the calls proceed that have waited meanwhile.
func (l *Lookup[K, R]) alone(ctx context.Context, key K) (row R, err error) {
	if l.db.pool != nil {
		defer l.next()
	}
	err = l.db.Get(ctx, &row, l.one.text, l.one.args([]K{key})...)
	return row, err
}

// next ends a statement, and starts one for the calls that wait.
func (l *Lookup[K, R]) next() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running--
	l.begin()
}

// another starts a statement beside a slow one.
func (l *Lookup[K, R]) another() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.begin()
}

// begin starts a statement for the calls that wait. Its caller has the lock.
func (l *Lookup[K, R]) begin() {
	if len(l.waiting) == 0 || l.running == lookupStatements {
		return
	}
	l.running++
	n := min(len(l.waiting), lookupKeys)
	calls := l.waiting[:n:n]
	l.waiting = slices.Clone(l.waiting[n:])
	l.hurry.Stop()
	if len(l.waiting) > 0 {
		l.hurry = time.AfterFunc(l.patience, l.another)
	}
	go l.together(calls)
}

// together reads the rows of several calls with one statement.
func (l *Lookup[K, R]) together(calls []*lookupCall[K, R]) {
	defer l.next()
	keys, seen := make([]K, 0, len(calls)), make(map[K]lookupResult[R], len(calls))
	for _, call := range calls {
		if _, twice := seen[call.key]; !twice {
			seen[call.key] = lookupResult[R]{err: ErrNotFound}
			keys = append(keys, call.key)
		}
	}
	// The callers' contexts differ, so the statement has a deadline of its own.
	ctx, cancel := context.WithTimeout(context.Background(), lookupDeadline)
	defer cancel()
	var rows []R
	err := stoa.CatchPanic(func() error { return l.db.Select(ctx, &rows, l.many.text, l.many.args(keys)...) })
	for _, row := range rows {
		seen[l.keyOf(row)] = lookupResult[R]{row: row}
	}
	for _, call := range calls {
		out := seen[call.key]
		if err != nil {
			out = lookupResult[R]{err: err}
		}
		call.found <- out
	}
}

// withdraw removes a call whose caller has left, unless a statement has taken it.
func (l *Lookup[K, R]) withdraw(call *lookupCall[K, R]) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = slices.DeleteFunc(l.waiting, func(waiting *lookupCall[K, R]) bool { return waiting == call })
}
