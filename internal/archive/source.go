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

	tables []Table // in place of Stoa's; for tests
}

// Write copies the store's database into a new archive from one snapshot, so that it may be
// in use meanwhile. Its memory does not depend on the size of the database. An error about a
// row names its table and key. dst has received a complete archive only if Write returns nil.
func Write(ctx context.Context, db *tenantdb.DB, store stoa.StoreID, dst io.Writer, opts WriteOptions, recipients ...age.Recipient) (head Head, total Summary, err error) {
	err = db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		src := source{s, db.Engine}
		if head, err = src.head(ctx, store, opts.tables); err != nil {
			return err
		}
		w, err := NewWriter(dst, head, recipients...)
		if err != nil {
			return err
		}
		for _, t := range head.Tables {
			if err := src.writeTable(ctx, w, t, opts.OnTable); err != nil {
				w.Abort()
				return readFault(ctx, t, err)
			}
		}
		total, err = w.Close()
		return err
	})
	return head, total, err
}

// Sum reads the tables from one snapshot and returns a summary of each.
func Sum(ctx context.Context, db *tenantdb.DB, tables []Table) (sums []Summary, err error) {
	err = db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		sums = nil
		src := source{s, db.Engine}
		for _, t := range tables {
			var (
				count tally
				row   []byte
			)
			err := src.rows(ctx, t, func(values []any) error {
				row, err = appendRow(row[:0], t.Columns, values)
				if err == nil {
					count.add(row)
				}
				return err
			})
			if err != nil {
				return readFault(ctx, t, err)
			}
			sums = append(sums, count.summary(t.Name))
		}
		return nil
	})
	return sums, err
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
	query := map[credential.EngineName]string{credential.SQLite: `sqlite_version()`, credential.PostgreSQL: `current_setting('server_version')`, credential.MySQL: `version()`}[s.engine]
	var versions []string
	err := s.Select(ctx, &versions, `SELECT substr(`+query+`, 1, 100) AS v`)
	return strings.Join(versions, ""), err
}

// tableNames returns the names of the tables among which the version tables are.
func (s source) tableNames(ctx context.Context) (names []string, err error) {
	query := map[credential.EngineName]string{
		credential.SQLite:     `SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?`,
		credential.PostgreSQL: `SELECT relname::text AS name FROM pg_catalog.pg_class WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND relname = ?`,
		credential.MySQL:      `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database() AND table_name = ?`,
	}[s.engine]
	err = s.Select(ctx, &names, query, tenantdb.CustomVersionTable)
	return names, err
}

// checkTransactional checks that the snapshot covers the tables: on MySQL, an owner can
// convert a table to an engine without transactions.
func (s source) checkTransactional(ctx context.Context, tables []Table) error {
	if s.engine != credential.MySQL {
		return nil
	}
	var others []string
	err := s.Select(ctx, &others, `SELECT substr(table_name, 1, 64) AS t FROM information_schema.tables
		WHERE table_schema = database() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' ORDER BY table_name LIMIT 10000`)
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

func (s source) writeTable(ctx context.Context, w *Writer, t Table, onTable func(Summary)) error {
	if err := s.rows(ctx, t, w.Row); err != nil {
		return err
	}
	if err := s.links(ctx, t, w.Link); err != nil {
		return err
	}
	sum, err := w.EndTable()
	if err == nil && onTable != nil {
		onTable(sum)
	}
	return err
}

const (
	// pageBytes is how many bytes of rows are read with one query. It is well below the
	// longest answer that is accepted from a server.
	pageBytes = 3 << 20
	pageRows  = 2000 // the most rows of one query
)

// rows calls fn with each row of a table, in the order of its key. The order is the
// engine's own.
func (s source) rows(ctx context.Context, t Table, fn func([]any) error) error {
	p := pager{source: s, table: t, columns: t.Columns, key: t.keyColumns()}
	rowBytes, bounded := t.rowBytes()
	if !bounded {
		return p.bySize(ctx, rowBytes, fn)
	}
	p.limit = max(1, min(pageRows, pageBytes/rowBytes))
	return p.all(ctx, fn)
}

// links calls fn with the key and the references to the table itself of each row that has
// such references.
func (s source) links(ctx context.Context, t Table, fn func([]any) error) error {
	links := t.links()
	if links == nil {
		return nil
	}
	var some []string
	for _, c := range t.pick(links[len(t.Key):]) {
		some = append(some, c.Name+" IS NOT NULL")
	}
	p := pager{source: s, table: t, columns: t.pick(links), limit: pageRows, where: "(" + strings.Join(some, " OR ") + ")"}
	for i := range t.Key {
		p.key = append(p.key, i)
	}
	return p.all(ctx, fn)
}

// rowBytes returns how many bytes a row takes in a server's answer. bounded is false if that
// is without its columns of unlimited length.
func (t Table) rowBytes() (n int, bounded bool) {
	bounded = true
	for _, c := range t.Columns {
		switch {
		case c.Type == tenantdb.TypeText && c.maxChars > 0:
			n += 4*c.maxChars + 8
		case c.Type == tenantdb.TypeText, c.Type == tenantdb.TypeJSON, c.Type == tenantdb.TypeBytes:
			n, bounded = n+8, false
		default:
			n += 80
		}
	}
	return n, bounded
}

// pager reads a table in pages, each with one query.
type pager struct {
	source
	table   Table
	columns []Column
	key     []int  // indexes of the key among columns
	where   string // a condition; "" for all rows
	limit   int    // rows of a page
	after   []any  // key of the last row; nil before the first
}

// all reads all pages of limit rows.
func (p *pager) all(ctx context.Context, fn func([]any) error) error {
	for {
		n, err := p.page(ctx, p.limit, fn)
		if err != nil || n < p.limit {
			return err
		}
	}
}

// bySize reads pages of as many rows as fit in pageBytes. It asks for the sizes of the rows
// first, because a server could not return a page that is too long.
func (p *pager) bySize(ctx context.Context, fixed int, fn func([]any) error) error {
	for {
		sizes, err := p.sizes(ctx, fixed)
		if err != nil {
			return err
		}
		for at := 0; at < len(sizes); {
			n, sum := 1, sizes[at]
			for at+n < len(sizes) && sum+sizes[at+n] <= pageBytes {
				sum += sizes[at+n]
				n++
			}
			if _, err := p.page(ctx, n, fn); err != nil {
				return err
			}
			at += n
		}
		if len(sizes) < pageRows {
			return nil
		}
	}
}

// sizes returns the size of each of the next rows, in bytes.
func (p *pager) sizes(ctx context.Context, fixed int) (sizes []int64, err error) {
	length := map[credential.EngineName]string{credential.SQLite: "length(CAST(%s AS blob))", credential.PostgreSQL: "octet_length(%s)", credential.MySQL: "length(%s)"}[p.engine]
	var parts []string
	for _, c := range p.columns {
		expression := c.Name
		if c.Type == tenantdb.TypeJSON && p.engine == credential.PostgreSQL {
			expression += "::text"
		}
		if c.Type == tenantdb.TypeText || c.Type == tenantdb.TypeJSON || c.Type == tenantdb.TypeBytes {
			parts = append(parts, "coalesce("+fmt.Sprintf(length, expression)+", 0)")
		}
	}
	list := strings.Join(p.names(p.key), ", ") + ", " + strings.Join(parts, " + ")
	_, err = p.query(ctx, list, pageRows, func(values []any) error {
		n, err := canonicalInteger(values[len(p.key)])
		if err != nil {
			return err
		}
		if sizes = append(sizes, n+int64(fixed)); n > maxRow {
			key := make([]any, len(p.columns))
			for i, at := range p.key {
				key[at] = values[i]
			}
			return &rowError{keyText(p.table, key), &valueError{p.longest(), fmt.Sprintf("and the others have more than %d MiB in this row", maxRow>>20)}}
		}
		return nil
	})
	return sizes, err
}

// longest returns the name of a column without a limit.
func (p *pager) longest() string {
	return p.columns[slices.IndexFunc(p.columns, func(c Column) bool {
		return c.Type == tenantdb.TypeText && c.maxChars == 0 || c.Type == tenantdb.TypeJSON || c.Type == tenantdb.TypeBytes
	})].Name
}

func (p *pager) names(indexes []int) []string {
	names := make([]string, len(indexes))
	for i, at := range indexes {
		names[i] = p.columns[at].Name
	}
	return names
}

// page reads the rows after the last key.
func (p *pager) page(ctx context.Context, limit int, fn func([]any) error) (n int, err error) {
	var names []string
	for _, c := range p.columns {
		names = append(names, c.Name)
	}
	last := make([]any, len(p.key))
	n, err = p.query(ctx, strings.Join(names, ", "), limit, func(values []any) error {
		for i, at := range p.key {
			if last[i] = values[at]; p.columns[at].Type != tenantdb.TypeBytes {
				if s, ok := asText(last[i]); ok { // MySQL's bytes would be compared as bytes
					last[i] = s
				}
			}
		}
		if err := fn(values); err != nil {
			return p.rowFault(values, err)
		}
		return nil
	})
	if n > 0 {
		p.after = last
	}
	return n, err
}

func (p *pager) rowFault(values []any, err error) error {
	var value *valueError
	if !errors.As(err, &value) {
		return err
	}
	full := Table{Name: p.table.Name, Columns: p.columns, Key: p.table.Key}
	return &rowError{keyText(full, values), err}
}

// query runs a query for the rows after the last key.
func (p *pager) query(ctx context.Context, list string, limit int, fn func([]any) error) (n int, err error) {
	var conditions []string
	var args []any
	if p.where != "" {
		conditions = append(conditions, p.where)
	}
	key := p.names(p.key)
	if p.after != nil {
		// MySQL uses no index for a comparison of lists of columns.
		var either []string
		for i := range key {
			var all []string
			for j := range i {
				all, args = append(all, key[j]+" = ?"), append(args, p.after[j])
			}
			all, args = append(all, key[i]+" > ?"), append(args, p.after[i])
			either = append(either, strings.Join(all, " AND "))
		}
		conditions = append(conditions, "("+strings.Join(either, " OR ")+")")
	}
	where := ""
	if conditions != nil {
		where = " WHERE " + strings.Join(conditions, " AND ")
	}
	var failed error // of fn
	err = p.EachRow(ctx, func(values []any) error {
		if n++; n > limit {
			return fmt.Errorf("the server returns more than %d rows", limit)
		}
		failed = fn(values)
		return failed
	}, "SELECT "+list+" FROM "+p.table.Name+where+" ORDER BY "+strings.Join(key, ", ")+" LIMIT ?", append(args, limit)...)
	if err != nil && failed == nil {
		err = &databaseError{err}
	}
	return n, err
}
