package archive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// LoadOptions configure Load.
type LoadOptions struct {
	// Done reports whether an earlier Load, which was interrupted, has completed a table.
	// Tables that it began are emptied and loaded again. If it is nil, no Load came before,
	// and every table must be empty.
	Done func(table string) bool
	// OnTable is called after each table that this Load has completed. It may be nil. Load
	// ends if it fails.
	OnTable func(Summary) error
	// OnRows is called with the number of rows that are stored, after each block of rows. It
	// may be nil.
	OnRows func(rows int64)

	tables []Table // in place of Stoa's; for tests
}

// Load creates Stoa's tables in the database, at the schema version of the archive, and
// loads the archive into them. It reads them again meanwhile and compares their checksums.
// Each block of rows is one transaction, so an interrupted Load leaves an incomplete
// database: see LoadOptions.Done. An error about a row names its table and key.
//
// The caller migrates the database to the current schema afterwards, and decides what to do
// with what only the old store had.
func Load(ctx context.Context, db *tenantdb.DB, r *Reader, opts LoadOptions) error {
	l := loader{db: db, head: r.Head, opts: opts}
	defer l.stop()
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if err := l.parts(ctx, r); err != nil {
		return err
	}
	return l.finish(ctx)
}

// finish completes the database and the comparison, after all rows were loaded.
func (l *loader) finish(ctx context.Context) error {
	if err := l.makeDeferred(ctx); err != nil {
		return err
	}
	if err := l.checkReferences(ctx); err != nil {
		return err
	}
	return l.comparison.finish(ctx)
}

// stop ends what runs beside the load, and gives back the connection.
func (l *loader) stop() {
	l.beside.stop()
	if l.comparison != nil {
		l.comparison.stop()
	}
	if l.bulk != nil {
		l.bulk.Close()
	}
}

// tx runs a transaction that changes rows.
func (l *loader) tx(ctx context.Context, fn func(*tenantdb.Tx) error) error {
	if l.bulk != nil {
		return l.bulk.Tx(ctx, fn)
	}
	return l.db.Tx(ctx, fn)
}

// parts loads all parts of the archive. The next one is read and checked while the database
// stores the one before.
func (l *loader) parts(ctx context.Context, r *Reader) error {
	parts, stop := make(chan Part), make(chan struct{})
	var unreadable error // read after parts is closed
	go func() {
		defer close(parts)
		unreadable = stoa.CatchPanic(func() error { return readParts(r, parts, stop) })
	}()
	defer func() {
		close(stop)
		for range parts { // the caller closes the reader, which must not be in use
		}
	}()
	for p := range parts {
		if err := l.part(ctx, p); err != nil {
			return err
		}
	}
	return unreadable
}

// readParts sends the parts of the archive until its end or until stop is closed.
func readParts(r *Reader, parts chan<- Part, stop <-chan struct{}) error {
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case parts <- p:
		case <-stop:
			return nil
		}
	}
}

type loader struct {
	db     *tenantdb.DB
	head   Head
	opts   LoadOptions
	tables []Table

	beside     besideWriter
	comparison *comparison    // of the tables that are loaded; nil before the first
	bulk       *tenantdb.Bulk // nil on a server
}

// prepare checks the archive against the schema, and creates the tables.
func (l *loader) prepare(ctx context.Context) error {
	head := l.head
	if err := head.CheckSchema(); err != nil {
		return err
	}
	schema, err := l.db.MigrateTo(ctx, tenantdb.MigrateOptions{To: head.SchemaVersion})
	if err != nil {
		return err
	}
	version, err := l.db.SchemaVersion(ctx)
	if err != nil {
		return err
	}
	if schema.Version != head.SchemaVersion || version != head.SchemaVersion {
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database has the schema version %d and the archive %d. Use an empty database.", version, head.SchemaVersion)
	}
	if l.tables = l.opts.tables; l.tables == nil {
		expected, err := tenantdb.Tables(ctx, head.SchemaVersion)
		if err != nil {
			return err
		}
		for _, t := range expected {
			l.tables = append(l.tables, fromTable(t))
		}
	}
	if err := sameTables(head.Tables, l.tables); err != nil {
		return err
	}
	if err := l.empty(ctx); err != nil {
		return err
	}
	if err := l.dropDeferred(ctx); err != nil {
		return err
	}
	if l.bulk, err = l.db.Bulk(ctx); err != nil {
		return err
	}
	l.comparison = newComparison(ctx, l.db, l.tables)
	return nil
}

// sameTables checks that an archive has the expected tables and columns, in the same order.
func sameTables(got, want []Table) error {
	for i, w := range want {
		if i >= len(got) || got[i].Name != w.Name {
			return container.Damaged("its tables are not those of its schema version; the table "+w.Name+" is missing or not in its place", nil)
		}
		sameColumn := func(a, b Column) bool {
			a.maxChars, b.maxChars, a.References, b.References = 0, 0, "", ""
			return a == b
		}
		if !slices.EqualFunc(got[i].Columns, w.Columns, sameColumn) || !slices.Equal(got[i].Key, w.Key) {
			return container.Damaged("the columns of the table "+w.Name+" are not those of its schema version", nil)
		}
	}
	if len(got) > len(want) {
		return container.Damaged("its tables are not those of its schema version; the table "+got[len(want)].Name+" is none of them", nil)
	}
	return nil
}

// empty checks that the tables are empty, or empties those that an interrupted Load began.
func (l *loader) empty(ctx context.Context) error {
	if l.opts.Done != nil {
		return l.deleteRows(ctx)
	}
	for _, t := range l.tables {
		var rows int
		if err := l.db.Get(ctx, &rows, "SELECT count(*) FROM (SELECT 1 FROM "+t.Name+" LIMIT 1) one"); err != nil {
			return err
		}
		if rows > 0 {
			return stoa.Errorf(stoa.DatabaseNotEmpty, "The table %s of the database has rows. Use an empty database.", t.Name)
		}
	}
	return nil
}

// deleteRows empties the tables that are not loaded yet, all or none of them.
func (l *loader) deleteRows(ctx context.Context) error {
	return l.db.Tx(ctx, func(tx *tenantdb.Tx) error {
		for _, t := range slices.Backward(l.tables) { // a table before those that it references
			if l.opts.Done(t.Name) {
				continue
			}
			if _, err := tx.Exec(ctx, "DELETE FROM "+t.Name); err != nil {
				return fmt.Errorf("empty the table %s: %w", t.Name, err)
			}
		}
		return nil
	})
}

func (l *loader) part(ctx context.Context, p Part) error {
	done := l.opts.Done != nil && l.opts.Done(p.Table.Name)
	if p.Rows != nil && !done {
		return l.add(ctx, p.Table, p.Rows)
	}
	if err := l.settle(ctx); err != nil { // links and the end of a table need all of its rows
		return err
	}
	switch {
	case p.End != nil:
		return l.end(*p.End)
	case done:
		return nil
	}
	return l.writeLinks(ctx, p.Table, p.Links)
}

func (l *loader) end(sum Summary) error {
	l.comparison.add(sum)
	if l.opts.OnTable == nil || l.opts.Done != nil && l.opts.Done(sum.Table) {
		return nil
	}
	return l.opts.OnTable(sum)
}

// writeRows inserts a block of rows in one transaction. If that fails because of a row, it
// inserts them one by one to find that row.
func (l *loader) writeRows(ctx context.Context, t Table, rows [][]any) error {
	for _, row := range rows {
		for i, c := range t.Columns {
			if c.Self {
				row[i] = nil // a link sets it
			}
		}
	}
	err := l.insertBlock(ctx, t, rows)
	if err == nil || !isOfRow(err) || ctx.Err() != nil {
		return err
	}
	return l.tx(ctx, func(tx *tenantdb.Tx) error {
		for _, row := range rows {
			if _, err := tx.Exec(ctx, insertSQL(t, 1), row...); err != nil {
				return l.rowRefused(ctx, t, row, err)
			}
		}
		return nil
	})
}

// maxParameters limits the parameters of one statement. A server describes each of them,
// and Stoa limits the length of these descriptions.
const maxParameters = 2000

// rowsOfStatement returns how many of the next rows go into one statement: a power of two,
// so that there are few different statements.
func rowsOfStatement(rows, columns int) int {
	n := 1
	for 2*n <= min(rows, max(1, maxParameters/columns)) {
		n *= 2
	}
	return n
}

func insertSQL(t Table, rows int) string {
	names := t.columnNames()
	row := "(" + strings.TrimPrefix(strings.Repeat(", ?", len(names)), ", ") + ")"
	return "INSERT INTO " + t.Name + " (" + strings.Join(names, ", ") + ") VALUES " + strings.TrimPrefix(strings.Repeat(", "+row, rows), ", ")
}

// rowRefused names the row that the database refuses.
func (l *loader) rowRefused(ctx context.Context, t Table, row []any, err error) error {
	switch {
	case ctx.Err() != nil || !isOfRow(err):
		return err
	case tenantdb.IsUnique(err):
		return stoa.Errorf(stoa.ArchiveRefused, "The row with %s of the table %s clashes with another one: a value that must be unique is the same for both in this database, "+
			"which compares texts differently than the one that the archive was made of. Change one of the two at the source, or use the same engine.", keyText(t, row), t.Name).WithCause(err)
	}
	return stoa.Errorf(stoa.ArchiveRefused, "The database refuses the row with %s of the table %s: %s. Correct it at the source, or use the same engine.",
		keyText(t, row), t.Name, shorten(causeOf(err).Error(), 200)).WithCause(err)
}

// isOfRow reports whether an error may be about the values of a row: it is not about the
// connection or the server.
func isOfRow(err error) bool {
	switch stoa.CodeOf(err) { //nolint:exhaustive // all others are about the database
	case stoa.Internal:
		return true
	case stoa.TenantError, stoa.DatabaseContentInvalid:
		return !tenantdb.IsTransient(err)
	}
	return false
}

// causeOf returns the driver's error. The fault that tenantdb adds is about the store's own
// statements.
func causeOf(err error) error {
	var fault *stoa.Error
	if errors.As(err, &fault) && fault.Cause != nil {
		return fault.Cause
	}
	return err
}

// writeLinks sets the references of rows to their own table, in one transaction.
func (l *loader) writeLinks(ctx context.Context, t Table, links [][]any) error {
	columns := t.pick(t.links())
	var sets, wheres []string
	for i, c := range columns {
		if i < len(t.Key) {
			wheres = append(wheres, c.Name+" = ?")
		} else {
			sets = append(sets, c.Name+" = ?")
		}
	}
	query := "UPDATE " + t.Name + " SET " + strings.Join(sets, ", ") + " WHERE " + strings.Join(wheres, " AND ")
	return l.tx(ctx, func(tx *tenantdb.Tx) error {
		for _, link := range links {
			n, err := tx.Exec(ctx, query, slices.Concat(link[len(t.Key):], link[:len(t.Key)])...)
			if err == nil && n != 1 {
				err = errors.New("it is not in the archive")
			}
			if err != nil {
				return l.rowRefused(ctx, Table{Name: t.Name, Columns: columns, Key: t.Key}, link, err)
			}
		}
		return nil
	})
}
