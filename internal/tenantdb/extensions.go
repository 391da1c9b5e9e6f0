package tenantdb

import (
	"maps"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// fromExtension is an SQL condition: the relation c of pg_class is a member of
// an extension, such as a view of pg_stat_statements or a table of PostGIS. The
// administrator of the database server has installed it; it belongs to no
// store.
// Source: PostgreSQL manual, "pg_depend" (DEPENDENCY_EXTENSION).
const fromExtension = `EXISTS (SELECT FROM pg_catalog.pg_depend e
	WHERE e.classid = 'pg_catalog.pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')`

// storeTables returns the names of the tables that a store on PostgreSQL has
// before any custom migration, including the version tables and the marker
// table.
func storeTables() ([]string, error) {
	expected, err := Expected(credential.PostgreSQL)
	if err != nil {
		return nil, err
	}
	names := map[string]bool{VersionTable: true, CustomVersionTable: true, MarkerTable: true}
	for what := range expected {
		if name, ok := strings.CutPrefix(what, "table "); ok {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names)), nil
}
