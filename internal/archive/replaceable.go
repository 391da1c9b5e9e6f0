package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// referrer is a foreign key to a table.
type referrer struct {
	SchemaName  string `db:"schema_name"` // "": that of Stoa's tables
	Name, Field string
	Target      string
}

// CheckReplaceable fails with archive_refused if data that no archive has would be lost when the
// rows of Stoa's tables are replaced: rows of other tables with a foreign key to them, which the
// database would delete, or because of which it would refuse to delete; and values of columns
// that were added to Stoa's tables. The error names them.
func CheckReplaceable(ctx context.Context, db *tenantdb.DB) error {
	version, err := db.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	tables, err := tenantdb.Tables(ctx, version)
	if err != nil {
		return err
	}
	var lost []string
	for _, list := range []func(context.Context, *tenantdb.DB, []tenantdb.Table) ([]string, error){referringRows, addedValues} {
		found, err := list(ctx, db, tables)
		if err != nil {
			return err
		}
		lost = append(lost, found...)
	}
	if len(lost) == 0 {
		return nil
	}
	if n := len(lost) - maxNamed; n > 0 {
		lost = append(lost[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return stoa.Errorf(stoa.ArchiveRefused, "A restore replaces the rows of Stoa's tables, and would change or lose what no backup has: %s. "+
		"Save that elsewhere and drop the foreign keys and the columns; add them again after the restore. Or clone the backup into a new store.", strings.Join(lost, "; "))
}

// maxNamed limits the parts that an error names.
const maxNamed = 10

// referringRows lists the foreign keys of other tables to Stoa's that have a value.
func referringRows(ctx context.Context, db *tenantdb.DB, tables []tenantdb.Table) (list []string, err error) {
	var keys []referrer
	if err := db.Select(ctx, &keys, db.ArchiveSQL().Referrers); err != nil {
		return nil, err
	}
	for _, k := range keys {
		target := slices.ContainsFunc(tables, func(t tenantdb.Table) bool { return strings.EqualFold(t.Name, k.Target) }) // SQLite has it as it was written
		own := k.SchemaName == "" && slices.ContainsFunc(tables, func(t tenantdb.Table) bool { return t.Name == k.Name })
		if !target || own {
			continue
		}
		table, shown := db.ArchiveSQL().Quoted(k.Name), k.Name
		if k.SchemaName != "" {
			table, shown = db.ArchiveSQL().Quoted(k.SchemaName)+"."+table, k.SchemaName+"."+shown
		}
		if hasValue(ctx, db, table, k.Field) {
			list = append(list, fmt.Sprintf("rows of the table %s refer to %s", shorten(shown, maxPartName), k.Target))
		}
	}
	return list, ctx.Err()
}

// addedValues lists the columns that were added to Stoa's tables and have a value.
func addedValues(ctx context.Context, db *tenantdb.DB, tables []tenantdb.Table) (list []string, err error) {
	structure, err := db.Structure(ctx)
	if err != nil {
		return nil, err
	}
	for _, t := range tables {
		prefix := "column " + t.Name + "."
		for _, part := range slices.Sorted(maps.Keys(structure)) {
			name, ok := strings.CutPrefix(part, prefix)
			known := slices.Contains(t.Generated, name) || slices.ContainsFunc(t.Columns, func(c tenantdb.Column) bool { return c.Name == name })
			if ok && !known && !strings.HasSuffix(structure[part], " generated") && hasValue(ctx, db, t.Name, name) {
				list = append(list, fmt.Sprintf("the column %s.%s has values", t.Name, shorten(name, maxPartName)))
			}
		}
	}
	return list, ctx.Err()
}

// hasValue reports whether a row has a value in the column, or may have one: others' tables may
// not be readable.
func hasValue(ctx context.Context, db *tenantdb.DB, table, column string) bool {
	var rows int
	err := db.Get(ctx, &rows, "SELECT count(*) FROM (SELECT 1 FROM "+table+" WHERE "+db.ArchiveSQL().Quoted(column)+" IS NOT NULL LIMIT 1) one")
	return err != nil || rows > 0
}
