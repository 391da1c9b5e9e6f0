package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// lockWait is how long the load waits for others who use a table that it alters.
const lockWait = "2s"

// deferredPart is an index or a foreign key of Stoa's schema on PostgreSQL that is dropped
// while rows are loaded, and made from all of them afterwards: row by row it would take most
// of the server's time.
type deferredPart struct {
	name   string // in a structure
	made   string // its definition there
	drop   string
	create string
}

// deferredParts returns the non-unique indexes and the foreign keys of the tables. Unique
// ones stay: they find the row that clashes. It returns none for a schema whose structure is
// not known. What an interrupted load has dropped is among them, so that the next one makes
// it without any record of it.
func (l *loader) deferredParts() ([]deferredPart, error) {
	if l.db.Engine != credential.PostgreSQL || l.head.SchemaVersion != tenantdb.LatestVersion() {
		return nil, nil
	}
	expected, err := tenantdb.Expected(l.db.Engine)
	if err != nil {
		return nil, err
	}
	var indexes, references []deferredPart
	for _, part := range slices.Sorted(maps.Keys(expected)) {
		kind, rest, _ := strings.Cut(part, " ")
		table, name, _ := strings.Cut(rest, ".")
		made := expected[part]
		switch {
		case !slices.ContainsFunc(l.tables, func(t Table) bool { return t.Name == table }):
		case kind == "index" && strings.HasPrefix(made, "btree "):
			indexes = append(indexes, deferredPart{part, made, "DROP INDEX " + name, "CREATE INDEX " + name + " ON " + table + " USING " + made})
		case kind == "constraint" && strings.HasPrefix(made, "FOREIGN KEY "):
			alter := "ALTER TABLE " + table
			references = append(references, deferredPart{part, made, alter + " DROP CONSTRAINT " + name, alter + " ADD CONSTRAINT " + name + " " + made})
		}
	}
	return append(indexes, references...), nil // an index helps to check the references
}

// deferred returns the parts, and the structure of the database if there are any.
func (l *loader) deferred(ctx context.Context) ([]deferredPart, tenantdb.Structure, error) {
	parts, err := l.deferredParts()
	if err != nil || parts == nil {
		return nil, nil, err
	}
	structure, err := l.db.Structure(ctx)
	return parts, structure, err
}

// dropDeferred drops the parts that the empty tables have. A failure leaves all of them,
// which makes the load slower and nothing else: others may use the tables, for instance.
func (l *loader) dropDeferred(ctx context.Context) error {
	parts, structure, err := l.deferred(ctx)
	if err != nil || parts == nil {
		return err
	}
	_ = l.db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = '"+lockWait+"'"); err != nil {
			return err
		}
		for _, p := range parts {
			if structure[p.name] != p.made { // the owner has changed it
				continue
			}
			if _, err := tx.Exec(ctx, p.drop); err != nil {
				return err
			}
		}
		return nil
	})
	return ctx.Err()
}

// makeDeferred makes the parts that are missing, in one transaction.
func (l *loader) makeDeferred(ctx context.Context) error {
	parts, structure, err := l.deferred(ctx)
	if err != nil || parts == nil {
		return err
	}
	err = l.db.Tx(ctx, func(tx *tenantdb.Tx) error {
		for _, p := range parts {
			if _, ok := structure[p.name]; ok {
				continue
			}
			if _, err := tx.Exec(ctx, p.create); err != nil {
				return fmt.Errorf("make the %s: %w", p.name, err)
			}
		}
		return nil
	})
	if err == nil || !isOfRow(err) || ctx.Err() != nil {
		return err
	}
	if found := l.findDangling(ctx, err); found != nil {
		return found
	}
	return err
}

// checkReferences checks the references of all rows of an embedded database, which were not
// checked while they were loaded.
func (l *loader) checkReferences(ctx context.Context) error {
	if l.bulk == nil {
		return nil
	}
	for _, t := range l.tables {
		dangling, err := l.bulk.Dangling(ctx, t.Name)
		if err != nil {
			return err
		}
		if !dangling {
			continue
		}
		if found := l.findDangling(ctx, errDangling); found != nil {
			return found
		}
		return stoa.Errorf(stoa.ArchiveRefused, "A row of the table %s references one that does not exist. Correct it at the source.", t.Name)
	}
	return nil
}

var errDangling = errors.New("it references a row that does not exist")

// findDangling returns an error that names a row whose reference leads nowhere, or nil if
// there is none.
func (l *loader) findDangling(ctx context.Context, cause error) error {
	for _, t := range l.tables {
		for _, c := range t.Columns {
			at := slices.IndexFunc(l.tables, func(o Table) bool { return o.Name == c.References })
			if at < 0 || len(l.tables[at].Key) != 1 {
				continue
			}
			row, err := l.dangling(ctx, t, c, l.tables[at])
			if err != nil {
				return err
			}
			if row != nil {
				return l.rowRefused(ctx, Table{Name: t.Name, Columns: t.pick(t.keyColumns()), Key: t.Key}, row, cause)
			}
		}
	}
	return nil
}

// dangling returns the key of a row whose column c leads to no row of the table to.
func (l *loader) dangling(ctx context.Context, t Table, c Column, to Table) (key []any, err error) {
	err = l.db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		return s.EachRow(ctx, func(values []any) error {
			key = slices.Clone(values)
			return nil
		}, "SELECT "+strings.Join(t.Key, ", ")+" FROM "+t.Name+" t WHERE "+c.Name+" IS NOT NULL AND NOT EXISTS (SELECT 1 FROM "+
			to.Name+" o WHERE o."+to.Key[0]+" = t."+c.Name+") ORDER BY "+strings.Join(t.Key, ", ")+" LIMIT 1")
	})
	return key, err
}
