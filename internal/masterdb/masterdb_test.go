package masterdb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// addPrice writes a row without foreign keys.
func addPrice(ctx context.Context, tx *masterdb.Tx, key string, at time.Time) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description)
		VALUES ($1, $2, 1, 'call', '')`, key, at)
	return err
}

func TestTxCommits(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		before := countPrices(t, db)
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if err := addPrice(t.Context(), tx, "a", tx.Now); err != nil {
				return err
			}
			var inside int
			if err := tx.Get(t.Context(), &inside, `SELECT count(*) FROM service_credit_costs`); err != nil {
				return err
			}
			if outside := countPrices(t, db); inside != before+1 || outside != before {
				t.Errorf("before the commit there are %d rows inside and %d outside, want %d and %d", inside, outside, before+1, before)
			}
			n, err := tx.Exec(t.Context(), `UPDATE service_credit_costs SET unit_price = unit_price + 1`)
			if n != int64(inside) {
				t.Errorf("Exec changed %d rows, want %d", n, inside)
			}
			return err
		}))
		if after := countPrices(t, db); after != before+1 {
			t.Errorf("after the commit there are %d rows, want %d", after, before+1)
		}
	})
}

// TestTxRollsBack checks that, however fn ends, its changes are rolled back, its error is
// returned unchanged, and the connection is free again. It runs more often than there are
// connections.
func TestTxRollsBack(t *testing.T) {
	t.Parallel()
	ways := map[string]func(cancel context.CancelFunc) error{
		"error":            func(context.CancelFunc) error { return stoa.Errorf(stoa.Forbidden, "No.") },
		"panic":            func(context.CancelFunc) error { panic("a bug in a domain") },
		"cancel":           func(cancel context.CancelFunc) error { cancel(); return stoa.Errorf(stoa.Forbidden, "No.") },
		"cancel and panic": func(cancel context.CancelFunc) error { cancel(); panic("a bug in a domain") },
		"cancel, no error": func(cancel context.CancelFunc) error { cancel(); return nil },
	}
	for name, end := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
				deadline, stop := context.WithTimeout(t.Context(), 30*time.Second)
				defer stop()
				before := countPrices(t, db)
				for range 20 {
					panicked, err := endTx(deadline, db, end)
					wantPanic := strings.HasSuffix(name, "panic")
					if (panicked != nil) != wantPanic {
						t.Fatalf("Tx panicked with %v, want a panic: %t", panicked, wantPanic)
					}
					switch name {
					case "error", "cancel":
						if got := stoa.CodeOf(err); got != stoa.Forbidden {
							t.Fatalf("Tx returned %v, want the error of fn", err)
						}
					case "cancel, no error":
						if !errors.Is(err, context.Canceled) {
							t.Fatalf("Tx returned %v, want context.Canceled", err)
						}
					}
				}
				testkit.Must(t, db.Tx(deadline, func(tx *masterdb.Tx) error { return addPrice(deadline, tx, "after", tx.Now) }))
				if after := countPrices(t, db); after != before+1 {
					t.Errorf("%d rows stayed", after-before-1)
				}
			})
		})
	}
}

// endTx writes a row in a transaction and ends it in the given way.
func endTx(ctx context.Context, db *masterdb.DB, end func(context.CancelFunc) error) (panicked any, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() { panicked = recover() }()
	err = db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := addPrice(ctx, tx, "a", tx.Now); err != nil {
			return err
		}
		return end(cancel)
	})
	return nil, err
}

// TestTxRunsAgainAfterADeadlock checks that Tx runs a transaction again after a deadlock.
// Two transactions lock two rows in opposite order: PostgreSQL aborts one of them; SQLite
// has one writer and no deadlock.
func TestTxRunsAgainAfterADeadlock(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			attempts := 0
			err := db.Tx(t.Context(), func(*masterdb.Tx) error {
				attempts++
				return &pgconn.PgError{Code: "40001"}
			})
			if attempts != 10 || err == nil {
				t.Errorf("a conflict that stays was tried %d times and gave %v, want 10 and the error", attempts, err)
			}
			return
		}
		var locked [2]chan struct{}
		for i := range locked {
			locked[i] = make(chan struct{})
		}
		lock := func(tx *masterdb.Tx, key string) error {
			_, err := tx.Exec(t.Context(), `UPDATE service_credit_costs SET unit_price = unit_price + 1 WHERE service_key = $1`, key)
			return err
		}
		walk := func(me int, first, second string) (attempts int, err error) {
			err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				attempts++
				if err := lock(tx, first); err != nil {
					return err
				}
				if attempts == 1 {
					close(locked[me])
					<-locked[1-me]
				}
				return lock(tx, second)
			})
			return attempts, err
		}
		type result struct {
			attempts int
			err      error
		}
		other := make(chan result)
		go func() {
			attempts, err := walk(1, "storage", "api_call")
			other <- result{attempts, err}
		}()
		attempts, err := walk(0, "api_call", "storage")
		theirs := <-other
		if err != nil || theirs.err != nil {
			t.Fatalf("a deadlock reached the caller: %v, %v", err, theirs.err)
		}
		if attempts+theirs.attempts < 3 {
			t.Errorf("%d and %d attempts, want that one of the two ran again", attempts, theirs.attempts)
		}
		var prices []int
		testkit.Must(t, db.Select(t.Context(), &prices, `
			SELECT unit_price FROM service_credit_costs WHERE service_key IN ('api_call', 'storage') ORDER BY service_key`))
		if diff := cmp.Diff([]int{12, 102}, prices); diff != "" {
			t.Errorf("both transactions should count once (-want +got):\n%s", diff)
		}
	})
}

func TestGetAndSelect(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, user := newStore(t, db)
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			for name, q := range map[string]masterdb.Querier{"DB": db, "Tx": tx} {
				type row struct {
					ID          stoa.StoreID
					Creator     stoa.UserID `db:"created_by"`
					Slug        string
					DeleteAfter *time.Time
				}
				want := row{ID: store, Creator: user, Slug: store.String()}
				const columns = `SELECT id, created_by, slug, delete_after FROM stores `

				var got row
				testkit.Must(t, q.Get(t.Context(), &got, columns+`WHERE id = $1`, store))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("%s.Get (-want +got):\n%s", name, diff)
				}
				var all []row
				testkit.Must(t, q.Select(t.Context(), &all, columns))
				if diff := cmp.Diff([]row{want}, all); diff != "" {
					t.Errorf("%s.Select (-want +got):\n%s", name, diff)
				}
				var id stoa.StoreID
				testkit.Must(t, q.Get(t.Context(), &id, `SELECT id FROM stores`))
				var ids []stoa.StoreID
				testkit.Must(t, q.Select(t.Context(), &ids, `SELECT id FROM stores`))
				if id != store || len(ids) != 1 || ids[0] != store {
					t.Errorf("%s reads the ids %v and %v, want %s", name, id, ids, store)
				}

				missing := stoa.NewID[stoa.StoreID]()
				if err := q.Get(t.Context(), &got, columns+`WHERE id = $1`, missing); !errors.Is(err, masterdb.ErrNotFound) {
					t.Errorf("%s.Get without a row = %v, want ErrNotFound", name, err)
				}
				if err := q.Select(t.Context(), &all, columns+`WHERE id = $1`, missing); err != nil || len(all) != 0 {
					t.Errorf("%s.Select without a row = %v, %v, want none", name, all, err)
				}
				err := q.Get(t.Context(), &got.Slug, `SELECT service_key FROM service_credit_costs`)
				if err == nil || errors.Is(err, masterdb.ErrNotFound) {
					t.Errorf("%s.Get of many rows = %v, want another error", name, err)
				}
			}
			return nil
		}))
		for name, err := range map[string]error{
			"Get":    db.Get(t.Context(), new(int), `SELECT nonsense`),
			"Select": db.Select(t.Context(), new([]int), `SELECT nonsense`),
			"Exec":   exec(t, db, `nonsense`),
		} {
			if err == nil || errors.Is(err, masterdb.ErrNotFound) {
				t.Errorf("%s of faulty SQL = %v, want an error", name, err)
			}
		}
	})
}

// TestReadersCannotWrite checks that a write outside Tx fails: it would bypass the clock
// and the lock of Tx.
func TestReadersCannotWrite(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	var key string
	err := db.Get(t.Context(), &key, `DELETE FROM service_credit_costs WHERE service_key = 'storage' RETURNING service_key`)
	if err == nil {
		t.Error("a reader deleted a row")
	}
}

func TestOpenHidesThePassword(t *testing.T) {
	t.Parallel()
	const password = "hunter2"
	for _, url := range []string{
		"", "sqlite:", "sqlite::memory:",
		"mysql://stoa:" + password + "@127.0.0.1:1/stoa",
		"postgres://stoa:" + password + "@127.0.0.1:1/stoa?connect_timeout=1",
		"postgres://stoa:" + password + "@127.0.0.1:notaport/stoa",
		"postgres://stoa:" + password + "%zz@127.0.0.1/stoa",
		"postgres://stoa:" + password + "@[::1/stoa",
		"postgres://stoa:" + password + "@127.0.0.1/stoa?sslmode=nonsense",
	} {
		db, err := masterdb.Open(t.Context(), url)
		if err == nil {
			db.Close()
			t.Errorf("Open(%q) succeeded", url)
		} else if strings.Contains(err.Error(), password) {
			t.Errorf("the error shows the password: %v", err)
		}
	}
}

// TestAfterCommit checks that a registered function is called after the commit, and not
// after a rollback.
func TestAfterCommit(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		done := 0
		boom := errors.New("changed my mind")
		for _, want := range []error{nil, boom} {
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				tx.AfterCommit(func() { done++ })
				if done > 0 && want == nil {
					t.Error("done before the commit")
				}
				return want
			})
			if !errors.Is(err, want) || done != 1 {
				t.Errorf("%v: done %d times, want once", err, done)
			}
		}
	})
}

// TestSnapshot checks that a snapshot does not contain what is committed after it began.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		count := func(q masterdb.Querier) (n int) {
			testkit.Must(t, q.Get(t.Context(), &n, `SELECT count(*) FROM users`))
			return n
		}
		testkit.Must(t, db.Snapshot(t.Context(), func(q *masterdb.Tx) error {
			before := count(q)
			_, err := insertUser(t, db, "late@example.com")
			testkit.Must(t, err)
			if now := count(q); now != before || count(db) != before+1 {
				t.Errorf("the snapshot shows %d users after %d, the database %d", now, before, count(db))
			}
			return nil
		}))
	})
}

// TestIsRefused checks that only a statement that was certainly not executed counts as
// refused.
func TestIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want bool
	}{
		{&pgconn.PgError{Code: "23505", SeverityUnlocalized: "ERROR"}, true},
		{fmt.Errorf("insert: %w", &pgconn.PgError{Code: "40001", SeverityUnlocalized: "ERROR"}), true},
		{&pgconn.PgError{Code: "57P01", SeverityUnlocalized: "FATAL"}, false},
		{io.ErrUnexpectedEOF, false},
		{context.DeadlineExceeded, false},
	} {
		if got := masterdb.IsRefused(c.err); got != c.want {
			t.Errorf("IsRefused(%v) = %t", c.err, got)
		}
	}
}

// TestEach checks that each row is scanned in the order of the query, that NULL does not
// keep the value of the row before, and that an error of the function or of the query ends it.
func TestEach(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		testkit.Must(t, db.Snapshot(t.Context(), func(tx *masterdb.Tx) error {
			var n int
			var text *string
			var got []string
			note := func() error {
				got = append(got, fmt.Sprint(n, text == nil))
				return nil
			}
			query := `SELECT n, CASE WHEN n = 2 THEN 'two' END AS text FROM (SELECT 1 AS n UNION ALL SELECT 2 UNION ALL SELECT 3) x WHERE n > $1 ORDER BY n`
			testkit.Must(t, tx.Each(t.Context(), query, []any{0}, []any{&n, &text}, note))
			if want := []string{"1 true", "2 false", "3 true"}; !slices.Equal(got, want) {
				t.Errorf("%v, want %v", got, want)
			}
			stop, calls := errors.New("stop"), 0
			if err := tx.Each(t.Context(), query, []any{0}, []any{&n, &text}, func() error { calls++; return stop }); !errors.Is(err, stop) || calls != 1 {
				t.Errorf("%v after %d calls", err, calls)
			}
			if err := tx.Each(t.Context(), query, []any{0}, []any{&n}, note); err == nil {
				t.Error("a column without a destination is no error")
			}
			testkit.Must(t, tx.Each(t.Context(), query, []any{3}, []any{&n, &text}, func() error { return stop })) // and the transaction can be used
			return nil
		}))
	})
}
