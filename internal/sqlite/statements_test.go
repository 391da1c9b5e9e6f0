package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/sqlite"
	"github.com/stoahq/stoa/internal/testkit"
)

// keeping opens one connection that keeps two statements, to a database with the table t of
// the rows 1, 2 and 3.
func keeping(t *testing.T) *sql.Conn {
	t.Helper()
	db, err := sqlite.Open(sqlite.Options{Path: filepath.Join(t.TempDir(), "file.db"), Begin: "immediate", Statements: 2})
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, db.Close()) })
	c, err := db.Conn(t.Context())
	testkit.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	_, err = c.ExecContext(t.Context(), `CREATE TABLE t (n integer PRIMARY KEY); INSERT INTO t VALUES (1), (2), (3)`)
	testkit.Must(t, err)
	return c
}

// numbers returns the first column of a query.
func numbers(t *testing.T, c *sql.Conn, query string, args ...any) (found []int, err error) {
	t.Helper()
	rows, err := c.QueryContext(t.Context(), query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	for rows.Next() {
		var n int
		testkit.Must(t, rows.Scan(&n))
		found = append(found, n)
	}
	return found, rows.Err()
}

func checkNumbers(t *testing.T, c *sql.Conn, want []int, query string, args ...any) {
	t.Helper()
	got, err := numbers(t, c, query, args...)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%s, %v: %v, %v, want %v", query, args, got, err, want)
	}
}

// TestStatementsAreKept checks which statements are kept, and that they take new arguments.
func TestStatementsAreKept(t *testing.T) {
	t.Parallel()
	c := keeping(t)
	const above, below, insert = `SELECT n FROM t WHERE n > ? ORDER BY n`, `SELECT n FROM t WHERE n < ? ORDER BY n`, `INSERT INTO t VALUES (?)`
	checkNumbers(t, c, []int{2, 3}, above, 1)
	checkNumbers(t, c, []int{3}, above, 2)
	checkNumbers(t, c, nil, above, 3)
	checkNumbers(t, c, []int{1}, below, 2)
	if got, want := sqlite.Kept(c), []string{below, above}; !slices.Equal(got, want) {
		t.Errorf("%q are kept, want %q", got, want)
	}
	for n := 4; n < 6; n++ {
		_, err := c.ExecContext(t.Context(), insert, n)
		testkit.Must(t, err)
	}
	for _, text := range []string{
		`PRAGMA foreign_keys = 1`, `CREATE TABLE other (n integer)`, `DROP TABLE other`, `BEGIN`, `COMMIT`,
		`INSERT INTO t SELECT 9 WHERE false AND 'x' = '` + strings.Repeat("x", 5000) + `'`,
	} {
		_, err := c.ExecContext(t.Context(), text)
		testkit.Must(t, err)
	}
	if got, want := sqlite.Kept(c), []string{insert, below}; !slices.Equal(got, want) {
		t.Errorf("%q are kept, want %q", got, want)
	}
	checkNumbers(t, c, []int{2, 3, 4, 5}, above, 1)
}

// TestStatementWithOpenRows checks that a text can be run again while its rows are open, and
// that a statement that is dropped meanwhile gives all its rows.
func TestStatementWithOpenRows(t *testing.T) {
	t.Parallel()
	c := keeping(t)
	const all = `SELECT n FROM t ORDER BY n`
	for range 2 {
		rows, err := c.QueryContext(t.Context(), all)
		testkit.Must(t, err)
		var got []int
		for rows.Next() {
			var n int
			testkit.Must(t, rows.Scan(&n))
			got = append(got, n)
			checkNumbers(t, c, []int{1, 2, 3}, all)
			for other := range 3 { // all of them, and so the first is dropped
				checkNumbers(t, c, []int{other}, fmt.Sprintf(`SELECT %d`, other))
			}
		}
		testkit.Must(t, errors.Join(rows.Err(), rows.Close())) //nolint:sqlclosecheck // nothing fails before
		if want := []int{1, 2, 3}; !slices.Equal(got, want) {
			t.Errorf("%v, want %v", got, want)
		}
		checkNumbers(t, c, []int{1, 2, 3}, all)
	}
}

// TestKeptStatementSeesTheSchema checks that a kept statement sees new columns, and fails as a new
// one would when its table is gone.
func TestKeptStatementSeesTheSchema(t *testing.T) {
	t.Parallel()
	c := keeping(t)
	exec := func(text string) {
		_, err := c.ExecContext(t.Context(), text)
		testkit.Must(t, err)
	}
	columns := func() []string {
		rows, err := c.QueryContext(t.Context(), `SELECT * FROM t`)
		testkit.Must(t, err)
		defer rows.Close() //nolint:errcheck // nothing was read
		names, err := rows.Columns()
		testkit.Must(t, errors.Join(err, rows.Err()))
		return names
	}
	for range 2 {
		if got := columns(); !slices.Equal(got, []string{"n"}) {
			t.Errorf("the columns are %v", got)
		}
	}
	exec(`ALTER TABLE t ADD COLUMN more text`)
	if got := columns(); !slices.Equal(got, []string{"n", "more"}) {
		t.Errorf("after ALTER TABLE the columns are %v", got)
	}
	exec(`DROP TABLE t`)
	if _, err := numbers(t, c, `SELECT * FROM t`); err == nil || !strings.Contains(err.Error(), "no such table") {
		t.Errorf("without the table: %v", err)
	}
	exec(`CREATE TABLE t (other integer)`)
	if got := columns(); !slices.Equal(got, []string{"other"}) {
		t.Errorf("after CREATE TABLE the columns are %v", got)
	}
}

// TestStatementAfterAnError checks that a text can be run again after it has failed, or was
// cancelled.
func TestStatementAfterAnError(t *testing.T) {
	t.Parallel()
	c := keeping(t)
	const insert = `INSERT INTO t VALUES (?) RETURNING n`
	for _, n := range []int{4, 4, 5, 5, 6} {
		_, err := numbers(t, c, insert, n)
		if err != nil && !sqlite.IsUnique(err) {
			t.Errorf("%d: %v", n, err)
		}
	}
	checkNumbers(t, c, []int{1, 2, 3, 4, 5, 6}, `SELECT n FROM t ORDER BY n`)

	const slow = `WITH RECURSIVE x (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM x WHERE n < ?) SELECT count(*) FROM x`
	checkNumbers(t, c, []int{10}, slow, 10)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	var n int
	if err := c.QueryRowContext(ctx, slow, 1<<40).Scan(&n); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("cancelled: %v", err)
	}
	checkNumbers(t, c, []int{20}, slow, 20)
}
