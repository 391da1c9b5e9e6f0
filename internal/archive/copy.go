package archive

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// CopyOptions configure Copy.
type CopyOptions struct {
	// OnRows is called with the number of rows that are copied, after each block of rows.
	// It may be nil.
	OnRows func(rows int64)

	MaxBytes int64 // of all rows in their canonical form; 0: no limit
}

// Copy copies the store's database into another one from one snapshot, as an archive that
// is loaded at once does, and compares the two. It creates Stoa's tables in dst, and empties
// them first: an interrupted Copy may have left rows there. The caller has checked that dst
// holds nothing else.
func Copy(ctx context.Context, src, dst *tenantdb.DB, store stoa.StoreID, opts CopyOptions) (head Head, err error) {
	l := loader{db: dst, opts: LoadOptions{Done: func(string) bool { return false }, OnRows: opts.OnRows}}
	content := contentLimit{most: opts.MaxBytes}
	defer l.stop()
	var at Table // that is being copied
	err = src.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		from := source{s, src.Engine}
		if head, err = from.head(ctx, store, nil); err != nil {
			return err
		}
		l.head = head
		if err := l.prepare(ctx); err != nil {
			return err
		}
		for _, at = range l.tables {
			if err := l.copyTable(ctx, from, at, &content); err != nil {
				return readFault(ctx, at, err)
			}
		}
		return nil
	})
	if err != nil {
		return head, nameLong(ctx, src, at, err)
	}
	return head, l.finish(ctx)
}

func (l *loader) copyTable(ctx context.Context, from source, t Table, content *contentLimit) error {
	b := block{content: content, columns: t.Columns, write: func(rows [][]any) error { return l.add(ctx, t, rows) }}
	if err := b.all(func(fn func([]byte) error) error { return from.rows(ctx, t, fn) }); err != nil {
		return err
	}
	if err := l.settle(ctx); err != nil {
		return err
	}
	links := block{content: content, columns: t.pick(t.links()), write: func(rows [][]any) error { return l.writeLinks(ctx, t, rows) }}
	if err := links.all(func(fn func([]byte) error) error { return from.links(ctx, t, fn) }); err != nil {
		return err
	}
	l.comparison.add(b.count.Summary(t.Name))
	return nil
}

// block collects rows, in the values that drivers accept as arguments, and writes them in
// blocks of a limited size.
type block struct {
	content *contentLimit
	columns []Column
	write   func([][]any) error
	rows    [][]any
	size    int
	count   container.Tally
}

// all writes all rows that each returns.
func (b *block) all(each func(func([]byte) error) error) error {
	if err := each(b.add); err != nil {
		return err
	}
	return b.flush()
}

func (b *block) add(encoded []byte) error {
	if err := b.content.take(encoded); err != nil {
		return err
	}
	row, _, err := decodeRow(encoded, b.columns)
	if err != nil {
		return err
	}
	b.count.Add(encoded)
	b.rows, b.size = append(b.rows, row), b.size+len(encoded)
	if b.size < blockSize && len(b.rows) < pageRows {
		return nil
	}
	return b.flush()
}

func (b *block) flush() error {
	if len(b.rows) == 0 {
		return nil
	}
	err := b.write(b.rows)
	b.rows, b.size = nil, 0
	return err
}

// Key is the primary key of a row: its values as a JSON array. Equal keys have equal texts,
// whatever engine they come from.
type Key string

// ParseKey reads a JSON array of the values of a key, as any engine writes it.
func ParseKey(t Table, text string) (Key, error) {
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	var parts []any
	if err := d.Decode(&parts); err != nil || len(parts) != len(t.Key) {
		return "", fmt.Errorf("archive: %.100q is no key of the table %s", text, t.Name)
	}
	return keyFrom(parts)
}

func keyFrom(parts []any) (Key, error) {
	text, err := json.Marshal(parts)
	return Key(text), err
}

// Values returns the values of a key, as arguments of a statement.
func (k Key) Values(t Table) ([]any, error) {
	d := json.NewDecoder(strings.NewReader(string(k)))
	d.UseNumber()
	var parts []any
	if err := d.Decode(&parts); err != nil {
		return nil, err
	}
	for i, at := range t.keyColumns() {
		if n, ok := parts[i].(json.Number); ok && t.Columns[at].Type == tenantdb.TypeInteger {
			parts[i], _ = n.Int64()
		}
	}
	return parts, nil
}

// Row is one row of a table.
type Row struct {
	Key    Key
	Values []any // as drivers accept them as arguments
	Sum    Sums  // of this row alone
	Bytes  int
}

// Sums is the number and the checksum of some rows, whatever their order.
type Sums struct{ container.Tally }

// Add adds other rows.
func (s *Sums) Add(o Sums) { s.AddAll(o.Tally) }

// Rows reads the rows of Stoa's tables in a snapshot.
type Rows struct{ source }

// NewRows returns the rows that a snapshot of db sees.
func NewRows(db *tenantdb.DB, s *tenantdb.Snapshot) Rows { return Rows{source{s, db.Engine}} }

// Head describes the database as Write does. It fails for a database that cannot be
// archived.
func (r Rows) Head(ctx context.Context, store stoa.StoreID) (Head, error) {
	return r.head(ctx, store, nil)
}

// All calls fn with each row of a table.
func (r Rows) All(ctx context.Context, t Table, fn func(Row) error) error {
	if err := r.rows(ctx, t, rowsTo(t, fn)); err != nil {
		return readFault(ctx, t, err)
	}
	return nil
}

// keysAtOnce limits the keys of one query.
const keysAtOnce = 500

// ByKey calls fn with each of the rows that has one of the keys.
func (r Rows) ByKey(ctx context.Context, t Table, keys []Key, fn func(Row) error) error {
	for len(keys) > 0 {
		n, rows := min(keysAtOnce, len(keys)), 0
		where, args, err := WhereKey(t, keys[:n])
		if err == nil {
			err = r.rowsWhere(ctx, t, where, args, rowsTo(t, func(row Row) error {
				if rows++; rows > n { // a server may send rows without an end
					return &databaseError{fmt.Errorf("the server returns more than %d rows for as many keys", n)}
				}
				return fn(row)
			}))
		}
		if err != nil {
			return readFault(ctx, t, err)
		}
		keys = keys[n:]
	}
	return nil
}

// WhereKey returns the condition that a row has one of the keys, with its arguments.
func WhereKey(t Table, keys []Key) (where string, args []any, err error) {
	var either []string
	for _, k := range keys {
		values, err := k.Values(t)
		if err != nil {
			return "", nil, err
		}
		args = append(args, values...)
		either = append(either, "("+strings.Join(t.Key, " = ? AND ")+" = ?)")
	}
	if len(t.Key) == 1 {
		return t.Key[0] + " IN (?" + strings.Repeat(", ?", len(keys)-1) + ")", args, nil
	}
	return "(" + strings.Join(either, " OR ") + ")", args, nil
}

// rowsTo calls fn with rows in their canonical values.
func rowsTo(t Table, fn func(Row) error) func([]byte) error {
	key := t.keyColumns()
	return func(encoded []byte) (err error) {
		row := Row{Bytes: len(encoded)}
		if row.Values, _, err = decodeRow(encoded, t.Columns); err != nil {
			return err
		}
		parts := make([]any, len(key))
		for i, at := range key {
			parts[i] = row.Values[at]
		}
		if row.Key, err = keyFrom(parts); err != nil {
			return err
		}
		row.Sum.Tally.Add(encoded)
		return fn(row)
	}
}

// Tables returns Stoa's tables of a schema version, in the order in which they are loaded.
func Tables(ctx context.Context, version int64) (tables []Table, err error) {
	schema, err := tenantdb.Tables(ctx, version)
	for _, t := range schema {
		tables = append(tables, fromTable(t))
	}
	return tables, err
}

// Insert inserts rows in tx, without the references to their own table; see Link.
func Insert(ctx context.Context, tx *tenantdb.Tx, t Table, rows []Row) error {
	return insert(ctx, tx, t, rows, "")
}

// Replace replaces rows, which exist, in tx, without the references to their own table. A
// clash with another unique value than the key is an error on every engine: MySQL finds the
// key, which is the first index, before it would replace another row.
func Replace(ctx context.Context, tx *tenantdb.Tx, sql tenantdb.ArchiveSQL, t Table, rows []Row) error {
	var sets []string
	for _, c := range t.Columns {
		sets = append(sets, c.Name+" = "+fmt.Sprintf(sql.Proposed, c.Name))
	}
	return insert(ctx, tx, t, rows, " "+strings.Replace(sql.Upsert, "%s", strings.Join(t.Key, ", "), 1)+" "+strings.Join(sets, ", "))
}

func insert(ctx context.Context, tx *tenantdb.Tx, t Table, rows []Row, clause string) error {
	var arguments []any
	for _, row := range rows {
		arguments = append(arguments, t.unlinked(row.Values)...)
	}
	for columns := len(t.Columns); len(arguments) > 0; {
		n := rowsOfStatement(len(arguments)/columns, columns)
		if _, err := tx.Exec(ctx, insertSQL(t, n)+clause, arguments[:n*columns]...); err != nil {
			return err
		}
		arguments = arguments[n*columns:]
	}
	return nil
}

// Link sets the references of a row to its own table in tx, if it has any.
func Link(ctx context.Context, tx *tenantdb.Tx, t Table, row Row) error {
	var sets []string
	var args []any
	for i, c := range t.Columns {
		if c.Self && row.Values[i] != nil {
			sets, args = append(sets, c.Name+" = ?"), append(args, row.Values[i])
		}
	}
	if sets == nil {
		return nil
	}
	where, keys, err := WhereKey(t, []Key{row.Key})
	if err == nil {
		_, err = tx.Exec(ctx, "UPDATE "+t.Name+" SET "+strings.Join(sets, ", ")+" WHERE "+where, append(args, keys...)...)
	}
	return err
}

// unlinked returns the values of a row without the references to its own table.
func (t Table) unlinked(values []any) []any {
	out := make([]any, len(values))
	for i, c := range t.Columns {
		if !c.Self {
			out[i] = values[i]
		}
	}
	return out
}

// IsOfRow reports whether an error may be about the values of a row: it is not about the
// connection or the server.
func IsOfRow(err error) bool { return isOfRow(err) }
