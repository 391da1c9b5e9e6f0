package masterbackup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
)

// postgres writes all tables of a PostgreSQL master from one snapshot.
func (w *writer) postgres(ctx context.Context, db *masterdb.DB) error {
	return db.Snapshot(ctx, func(q *masterdb.Tx) error {
		tx := q.Postgres()
		if err := w.readHead(ctx, q); err != nil {
			return err
		}
		if err := w.readTables(ctx, q); err != nil {
			return err
		}
		if err := w.readSequences(ctx, q); err != nil {
			return err
		}
		if err := w.open(); err != nil {
			return err
		}
		defer w.out.Abort() // has no effect after end
		for _, t := range w.result.Head.Tables {
			blocks, count := &blockWriter{out: w.out}, newLineTally()
			if err := copyOut(ctx, tx, t, io.MultiWriter(blocks, count)); err != nil {
				return err
			}
			if err := blocks.flush(); err != nil {
				return err
			}
			if err := w.endTable(t.Name, count.Tally); err != nil {
				return err
			}
		}
		return w.end()
	})
}

// copyOut writes the rows of a table in COPY's text format. It returns an error of dst as it
// is.
func copyOut(ctx context.Context, tx pgx.Tx, t Table, dst io.Writer) error {
	kept := &errorWriter{w: dst}
	_, err := tx.Conn().PgConn().CopyTo(ctx, kept, `COPY (SELECT `+quoted(t.Columns)+` FROM `+quoted([]string{t.Name})+`) TO STDOUT`)
	if kept.err != nil {
		return kept.err
	}
	if err != nil {
		return fmt.Errorf("read the table %s: %w", t.Name, err)
	}
	return nil
}

// errorWriter remembers the error of w.
type errorWriter struct {
	w   io.Writer
	err error
}

func (e *errorWriter) Write(p []byte) (n int, err error) {
	n, err = e.w.Write(p)
	if err != nil && e.err == nil {
		e.err = err
	}
	return n, err
}

// quoted returns a list of names for SQL.
func quoted(names []string) string {
	var parts []string
	for _, n := range names {
		parts = append(parts, pgx.Identifier{n}.Sanitize())
	}
	return strings.Join(parts, ", ")
}

// pgTables lists the tables of the current schema that belong to no extension, with their
// columns but generated ones.
func pgTables(ctx context.Context, q masterdb.Querier) ([]Table, error) {
	var tables []Table
	err := q.Select(ctx, &tables, `
		SELECT c.relname AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
		FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
		WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
			AND NOT EXISTS (SELECT FROM pg_depend e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid AND e.deptype = 'e')
		GROUP BY c.relname ORDER BY c.relname`)
	return tables, err
}

// readTables reads which tables and columns there are. Those that Stoa did not create are
// left out, since a restore has no place for them.
func (w *writer) readTables(ctx context.Context, q masterdb.Querier) error {
	found, err := pgTables(ctx, q)
	if err != nil {
		return err
	}
	h := &w.result.Head
	for _, t := range found {
		want, ok := w.reference.table(t.Name)
		if !ok {
			h.NotIncluded = append(h.NotIncluded, "table "+shorten(t.Name))
			continue
		}
		columns := slices.Clone(t.Columns)
		if !strings.HasPrefix(t.Name, "river_") { // the queue's columns differ between the engines
			columns = slices.DeleteFunc(columns, func(c string) bool { return !slices.Contains(want.Columns, c) })
			for _, c := range t.Columns {
				if !slices.Contains(want.Columns, c) {
					h.NotIncluded = append(h.NotIncluded, "column "+shorten(t.Name+"."+c))
				}
			}
		}
		h.Tables = append(h.Tables, Table{t.Name, columns})
	}
	for _, want := range w.reference.tables {
		if !slices.ContainsFunc(h.Tables, func(t Table) bool { return t.Name == want.Name }) {
			return fmt.Errorf("the master database has no table %s", want.Name)
		}
	}
	return nil
}

// readSequences reads the sequences of the tables' columns that have handed out numbers. A
// sequence is not part of the snapshot: it is read after the snapshot was taken, so it is
// past the numbers of all rows.
func (w *writer) readSequences(ctx context.Context, q masterdb.Querier) error {
	var found []struct {
		Sequence

		Table string
	}
	// The function fails for a relation that is no sequence, and the planner orders conditions.
	err := q.Select(ctx, &found, `
		SELECT name, last, "table" FROM (
			SELECT s.relname AS name, CASE s.relkind WHEN 'S' THEN pg_sequence_last_value(s.oid) END AS last, t.relname AS "table" FROM pg_class s
			JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = s.oid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
			JOIN pg_class t ON t.oid = d.refobjid
			WHERE s.relkind = 'S' AND s.relnamespace = current_schema()::regnamespace) owned
		WHERE last IS NOT NULL ORDER BY name`)
	h := &w.result.Head
	for _, f := range found {
		if slices.ContainsFunc(h.Tables, func(t Table) bool { return t.Name == f.Table }) {
			h.Sequences = append(h.Sequences, f.Sequence)
		}
	}
	return err
}
