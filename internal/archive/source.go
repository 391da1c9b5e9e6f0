package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// WriteOptions configure Write.
type WriteOptions struct {
	OnTable func(Summary) // called after each table; may be nil
	OnRow   func()        // called after each row; may be nil

	MaxBytes int64 // of all rows in their canonical form; 0: no limit

	tables []Table // in place of Stoa's; for tests
}

// Write copies the store's database into a new archive from one snapshot, so that it may be
// in use meanwhile. Its memory does not depend on the size of the database. An error about a
// row names its table and key. dst has received a complete archive only if Write returns nil.
func Write(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, dst io.Writer, opts WriteOptions, recipients ...age.Recipient) (head Head, total Summary, err error) {
	var at Table // that is being read
	err = db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		src := source{s, db.Engine}
		if head, err = src.head(ctx, store, opts.tables); err != nil {
			return err
		}
		w, err := NewWriter(dst, head, recipients...)
		if err != nil {
			return err
		}
		w.content.most = opts.MaxBytes
		for _, at = range head.Tables {
			if err := src.writeTable(ctx, w, at, opts); err != nil {
				w.Abort()
				return readFault(ctx, at, err)
			}
		}
		total, err = w.Close()
		return err
	})
	return head, total, nameLong(ctx, db, at, err)
}

// rowError is a fault of one row.
type rowError struct {
	key   string
	fault error
}

func (e *rowError) Error() string { return "row " + e.key + ": " + e.fault.Error() }

func (e *rowError) Unwrap() error { return e.fault }

// databaseError is an error of the database, as opposed to one of the archive's destination.
type databaseError struct{ error }

func (e *databaseError) Unwrap() error { return e.error }

// readFault adds the table to an error that occurred while it was read.
func readFault(ctx context.Context, t Table, err error) error {
	var (
		row      *rowError
		value    *valueError
		database *databaseError
	)
	switch {
	case ctx.Err() != nil:
		return err
	case errors.As(err, &row) && errors.As(err, &value):
		return stoa.Errorf(stoa.ArchiveRefused, "The row with %s of the table %s cannot be archived: the column %s %s. Correct it in the store's database.",
			row.key, t.Name, value.column, value.reason).WithCause(err)
	case stoa.CodeOf(err) == stoa.Internal && errors.As(err, &database):
		return stoa.Errorf(stoa.ArchiveRefused, "The table %s cannot be read. It was changed, now or earlier; bring it back to Stoa's schema, then try again.", t.Name).WithCause(err)
	}
	return fmt.Errorf("table %s: %w", t.Name, err)
}

// source reads tables from a snapshot.
type source struct {
	*tenantdb.Snapshot
	engine credential.EngineName
}

// head reads what the manifest says about the database, and checks that it has Stoa's
// tables.
func (s source) head(ctx context.Context, store stoa.StoreID, tables []Table) (h Head, err error) {
	h = Head{Store: store, Engine: s.engine, Release: stoa.Version, SnapshotAt: time.Now().UTC().Truncate(time.Microsecond), Tables: tables}
	structure, err := s.Structure(ctx)
	if err != nil {
		return h, err
	}
	if h.SchemaVersion, err = s.version(ctx, tenantdb.VersionTable); err != nil {
		return h, err
	}
	if err := h.CheckSchema(); err != nil {
		return h, err
	}
	names, err := s.tableNames(ctx)
	if err == nil && slices.Contains(names, tenantdb.CustomVersionTable) {
		h.OwnVersion, err = s.version(ctx, tenantdb.CustomVersionTable)
	}
	if err == nil {
		h.EngineVersion, err = s.engineVersion(ctx)
	}
	if err != nil {
		return h, err
	}
	schema, err := tenantdb.Tables(ctx, h.SchemaVersion)
	if err != nil {
		return h, err
	}
	if tables == nil {
		for _, t := range schema {
			h.Tables = append(h.Tables, fromTable(t))
		}
	}
	if err := s.checkTransactional(ctx, h.Tables); err != nil {
		return h, err
	}
	return h, h.compare(structure, schema)
}

func (s source) version(ctx context.Context, table string) (int64, error) {
	var versions []int64
	if err := s.Select(ctx, &versions, `SELECT coalesce(max(version_id), 0) AS v FROM `+table); err != nil {
		return 0, err
	}
	if len(versions) != 1 {
		return 0, fmt.Errorf("%d rows for one version", len(versions))
	}
	return versions[0], nil
}

func (s source) engineVersion(ctx context.Context) (string, error) {
	var versions []string
	err := s.Select(ctx, &versions, `SELECT substr(`+s.ArchiveSQL().Version+`, 1, 100) AS v`)
	return strings.Join(versions, ""), err
}

// tableNames returns the names of the tables among which the version tables are.
func (s source) tableNames(ctx context.Context) (names []string, err error) {
	err = s.Select(ctx, &names, s.ArchiveSQL().TableNamed, tenantdb.CustomVersionTable)
	return names, err
}

// checkTransactional checks that the snapshot covers the tables.
func (s source) checkTransactional(ctx context.Context, tables []Table) error {
	query := s.ArchiveSQL().Unsafe
	if query == "" {
		return nil
	}
	var others []string
	err := s.Select(ctx, &others, query)
	for _, other := range others {
		if slices.ContainsFunc(tables, func(t Table) bool { return t.Name == other }) {
			return stoa.Errorf(stoa.ArchiveRefused, "The table %s does not use InnoDB, so it cannot be read while it is in use. Convert it: ALTER TABLE %[1]s ENGINE = InnoDB.", other)
		}
	}
	return err
}

// compare checks that the structure has all tables and columns of the archive, and lists
// what else there is.
func (h *Head) compare(structure tenantdb.Structure, schema []tenantdb.Table) error {
	expected := map[string]bool{}
	for _, t := range schema {
		for _, c := range t.Generated {
			expected["column "+t.Name+"."+c] = true
		}
	}
	for _, t := range h.Tables {
		expected["table "+t.Name] = true
		if _, ok := structure["table "+t.Name]; !ok {
			return stoa.Errorf(stoa.ArchiveRefused, "The database has no table %s, which Stoa's schema contains. Bring it back, then try again.", t.Name)
		}
		for _, c := range t.Columns {
			part := "column " + t.Name + "." + c.Name
			expected[part] = true
			if _, ok := structure[part]; !ok {
				return stoa.Errorf(stoa.ArchiveRefused, "The table %s has no column %s, which Stoa's schema contains. Bring it back, then try again.", t.Name, c.Name)
			}
		}
	}
	for part := range structure {
		kind, what, _ := strings.Cut(part, " ")
		table, _, _ := strings.Cut(what, ".")
		if !expected[part] && (kind == "table" || kind == "column" && expected["table "+table]) {
			h.NotIncluded = append(h.NotIncluded, shorten(what, maxPartName))
		}
	}
	slices.Sort(h.NotIncluded)
	h.NotIncluded = slices.Compact(h.NotIncluded)
	if n := len(h.NotIncluded); n > maxListed {
		h.NotIncluded, h.Omitted = h.NotIncluded[:maxListed], n-maxListed
	}
	return nil
}

// maxPartName is the limit of a listed name, in characters.
const maxPartName = 128

func shorten(s string, most int) string {
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most]) + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

func (s source) writeTable(ctx context.Context, w *Writer, t Table, opts WriteOptions) error {
	write := w.row
	if opts.OnRow != nil {
		write = func(row []byte) error {
			if err := w.row(row); err != nil {
				return err
			}
			opts.OnRow()
			return nil
		}
	}
	if err := s.rows(ctx, t, write); err != nil {
		return err
	}
	if err := s.links(ctx, t, w.link); err != nil {
		return err
	}
	sum, err := w.EndTable()
	if err == nil && opts.OnTable != nil {
		opts.OnTable(sum)
	}
	return err
}
