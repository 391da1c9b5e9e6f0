package tenantdb_test

import (
	"slices"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// installExtensions adds two views of contrib extensions, and a table such as
// an extension like PostGIS has, to the schema public of c's database.
func installExtensions(t *testing.T, c credential.Credentials) {
	t.Helper()
	tenantdbtest.AdminIn(t, c.Database, `CREATE EXTENSION pg_stat_statements SCHEMA public`, `CREATE EXTENSION pg_buffercache SCHEMA public`,
		`CREATE TABLE public.spatial_ref_sys (srid integer PRIMARY KEY, srtext varchar(2048))`,
		`ALTER EXTENSION pg_buffercache ADD TABLE public.spatial_ref_sys`, `GRANT SELECT ON public.spatial_ref_sys TO PUBLIC`)
}

// TestExtensionMembersAreNotTables checks that members of an extension do not
// count as tables: a database that contains nothing else is empty, its schema
// has not drifted, and no warning mentions them.
func TestExtensionMembersAreNotTables(t *testing.T) {
	tenantdbtest.EachPostgres(t, func(t *testing.T) {
		c := tenantdbtest.Create(t, credential.PostgreSQL)
		installExtensions(t, c)
		db := tenantdbtest.Open(t, c)
		in, err := db.Inspect(t.Context())
		testkit.Must(t, err)
		if len(in.Tables) > 0 {
			t.Errorf("not empty: %v", in.Tables)
		}
		monitor := tenantdbtest.Guest(t, c)
		tenantdbtest.Admin(t, credential.PostgreSQL, `GRANT pg_monitor TO `+monitor.User) // which may read pg_buffercache
		checkKept(t, c)
		warnings, err := db.Warnings(t.Context())
		testkit.Must(t, err)
		for _, w := range warnings {
			if w.Code != tenantdb.PublicConnect {
				t.Errorf("warning %s: %s", w.Code, w.Message)
			}
		}
		live, err := db.Structure(t.Context())
		testkit.Must(t, err)
		expected, err := tenantdb.Expected(credential.PostgreSQL)
		testkit.Must(t, err)
		if drift := live.Drift(expected, true); len(drift) > 0 {
			t.Errorf("drift: %v", drift)
		}
	})
}

// TestTablesInTheWay checks that an extension's table with the name of one of
// Stoa's tables, and a table that only resembles an extension's, are still
// reported.
func TestTablesInTheWay(t *testing.T) {
	tenantdbtest.EachPostgres(t, func(t *testing.T) {
		for _, name := range []string{"stores", tenantdb.VersionTable, tenantdb.MarkerTable} {
			c := tenantdbtest.Create(t, credential.PostgreSQL)
			installExtensions(t, c)
			tenantdbtest.AdminIn(t, c.Database, `CREATE TABLE public.`+name+` (n integer)`, `ALTER EXTENSION pg_buffercache ADD TABLE public.`+name,
				`CREATE TABLE public.geometry_columns (n integer)`)
			in, err := tenantdbtest.Open(t, c).Inspect(t.Context())
			testkit.Must(t, err)
			want := []string{"geometry_columns", name}
			slices.Sort(want)
			if !slices.Equal(in.Tables, want) {
				t.Errorf("%s: %v", name, in.Tables)
			}
		}
	})
}
