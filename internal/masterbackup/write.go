package masterbackup

import (
	"context"
	"fmt"
	"io"
	"slices"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
)

// WriteOptions configure Write.
type WriteOptions struct {
	// Sealed are the columns whose values the keyring has encrypted.
	Sealed []keyrotation.Column
	// OnTable is called after each table, with the number of all tables. It may be nil.
	OnTable func(table container.Summary, of int)
}

// Write writes the database, as it is when Write begins, to dst. The archive can be opened
// with the identity of any of the recipients. Nobody waits for it but migrations.
func Write(ctx context.Context, db *masterdb.DB, dst io.Writer, opts WriteOptions, recipients ...age.Recipient) (Result, error) {
	w := &writer{dst: dst, opts: opts, recipients: recipients}
	schema, err := db.Schema(ctx)
	if err != nil {
		return Result{}, err
	}
	if err := schema.Check(); err != nil {
		return Result{}, fmt.Errorf("master database schema: %w", err)
	}
	if schema.Newer() {
		return Result{}, stoa.Errorf(stoa.ArchiveRefused, "The master database has the schema version %d of a newer release than this one (%d). Make the backup with that release.", schema.Version, schema.Binary)
	}
	if err := w.begin(ctx, db, schema); err != nil {
		return Result{}, err
	}
	if db.Engine == masterdb.Postgres {
		err = w.postgres(ctx, db)
	} else {
		err = db.SnapshotFile(ctx, func(path string) error { return w.sqlite(ctx, path) })
	}
	return w.result, err
}

// writer holds the state of one Write.
type writer struct {
	dst        io.Writer
	opts       WriteOptions
	recipients []age.Recipient
	reference  reference
	out        *container.Writer
	result     Result
	total      container.Tally
}

// begin prepares the head, without what depends on the snapshot.
func (w *writer) begin(ctx context.Context, db *masterdb.DB, schema masterdb.Schema) (err error) {
	h := &w.result.Head
	h.Engine, h.SchemaVersion, h.Release = db.Engine, schema.Version, stoa.Version
	if h.QueueVersion, err = jobs.SchemaVersion(ctx, db); err != nil {
		return err
	}
	w.reference, err = newReference(ctx, h.SchemaVersion, h.QueueVersion)
	return err
}

// readHead reads the rest of the head from the snapshot.
func (w *writer) readHead(ctx context.Context, q masterdb.Querier) error {
	h := &w.result.Head
	h.SnapshotAt = time.Now().UTC().Truncate(time.Microsecond)
	version := `SELECT sqlite_version()`
	if h.Engine == masterdb.Postgres {
		version = `SELECT current_setting('server_version')`
	}
	if err := q.Get(ctx, &h.EngineVersion, version); err != nil {
		return err
	}
	counts, err := keyrotation.CountsIn(ctx, q, h.Engine, w.opts.Sealed)
	if err != nil {
		return err
	}
	h.Keys = []string{}
	for _, c := range counts {
		if c.KeyID != "" && !slices.Contains(h.Keys, c.KeyID) {
			h.Keys = append(h.Keys, c.KeyID)
		}
	}
	slices.Sort(h.Keys)
	return nil
}

// open writes the head.
func (w *writer) open() (err error) {
	h := &w.result.Head
	slices.Sort(h.NotIncluded)
	if n := len(h.NotIncluded); n > maxListed {
		h.NotIncluded = append(h.NotIncluded[:maxListed], fmt.Sprintf("%d more", n-maxListed))
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("the head of the archive cannot be written: %w", err)
	}
	if w.out, err = container.NewWriter(w.dst, format, w.recipients...); err != nil {
		return err
	}
	return w.out.WriteJSON(recordHead, h, maxHead)
}

// endTable writes the end of a table.
func (w *writer) endTable(table string, count container.Tally) error {
	sum := count.Summary(table)
	if err := w.out.WriteJSON(recordTable, sum, maxSummary); err != nil {
		return err
	}
	w.result.Tables = append(w.result.Tables, sum)
	w.total.AddAll(count)
	if w.opts.OnTable != nil {
		w.opts.OnTable(sum, len(w.result.Head.Tables))
	}
	return nil
}

// end writes the end of the archive.
func (w *writer) end() error {
	w.result.Total = w.total.Summary("")
	return w.out.Close(recordEnd, w.result.Total, maxSummary)
}

// blockWriter writes content as records.
type blockWriter struct {
	out   *container.Writer
	block []byte
}

func (b *blockWriter) Write(p []byte) (n int, err error) {
	for n < len(p) {
		part := p[n:min(len(p), n+blockSize-len(b.block))]
		b.block = append(b.block, part...)
		n += len(part)
		if len(b.block) == blockSize {
			if err := b.flush(); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

func (b *blockWriter) flush() error {
	if len(b.block) == 0 {
		return nil
	}
	err := b.out.Write(recordData, b.block)
	b.block = b.block[:0]
	return err
}
