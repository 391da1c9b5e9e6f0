package archive

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// referrer is a dependency of a table on another.
type referrer struct {
	SchemaName  string `db:"schema_name"` // "": that of Stoa's tables
	Name, Field string
	Target      string
}

// CheckReplaceable fails with archive_refused if data that no archive has would be lost when the
// rows of Stoa's tables are replaced: rows of other tables that depend on them, which the
// database would delete, or because of which it would refuse to delete; and values of columns
// that were added to Stoa's tables. The error names them.
func CheckReplaceable(ctx context.Context, db *tenantdb.DB) error {
	ctx, cancel := context.WithTimeout(ctx, maxReplaceableCheck)
	defer cancel()
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
		"Save that elsewhere and drop the foreign keys (or inheriting tables) and the columns; add them again after the restore. Or clone the backup into a new store.", strings.Join(lost, "; "))
}

// These constants limit a check. A server may have many tables, and be slow with each.
const (
	maxReplaceableCheck = 5 * time.Minute
	maxReferrers        = 1000 // dependencies that are looked at
	maxNamed            = 10   // parts that the error names
)

// referringRows lists the other tables with rows that depend on Stoa's.
func referringRows(ctx context.Context, db *tenantdb.DB, tables []tenantdb.Table) (list []string, err error) {
	names := make([]any, len(tables))
	for i, t := range tables {
		names[i] = t.Name
	}
	marks := strings.TrimPrefix(strings.Repeat(", ?", len(names)), ", ")
	var keys []referrer
	err = db.Select(ctx, &keys, `SELECT DISTINCT schema_name, name, field, target FROM (`+db.ArchiveSQL().Referrers+`) referrers
		WHERE lower(target) IN (`+marks+`) AND NOT (schema_name = '' AND name IN (`+marks+`)) ORDER BY schema_name, name, field LIMIT ?`,
		append(append(slices.Clone(names), names...), maxReferrers+1)...)
	if len(keys) > maxReferrers {
		return []string{fmt.Sprintf("more than %d foreign keys refer to its tables", maxReferrers)}, nil
	}
	for _, k := range keys {
		table, shown := db.ArchiveSQL().Quoted(k.Name), k.Name
		if k.SchemaName != "" {
			table, shown = db.ArchiveSQL().Quoted(k.SchemaName)+"."+table, k.SchemaName+"."+shown
		}
		has, err := hasValue(ctx, db, table, k.Field)
		if err != nil {
			return nil, err
		}
		if has {
			list = append(list, fmt.Sprintf("rows of the table %s depend on %s", shorten(shown, maxPartName), k.Target))
		}
	}
	return list, err
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
			generated := strings.HasSuffix(structure[part], " generated") && !strings.Contains(structure[part], " default ")
			if !ok || known || generated {
				continue
			}
			has, err := hasValue(ctx, db, t.Name, name)
			if err != nil {
				return nil, err
			}
			if has {
				list = append(list, fmt.Sprintf("the column %s.%s has values", t.Name, shorten(name, maxPartName)))
			}
		}
	}
	return list, nil
}

// hasValue reports whether a row has a value in the column, or may have one in a table that Stoa
// may not read.
func hasValue(ctx context.Context, db *tenantdb.DB, table, column string) (bool, error) {
	var rows int
	err := db.Get(ctx, &rows, "SELECT count(*) FROM (SELECT 1 FROM "+table+" WHERE "+db.ArchiveSQL().Quoted(column)+" IS NOT NULL LIMIT 1) one")
	if stoa.CodeOf(err) == stoa.DatabasePermissionDenied {
		return true, nil
	}
	return rows > 0, err
}
