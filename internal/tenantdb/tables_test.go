package tenantdb_test

import (
	"slices"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestTablesOfEveryVersion checks that the columns of every schema version have a type. It
// fails if a migration drops a column, or gives it a type that archives do not have:
// archives of the versions before still contain it.
func TestTablesOfEveryVersion(t *testing.T) {
	t.Parallel()
	before := 0
	for version := int64(1); version <= tenantdb.LatestVersion(); version++ {
		tables, err := tenantdb.Tables(t.Context(), version)
		testkit.Must(t, err)
		if len(tables) < before {
			t.Errorf("version %d has %d tables, the one before %d", version, len(tables), before)
		}
		before = len(tables)
		for i, table := range tables {
			for _, c := range table.Columns {
				at := slices.IndexFunc(tables, func(o tenantdb.Table) bool { return o.Name == c.References })
				if c.References != "" && (at < 0 || at > i) {
					t.Errorf("version %d: %s comes before %s, which it references", version, table.Name, c.References)
				}
			}
		}
	}
	for _, version := range []int64{0, -1, tenantdb.LatestVersion() + 1} {
		if _, err := tenantdb.Tables(t.Context(), version); err == nil {
			t.Errorf("version %d has tables", version)
		}
	}
}

// TestTablesAreThoseOfEveryEngine compares with what the migrations create.
func TestTablesAreThoseOfEveryEngine(t *testing.T) {
	t.Parallel()
	tables, err := tenantdb.Tables(t.Context(), tenantdb.LatestVersion())
	testkit.Must(t, err)
	for _, engine := range tenantdbtest.Engines() {
		structure, err := tenantdb.Expected(engine)
		testkit.Must(t, err)
		columns := 0
		for _, table := range tables {
			if len(table.Key) == 0 {
				t.Errorf("%s has no key", table.Name)
			}
			names := slices.Clone(table.Generated)
			for _, c := range table.Columns {
				names = append(names, c.Name)
			}
			for _, name := range names {
				if _, ok := structure["column "+table.Name+"."+name]; !ok {
					t.Errorf("%s: no column %s.%s", engine, table.Name, name)
				}
				columns++
			}
		}
		for part := range structure {
			if len(part) > 7 && part[:7] == "column " {
				columns--
			}
		}
		if columns != 0 {
			t.Errorf("%s: the number of columns differs by %d", engine, columns)
		}
	}
}
