package masterdbtest

import (
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
