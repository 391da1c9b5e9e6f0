package masterdb_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// newNames returns a master with a table of names that are unique.
func newNames(t *testing.T, db *masterdb.DB) {
	t.Helper()
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `CREATE TABLE names (name text PRIMARY KEY)`)
		return err
	}))
}

const insertName = `INSERT INTO names (name) VALUES ($1)`

func countNames(t *testing.T, db *masterdb.DB) (n int) {
	t.Helper()
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM names`))
	return n
}

// TestExecLater checks that statements that nobody waits for are executed in their order,
// and that an error of one undoes the transaction, wherever it appears.
func TestExecLater(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ctx := t.Context()
		newNames(t, db)
		later := func(tx *masterdb.Tx, names ...string) error {
			for _, name := range names {
				if err := tx.ExecLater(ctx, insertName, name); err != nil {
					return err
				}
			}
			return nil
		}
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			if err := later(tx, "a", "b"); err != nil {
				return err
			}
			var seen int
			if err := tx.Get(ctx, &seen, `SELECT count(*) FROM names`); err != nil || seen != 2 {
				t.Errorf("a query after two statements sees %d rows: %v", seen, err)
			}
			if err := later(tx, "c"); err != nil {
				return err
			}
			changed, err := tx.Exec(ctx, `UPDATE names SET name = name || $1`, "!")
			if changed != 3 {
				t.Errorf("%d rows were changed, want 3", changed)
			}
			return err
		}))
		for _, what := range []struct {
			name string
			fn   func(tx *masterdb.Tx) error
		}{
			{"at the commit", func(tx *masterdb.Tx) error { return later(tx, "d", "a!") }},
			{"at the next query", func(tx *masterdb.Tx) error {
				if err := later(tx, "d", "a!"); err != nil {
					return err
				}
				var n int
				return tx.Get(ctx, &n, `SELECT count(*) FROM names`)
			}},
			{"at the next statement", func(tx *masterdb.Tx) error {
				if err := later(tx, "d", "a!"); err != nil {
					return err
				}
				_, err := tx.Exec(ctx, insertName, "e")
				return err
			}},
			{"of the function", func(tx *masterdb.Tx) error { return errors.Join(later(tx, "d"), context.Canceled) }},
		} {
			notified := false
			err := db.Tx(ctx, func(tx *masterdb.Tx) error {
				tx.AfterCommit(func() { notified = true })
				return what.fn(tx)
			})
			if err == nil || notified || countNames(t, db) != 3 {
				t.Errorf("an error %s: %v, %d rows, called after the commit: %v", what.name, err, countNames(t, db), notified)
			}
			if what.name != "of the function" && !masterdb.IsUnique(err) {
				t.Errorf("an error %s is no violation of a unique value: %v", what.name, err)
			}
		}
	})
}

// TestFailedStatementIsNotCommitted checks that a transaction whose function hides the error
// of a statement fails instead of seeming to have committed.
func TestFailedStatementIsNotCommitted(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine != masterdb.Postgres {
			t.Skip("on SQLite database/sql has its own transactions")
		}
		ctx := t.Context()
		newNames(t, db)
		err := db.Tx(ctx, func(tx *masterdb.Tx) error {
			_, _ = tx.Exec(ctx, insertName, "a")
			_, _ = tx.Exec(ctx, insertName, "a")
			return nil
		})
		if !errors.Is(err, pgx.ErrTxCommitRollback) || countNames(t, db) != 0 {
			t.Errorf("%v, %d rows", err, countNames(t, db))
		}
	})
}

// TestBatch checks that a batch scans every query, also those after one without a row.
func TestBatch(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ctx := t.Context()
		newNames(t, db)
		read := func(q masterdb.Querier) (count int, names []string, err error) {
			var missing string
			err = q.Batch(ctx, masterdb.One(&missing, `SELECT name FROM names WHERE name = $1`, "nobody"),
				masterdb.All(&names, `SELECT name FROM names ORDER BY name`), masterdb.One(&count, `SELECT count(*) FROM names`))
			return count, names, err
		}
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			if err := tx.ExecLater(ctx, insertName, "a"); err != nil {
				return err
			}
			if count, names, err := read(tx); !errors.Is(err, masterdb.ErrNotFound) || count != 1 || len(names) != 1 {
				t.Errorf("in the transaction: %d, %v, %v", count, names, err)
			}
			return nil
		}))
		if count, names, err := read(db); !errors.Is(err, masterdb.ErrNotFound) || count != 1 || len(names) != 1 {
			t.Errorf("outside: %d, %v, %v", count, names, err)
		}
		var n int
		if err := db.Batch(ctx, masterdb.One(&n, `SELECT count(*) FROM names`), masterdb.One(&n, `SELECT nothing FROM names`)); err == nil || errors.Is(err, masterdb.ErrNotFound) {
			t.Errorf("a batch with a wrong query: %v", err)
		}
		if countNames(t, db) != 1 {
			t.Error("the database does not answer after a wrong batch")
		}
	})
}

// TestNativeTransaction uses a transaction as the libraries do that send SQL themselves.
func TestNativeTransaction(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine != masterdb.Postgres {
			t.Skip("on SQLite database/sql has its own transactions")
		}
		ctx := t.Context()
		newNames(t, db)
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			if err := tx.ExecLater(ctx, insertName, "a"); err != nil {
				return err
			}
			native := tx.Postgres()
			inner, err := native.Begin(ctx)
			if err != nil {
				return err
			}
			if _, err := inner.Exec(ctx, insertName, "a"); !masterdb.IsUnique(err) {
				t.Errorf("the same name again: %v", err)
			}
			if err := inner.Rollback(ctx); err != nil {
				return err
			}
			if err := inner.Commit(ctx); !errors.Is(err, pgx.ErrTxClosed) {
				t.Errorf("a commit after the rollback: %v", err)
			}
			if err := tx.ExecLater(ctx, insertName, "b"); err != nil {
				return err
			}
			var n int
			if err := native.QueryRow(ctx, `SELECT count(*) FROM names WHERE name <> $1`, "x").Scan(&n); err != nil || n != 2 {
				t.Errorf("%d rows: %v", n, err)
			}
			if err := native.QueryRow(ctx, `SELECT 1 FROM names WHERE name = $1`, "x").Scan(&n); !errors.Is(err, pgx.ErrNoRows) {
				t.Errorf("no row: %v", err)
			}
			if err := tx.ExecLater(ctx, insertName, "c"); err != nil {
				return err
			}
			batch := &pgx.Batch{}
			batch.Queue(insertName, "d")
			if err := native.SendBatch(ctx, batch).Close(); err != nil {
				return err
			}
			if err := tx.ExecLater(ctx, insertName, "e"); err != nil {
				return err
			}
			_, err = native.CopyFrom(ctx, pgx.Identifier{"names"}, []string{"name"}, pgx.CopyFromRows([][]any{{"f"}}))
			return err
		}))
		if n := countNames(t, db); n != 6 {
			t.Errorf("%d rows, want 6", n)
		}
	})
}

// TestReadLater checks that queries that nobody waits for see the statements before them,
// that their rows are there when the transaction or its part has ended, and that an error of
// one undoes the transaction.
func TestReadLater(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ctx := t.Context()
		newNames(t, db)
		var first, second []string
		var counts []int
		testkit.Must(t, db.Within(ctx, func(tx *masterdb.Tx) error {
			if err := tx.ExecLater(ctx, insertName, "a"); err != nil {
				return err
			}
			if err := tx.ReadLater(ctx, masterdb.All(&first, `SELECT name FROM names`), masterdb.All(&counts, `SELECT count(*) FROM names`)); err != nil {
				return err
			}
			if err := tx.ExecLater(ctx, insertName, "b"); err != nil {
				return err
			}
			return tx.ReadLater(ctx, masterdb.All(&second, `SELECT name FROM names ORDER BY name`))
		}))
		if !slices.Equal(first, []string{"a"}) || !slices.Equal(counts, []int{1}) || !slices.Equal(second, []string{"a", "b"}) {
			t.Errorf("%q, %d, %q", first, counts, second)
		}
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			err := tx.Within(ctx, func(tx *masterdb.Tx) error {
				return tx.ReadLater(ctx, masterdb.All(&counts, `SELECT count(*) FROM names`))
			})
			if !slices.Equal(counts, []int{2}) {
				t.Errorf("after a part of a transaction: %d", counts)
			}
			return err
		}))
		err := db.Tx(ctx, func(tx *masterdb.Tx) error {
			if err := tx.ExecLater(ctx, insertName, "c"); err != nil {
				return err
			}
			return tx.ReadLater(ctx, masterdb.All(&first, `SELECT name FROM nothing`))
		})
		if n := countNames(t, db); err == nil || n != 2 {
			t.Errorf("after a query that fails: %v, %d rows", err, n)
		}
		err = db.Tx(ctx, func(tx *masterdb.Tx) error {
			if err := tx.ExecLater(ctx, insertName, "c"); err != nil {
				return err
			}
			var name string
			return tx.ReadLater(ctx, masterdb.One(&name, `SELECT name FROM names WHERE name = $1`, "x"))
		})
		if n := countNames(t, db); err == nil || n != 2 {
			t.Errorf("after a query that may miss its row: %v, %d rows", err, n)
		}
		testkit.Must(t, db.Batch(ctx))
	})
}
