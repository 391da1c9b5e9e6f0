package masterbackup

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/masterdb"
)

// sqlite writes the copy of a SQLite master.
func (w *writer) sqlite(ctx context.Context, path string) error {
	counts, err := w.readCopy(ctx, path)
	if err != nil {
		return err
	}
	file, err := os.Open(path) //nolint:gosec // the copy that this process has made
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it was only read
	if err := w.open(); err != nil {
		return err
	}
	defer w.out.Abort() // has no effect after end
	blocks := &blockWriter{out: w.out}
	if _, err := io.Copy(blocks, contextReader{ctx, file}); err != nil {
		return err
	}
	if err := blocks.flush(); err != nil {
		return err
	}
	for i, t := range w.result.Head.Tables {
		if err := w.endTable(t.Name, counts[i]); err != nil {
			return err
		}
	}
	return w.end()
}

// readCopy removes from the copy what Stoa did not create, and counts its rows.
func (w *writer) readCopy(ctx context.Context, path string) (counts []container.Tally, err error) {
	db, err := masterdb.Open(ctx, "sqlite:"+path)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	if err := w.readHead(ctx, db); err != nil {
		return nil, err
	}
	if err := w.dropForeign(ctx, db); err != nil {
		return nil, err
	}
	w.result.Head.Tables = w.reference.tables
	for _, t := range w.reference.tables {
		count, err := liteTally(ctx, db.Writer(), t)
		if err != nil {
			return nil, err
		}
		counts = append(counts, count)
	}
	return counts, nil
}

// dropForeign removes objects from the copy that Stoa did not create. A restore would refuse
// them.
func (w *writer) dropForeign(ctx context.Context, db *masterdb.DB) error {
	list, err := objects(ctx, db)
	if err != nil {
		return err
	}
	for _, o := range list {
		if strings.HasPrefix(o.Name, "sqlite_") || w.reference.has(o) {
			continue
		}
		if err := w.drop(ctx, db, o.Type+" "+o.Name, `DROP `+o.Type+` IF EXISTS `+quoted([]string{o.Name})); err != nil {
			return err
		}
	}
	for _, t := range w.reference.tables {
		columns, err := liteColumns(ctx, db, t.Name)
		if err != nil {
			return err
		}
		for _, c := range columns {
			if slices.Contains(t.Columns, c) {
				continue
			}
			if err := w.drop(ctx, db, "column "+t.Name+"."+c, `ALTER TABLE `+t.Name+` DROP COLUMN `+quoted([]string{c})); err != nil {
				return err
			}
		}
	}
	return nil
}

// drop removes something from the copy and lists it as not included.
func (w *writer) drop(ctx context.Context, db *masterdb.DB, what, statement string) error {
	h := &w.result.Head
	h.NotIncluded = append(h.NotIncluded, shorten(what))
	err := db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, statement)
		return err
	})
	if err != nil {
		return fmt.Errorf("leave out the %s: %w", what, err)
	}
	return nil
}

// shorten limits a listed name.
func shorten(name string) string {
	const most = 128
	if runes := []rune(name); len(runes) > most {
		name = string(runes[:most]) + "…"
	}
	return strings.ToValidUTF8(name, "?")
}

// contextReader ends with its context.
type contextReader struct {
	ctx context.Context //nolint:containedctx // of the one call that uses it
	r   io.Reader
}

func (c contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
