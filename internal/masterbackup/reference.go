package masterbackup

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// object is an entry of SQLite's list of what a database contains.
type object struct{ Type, Name, SQL string }

// reference describes what Stoa's migrations create at a version of the schema. Both engines
// have the same tables and columns.
type reference struct {
	objects []object // on SQLite
	tables  []Table
}

// newReference migrates an empty database to the versions and describes it.
func newReference(ctx context.Context, version int64, queue int) (ref reference, err error) {
	dir, err := os.MkdirTemp("", "stoa-master-")
	if err != nil {
		return ref, err
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary folder
	db, err := masterdb.Open(ctx, "sqlite:"+filepath.Join(dir, "master.db"))
	if err != nil {
		return ref, err
	}
	defer db.Close()
	if err := db.MigrateTo(ctx, version); err != nil {
		return ref, err
	}
	if err := jobs.MigrateTo(ctx, db, queue); err != nil {
		return ref, err
	}
	if ref.objects, err = objects(ctx, db); err != nil {
		return ref, err
	}
	for _, o := range ref.objects {
		if o.Type != "table" || strings.HasPrefix(o.Name, "sqlite_") {
			continue
		}
		columns, err := liteColumns(ctx, db, o.Name)
		if err != nil {
			return ref, err
		}
		ref.tables = append(ref.tables, Table{o.Name, columns})
	}
	return ref, nil
}

// objects lists what a SQLite database contains, in the order of the names.
func objects(ctx context.Context, q masterdb.Querier) (list []object, err error) {
	err = q.Select(ctx, &list, `SELECT type, name, coalesce(sql, '') AS sql FROM sqlite_schema ORDER BY name`)
	return list, err
}

// liteColumns returns the columns of a table of a SQLite database, generated ones left out.
func liteColumns(ctx context.Context, q masterdb.Querier, table string) (names []string, err error) {
	err = q.Select(ctx, &names, `SELECT name FROM pragma_table_xinfo($1) WHERE hidden = 0 ORDER BY cid`, table)
	return names, err
}

// table returns the table with a name.
func (r reference) table(name string) (Table, bool) {
	i := slices.IndexFunc(r.tables, func(t Table) bool { return t.Name == name })
	if i < 0 {
		return Table{}, false
	}
	return r.tables[i], true
}

// has reports whether the migrations create an object like this. The text of a trigger or
// view is what it does; that of a table or index is not compared, since SQLite rewrites it
// when a column is added or renamed.
func (r reference) has(o object) bool {
	return slices.ContainsFunc(r.objects, func(want object) bool {
		return want.Type == o.Type && want.Name == o.Name && (o.Type != "trigger" && o.Type != "view" || want.SQL == o.SQL)
	})
}
