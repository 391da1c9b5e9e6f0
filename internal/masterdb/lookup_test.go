package masterdb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/tracing"
	"github.com/stoahq/stoa/internal/tracing/tracingtest"
)

type thing struct {
	ID    stoa.SessionID
	State int
}

func newThings(t *testing.T, db *masterdb.DB, n int) (*masterdb.Lookup[stoa.SessionID, thing], []stoa.SessionID) {
	t.Helper()
	ids := make([]stoa.SessionID, n)
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(t.Context(), `CREATE TABLE things (id uuid PRIMARY KEY, state integer NOT NULL)`); err != nil {
			return err
		}
		for i := range ids {
			ids[i] = stoa.NewID[stoa.SessionID]()
			if _, err := tx.Exec(t.Context(), `INSERT INTO things (id, state) VALUES ($1, 0)`, ids[i]); err != nil {
				return err
			}
		}
		return nil
	}))
	return masterdb.NewLookup(db, `SELECT id, state FROM things`, `id`, func(row thing) stoa.SessionID { return row.ID }), ids
}

// TestLookupSeesWhatWasCommitted changes rows while many callers read them. Each call must
// see every change that was committed before it began.
func TestLookupSeesWhatWasCommitted(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ctx := t.Context()
		lookup, ids := newThings(t, db, 4)
		var running sync.WaitGroup
		for i, id := range ids {
			for range 8 { // only to keep statements in progress
				running.Go(func() {
					for range 40 {
						if _, err := lookup.Get(ctx, ids[(i+1)%len(ids)]); err != nil {
							t.Error(err)
						}
					}
				})
			}
			running.Go(func() {
				for state := 1; state <= 40; state++ {
					err := db.Tx(ctx, func(tx *masterdb.Tx) error {
						_, err := tx.Exec(ctx, `UPDATE things SET state = $2 WHERE id = $1`, id, state)
						return err
					})
					if err != nil {
						t.Error(err)
					}
					if row, err := lookup.Get(ctx, id); err != nil || row.ID != id || row.State != state {
						t.Errorf("after the state %d: %+v, %v", state, row, err)
					}
				}
			})
		}
		running.Wait()
		if _, err := lookup.Get(ctx, stoa.NewID[stoa.SessionID]()); !errors.Is(err, masterdb.ErrNotFound) {
			t.Errorf("a row that does not exist: %v", err)
		}
	})
}

// holdUpThings lets every statement on things wait until release is called, or the test ends.
func holdUpThings(t *testing.T, db *masterdb.DB, running *sync.WaitGroup) (release func()) {
	t.Helper()
	ctx, release := context.WithCancel(t.Context())
	locked := make(chan struct{})
	running.Go(func() {
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if _, err := tx.Exec(t.Context(), `LOCK TABLE things IN ACCESS EXCLUSIVE MODE`); err != nil {
				return err
			}
			close(locked)
			<-ctx.Done()
			return nil
		})
		if err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	<-locked
	return release
}

// TestLookupIsImpatient holds up the statements of a Lookup and checks that calls which come
// later get some of their own, a few at most, and that every call is answered in the end.
func TestLookupIsImpatient(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.Postgres))
	lookup, ids := newThings(t, db, 6)
	masterdb.SetPatience(lookup, time.Millisecond)
	var running sync.WaitGroup
	release := holdUpThings(t, db, &running)
	for i, id := range ids {
		running.Go(func() {
			if row, err := lookup.Get(t.Context(), id); err != nil || row.ID != id {
				t.Errorf("%v: %+v, %v", id, row, err)
			}
		})
		masterdb.WaitForLookup(t, lookup, min(i+1, 4), max(i-3, 0))
	}
	release()
	running.Wait()
	masterdb.WaitForLookup(t, lookup, 0, 0)
}

// TestSharedLookupHasASpan checks that a call which shares its statement with others has a
// span of it in its own trace, and that one whose caller leaves has one as well.
func TestSharedLookupHasASpan(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	collector := tracingtest.Start(t)
	sampler, err := tracing.ParseSampler("always_on", "")
	testkit.Must(t, err)
	tracer, err := tracing.New(t.Context(), tracing.Options{Endpoint: collector.URL, Service: "test", Sampler: sampler, Log: slog.New(slog.DiscardHandler)})
	testkit.Must(t, err)
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.Postgres))
	db.Trace(tracer)
	lookup, ids := newThings(t, db, 2)
	masterdb.SetPatience(lookup, time.Hour)
	var running sync.WaitGroup
	release := holdUpThings(t, db, &running)
	running.Go(func() {
		if _, err := lookup.Get(t.Context(), ids[0]); err != nil {
			t.Error(err)
		}
	})
	masterdb.WaitForLookup(t, lookup, 1, 0)
	leaving, leave := context.WithCancel(t.Context())
	for i, ctx := range []context.Context{t.Context(), leaving} {
		running.Go(func() {
			ctx, span := tracer.Start(ctx, "caller")
			defer span.End()
			if _, err := lookup.Get(ctx, ids[1]); (err == nil) != (i == 0) {
				t.Error(err)
			}
		})
	}
	masterdb.WaitForLookup(t, lookup, 1, 2)
	leave()
	masterdb.WaitForLookup(t, lookup, 1, 1)
	release()
	running.Wait()
	testkit.Must(t, tracer.Close(context.Background()))
	shared := 0
	for _, span := range collector.Spans() {
		if tracingtest.Attribute(span, "db.query.text") == `SELECT id, state FROM things WHERE id = ANY($1)` {
			shared++
		}
	}
	if shared != 2 {
		t.Errorf("%d spans of the shared statement, want one of each caller", shared)
	}
}

// TestLookupCombines holds up the statements of a Lookup and checks that all calls that come
// meanwhile need one statement, that each gets its own row, and that one whose caller leaves
// disturbs nobody.
func TestLookupCombines(t *testing.T) {
	masterdbtest.NeedsSessions(t, "statements are counted by the names under which they are prepared")
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	counter, url := masterdbtest.NewStatementCounter(t, masterdbtest.URL(t, masterdb.Postgres))
	db := masterdbtest.Open(t, url)
	ctx := t.Context()
	lookup, ids := newThings(t, db, 20)
	masterdb.SetPatience(lookup, time.Hour)
	var running sync.WaitGroup
	release := holdUpThings(t, db, &running)
	if _, err := counter.Reset(); err != nil {
		t.Fatal(err)
	}
	read := func(id stoa.SessionID) {
		running.Go(func() {
			if row, err := lookup.Get(ctx, id); err != nil || row.ID != id {
				t.Errorf("%v: %+v, %v", id, row, err)
			}
		})
	}
	read(ids[0])
	masterdb.WaitForLookup(t, lookup, 1, 0)
	leaving, leave := context.WithCancel(ctx)
	running.Go(func() {
		if _, err := lookup.Get(leaving, ids[2]); !errors.Is(err, context.Canceled) {
			t.Errorf("of the caller who left: %v", err)
		}
	})
	masterdb.WaitForLookup(t, lookup, 1, 1)
	leave()
	masterdb.WaitForLookup(t, lookup, 1, 0)
	for _, id := range append(ids, ids...) {
		read(id)
	}
	masterdb.WaitForLookup(t, lookup, 1, 2*len(ids))
	release()
	running.Wait()
	masterdb.WaitForLookup(t, lookup, 0, 0)
	counts, err := counter.Reset()
	if err != nil {
		t.Fatal(err)
	}
	one, many := counts[`SELECT id, state FROM things WHERE id = $1`], counts[`SELECT id, state FROM things WHERE id = ANY($1)`]
	if one != 1 || many != 1 {
		t.Errorf("%d statements for one key and %d for several, want one of each:\n%s", one, many, masterdbtest.DescribeStatements(counts))
	}
}

// TestLookupFails checks that each call gets the error of the statement that it shares.
func TestLookupFails(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		lookup := masterdb.NewLookup(db, `SELECT id, state FROM nothing`, `id`, func(row thing) stoa.SessionID { return row.ID })
		var running sync.WaitGroup
		for range 20 {
			running.Go(func() {
				if _, err := lookup.Get(t.Context(), stoa.NewID[stoa.SessionID]()); err == nil || errors.Is(err, masterdb.ErrNotFound) {
					t.Error(fmt.Errorf("of a wrong statement: %w", err))
				}
			})
		}
		running.Wait()
	})
}
