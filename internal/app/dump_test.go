package app_test

import (
	"fmt"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// cell is the value of one column in one row of the master database.
type cell struct{ Table, Column, Value string }

// dump reads all values of the master database, the job queue's tables included.
func dump(t *testing.T, db *masterdb.DB) (all []cell) {
	t.Helper()
	query := `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema()`
	if db.Engine == masterdb.SQLite {
		query = `SELECT m.name AS table_name, c.name AS column_name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table'`
	}
	var columns []struct{ TableName, ColumnName string }
	if err := db.Select(t.Context(), &columns, query); err != nil {
		t.Fatal(err)
	}
	for _, c := range columns {
		var values []string
		err := db.Select(t.Context(), &values, fmt.Sprintf(`SELECT CAST(%[1]q AS text) AS value FROM %[2]q WHERE %[1]q IS NOT NULL`, c.ColumnName, c.TableName))
		if err != nil {
			t.Fatalf("%s.%s: %v", c.TableName, c.ColumnName, err)
		}
		for _, v := range values {
			all = append(all, cell{c.TableName, c.ColumnName, v})
		}
	}
	if len(columns) < 100 || len(all) == 0 {
		t.Fatalf("%d columns with %d values", len(columns), len(all))
	}
	return all
}
