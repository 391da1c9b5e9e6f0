package masterbackup

import (
	"context"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// RestoreOptions configure Restore.
type RestoreOptions struct {
	// OnHead is called with what the archive says about itself, before anything is changed.
	// It may be nil. Restore ends if it fails.
	OnHead func(Head) error
	// OnTable is called after each table, with the number of all tables. It may be nil.
	OnTable func(table container.Summary, of int)
	// Finish changes the restored database in the transaction after which it is complete. It
	// may be nil.
	Finish func(ctx context.Context, tx *masterdb.Tx, head Head) error
}

// Restore creates the master database at url, "postgres://…" or "sqlite:PATH", from an
// archive. There may be no other content in the database. Afterwards it has the current
// schema and all rows of the archive, which were compared with their checksums. The
// processes and leases of the time of the backup end when the first server starts.
//
// A Restore that is interrupted leaves nothing on SQLite. On PostgreSQL it leaves a database
// on which no server starts and into which Restore can restore again.
func Restore(ctx context.Context, url string, src io.Reader, opts RestoreOptions, identities ...age.Identity) (Result, error) {
	r, err := newReader(src, identities...)
	if err != nil {
		return Result{}, err
	}
	defer r.in.Close()
	r.opts = opts
	path, isFile := strings.CutPrefix(url, "sqlite:")
	switch {
	case r.head.Engine == masterdb.SQLite && !isFile:
		return Result{}, otherEngine("SQLite", "PostgreSQL")
	case r.head.Engine == masterdb.Postgres && isFile:
		return Result{}, otherEngine("PostgreSQL", "SQLite")
	}
	latest, err := masterdb.LatestVersion()
	if err != nil {
		return Result{}, err
	}
	if err := r.head.checkSchema(latest); err != nil {
		return Result{}, err
	}
	if opts.OnHead != nil {
		if err := opts.OnHead(r.head); err != nil {
			return Result{}, err
		}
	}
	if isFile {
		err = masterdb.CreateFile(ctx, path, func(temporary string) error { return r.sqlite(ctx, temporary) })
	} else {
		err = r.postgres(ctx, url, latest)
	}
	return Result{r.head, r.sums, r.total.Summary("")}, err
}

func otherEngine(of, here string) error {
	return stoa.Errorf(stoa.ArchiveRefused, "The archive is of a master database on %s, and this one is on %s. Configure a new, empty master database on %[1]s, and restore into that.", of, here)
}

// reader reads one archive.
type reader struct {
	in    *container.Reader
	opts  RestoreOptions
	head  Head
	sums  []container.Summary // of the tables that have ended
	total container.Tally
}

func newReader(src io.Reader, identities ...age.Identity) (*reader, error) {
	in, err := container.NewReader(src, format, 0, identities...)
	if err != nil {
		return nil, err
	}
	r := &reader{in: in}
	if err := r.readHead(); err != nil {
		in.Close()
		return nil, err
	}
	return r, nil
}

func (r *reader) readHead() error {
	kind, body, err := r.in.Record()
	if err != nil {
		return err
	}
	if kind != recordHead || len(body) > maxHead {
		return container.Damaged("it has no manifest", nil)
	}
	if err := container.Strict(body, &r.head); err != nil {
		return err
	}
	return r.head.check()
}

// data returns a reader of the content of the current table, or of the SQLite file. At its
// end, sum is the summary of the table that follows.
func (r *reader) data() *dataReader { return &dataReader{archive: r} }

type dataReader struct {
	archive *reader
	block   []byte
	sum     *container.Summary
	err     error // io.EOF at the end
}

func (d *dataReader) Read(p []byte) (int, error) {
	for len(d.block) == 0 && d.err == nil {
		d.next()
	}
	if d.err != nil {
		return 0, d.err
	}
	n := copy(p, d.block)
	d.block = d.block[n:]
	return n, nil
}

func (d *dataReader) next() {
	kind, body, err := d.archive.in.Record()
	switch {
	case err != nil:
		d.err = err
	case kind == recordData:
		d.block = body
	case kind == recordTable:
		if d.sum, d.err = d.archive.summary(body); d.err == nil {
			d.err = io.EOF
		}
	default:
		d.err = container.Damaged("it has a part of an unknown kind, or in the wrong place", nil)
	}
}

// summary reads the summary of the next table.
func (r *reader) summary(body []byte) (*container.Summary, error) {
	var s container.Summary
	if err := container.Strict(body, &s); err != nil {
		return nil, err
	}
	if len(r.sums) == len(r.head.Tables) || s.Table != r.head.Tables[len(r.sums)].Name {
		return nil, container.Damaged("its tables are not those that its manifest names", nil)
	}
	r.sums = append(r.sums, s)
	return &s, nil
}

// end reads the end of the archive, after the last table. The totals must be those of the
// tables that were read.
func (r *reader) end() error {
	kind, body, err := r.in.Record()
	if err != nil {
		return err
	}
	var total container.Summary
	if kind != recordEnd || len(r.sums) != len(r.head.Tables) {
		return container.Damaged("it goes on after its last table, or ends before it", nil)
	}
	if err := container.Strict(body, &total); err != nil {
		return err
	}
	if total != r.total.Summary("") {
		return container.Damaged("its totals are not those of its rows", nil)
	}
	return r.in.End()
}

// compare checks that a table has the rows of the archive.
func (r *reader) compare(got, want container.Summary) error {
	if got == want {
		if r.opts.OnTable != nil {
			r.opts.OnTable(want, len(r.head.Tables))
		}
		return nil
	}
	return stoa.Errorf(stoa.ArchiveRefused, "The table %s has %d rows in the database and %d in the archive, or their content differs. Nothing was restored. "+
		"Take another copy of the archive; if that is the same, another archive.", want.Table, got.Rows, want.Rows)
}

// migrate brings the restored database to the current schema.
func migrate(ctx context.Context, db *masterdb.DB, latest int64) error {
	if err := db.MigrateTo(ctx, latest); err != nil {
		return err
	}
	return jobs.MigrateTo(ctx, db, jobs.LatestVersion())
}

// checkVersions checks that the database has the versions that the manifest names.
func (r *reader) checkVersions(ctx context.Context, db *masterdb.DB) error {
	schema, err := db.Schema(ctx)
	if err != nil {
		return err
	}
	queue, err := jobs.SchemaVersion(ctx, db)
	if err != nil {
		return err
	}
	if schema.Version != r.head.SchemaVersion || queue != r.head.QueueVersion {
		return container.Damaged(fmt.Sprintf("the schema of its content is %d (job queue: %d), and not %d (%d)", schema.Version, queue, r.head.SchemaVersion, r.head.QueueVersion), nil)
	}
	return nil
}
