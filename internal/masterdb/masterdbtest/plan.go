package masterdbtest

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// Plan returns the lines of a query's plan. On PostgreSQL fill the tables first and call
// Analyze: it reads small tables whole.
func Plan(t testing.TB, db *masterdb.DB, query string, args ...any) string {
	t.Helper()
	var lines []string
	if db.Engine == masterdb.Postgres {
		testkit.Must(t, db.Select(t.Context(), &lines, `EXPLAIN `+query, args...))
		return strings.Join(lines, "\n")
	}
	var rows []struct {
		ID, Parent, Notused int
		Detail              string
	}
	testkit.Must(t, db.Select(t.Context(), &rows, `EXPLAIN QUERY PLAN `+query, args...))
	for _, row := range rows {
		lines = append(lines, row.Detail)
	}
	return strings.Join(lines, "\n")
}

// QueryRecorder remembers the last query of many rows that it has passed on, for its plan.
type QueryRecorder struct {
	masterdb.Querier
	query string
	args  []any
}

// Select implements masterdb.Querier.
func (r *QueryRecorder) Select(ctx context.Context, dst any, query string, args ...any) error {
	r.query, r.args = query, args
	return r.Querier.Select(ctx, dst, query, args...)
}

// Plan returns the plan of the last query on db.
func (r *QueryRecorder) Plan(t testing.TB, db *masterdb.DB) string {
	t.Helper()
	return Plan(t, db, r.query, r.args...)
}

// scanned is what a scan of a table or an index has read, in a plan that was carried out.
var scanned = regexp.MustCompile(`Scan .*\(actual rows=(\d+) loops=(\d+)\)`)

// RowsRead carries out the last query again and returns how many rows it reads from tables. On
// SQLite, which does not tell, it returns 0.
func (r *QueryRecorder) RowsRead(t testing.TB, db *masterdb.DB) (rows int) {
	t.Helper()
	if db.Engine != masterdb.Postgres {
		return 0
	}
	var lines []string
	testkit.Must(t, db.Select(t.Context(), &lines, `EXPLAIN (ANALYZE, TIMING OFF, COSTS OFF) `+r.query, r.args...))
	for _, line := range lines {
		if found := scanned.FindStringSubmatch(line); found != nil && !strings.Contains(line, "Subquery") {
			each, err := strconv.Atoi(found[1])
			testkit.Must(t, err)
			loops, err := strconv.Atoi(found[2])
			testkit.Must(t, err)
			rows += each * loops
		}
	}
	return rows
}

// Analyze makes PostgreSQL count the rows of tables for its plans. SQLite plans without.
func Analyze(t testing.TB, db *masterdb.DB, tables ...string) {
	t.Helper()
	if db.Engine != masterdb.Postgres {
		return
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `ANALYZE `+strings.Join(tables, ", "))
		return err
	}))
}

// Sorts reports whether a plan sorts rows, instead of reading them in the order of an index.
func Sorts(plan string) bool {
	return strings.Contains(plan, "Sort") || strings.Contains(plan, "TEMP B-TREE")
}

// ReadsTable reports whether a plan reads a table from its beginning, without an index.
func ReadsTable(plan string) bool {
	derived := map[string]bool{"CONSTANT": true, "(subquery": true} // the names of subqueries in SQLite's plans
	for line := range strings.Lines(plan) {
		words := append(strings.Fields(line), "", "")
		switch {
		case words[0] == "CO-ROUTINE" || words[0] == "MATERIALIZE":
			derived[words[1]] = true
		case strings.Contains(line, "Seq Scan on"), words[0] == "SCAN" && !derived[words[1]] && !strings.Contains(line, " USING "):
			return true
		}
	}
	return false
}
