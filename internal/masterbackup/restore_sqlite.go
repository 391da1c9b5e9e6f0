package masterbackup

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/sqlite"
)

// sqlite fills an empty file with the master of the archive.
func (r *reader) sqlite(ctx context.Context, path string) error {
	if err := r.readFile(ctx, path); err != nil {
		return err
	}
	if err := r.checkFile(ctx, path); err != nil {
		return err
	}
	db, err := masterdb.Open(ctx, "sqlite:"+path)
	if err != nil {
		return err
	}
	defer db.Close()
	if err := r.checkVersions(ctx, db); err != nil {
		return err
	}
	for i, t := range r.head.Tables {
		count, err := liteTally(ctx, db.Writer(), t)
		if err != nil {
			return err
		}
		if err := r.compare(count.Summary(t.Name), r.sums[i]); err != nil {
			return err
		}
	}
	latest, err := masterdb.LatestVersion()
	if err == nil {
		err = migrate(ctx, db, latest)
	}
	if err == nil && r.opts.Finish != nil {
		err = db.Tx(ctx, func(tx *masterdb.Tx) error { return r.opts.Finish(ctx, tx, r.head) })
	}
	if err != nil {
		return err
	}
	db.Close()
	// The file alone becomes the master: nothing may be left in its journal.
	if _, err := os.Stat(path + "-wal"); err == nil {
		return errors.New("the journal of the restored database was not written back")
	}
	return nil
}

// readFile writes the database file of the archive to path, and reads the archive to its
// end.
func (r *reader) readFile(ctx context.Context, path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // the file that this process has made
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // after an error
	data := r.data()
	if _, err := io.Copy(file, contextReader{ctx, data}); err != nil {
		return err
	}
	if err := file.Close(); err != nil {
		return err
	}
	for len(r.sums) < len(r.head.Tables) {
		next := r.data()
		if n, err := io.Copy(io.Discard, contextReader{ctx, next}); err != nil || n > 0 {
			return errors.Join(err, tooLong(n))
		}
	}
	return r.endOfFile()
}

func tooLong(n int64) error {
	if n == 0 {
		return nil
	}
	return container.Damaged("it has rows after its file", nil)
}

// endOfFile reads the end of the archive. Its totals are those of the summaries.
func (r *reader) endOfFile() error {
	for _, s := range r.sums {
		if err := r.total.AddSummary(s); err != nil {
			return container.Damaged("the summary of the table "+s.Table+" cannot be read", err)
		}
	}
	return r.end()
}

// checkFile checks that the file is a database with no other content than what migrations
// create: whoever knows a recipient can make an archive, and a trigger could do anything.
func (r *reader) checkFile(ctx context.Context, path string) error {
	ref, err := newReference(ctx, r.head.SchemaVersion, r.head.QueueVersion)
	if err != nil {
		return err
	}
	handle, err := sqlite.Open(sqlite.Options{Path: path, Begin: "deferred", Mode: "rw", Pragmas: []string{"trusted_schema(0)", "cell_size_check(1)", "query_only(1)"}})
	if err != nil {
		return err
	}
	defer handle.Close() //nolint:errcheck // it was only read
	var verdict string
	if err := handle.QueryRowContext(ctx, `PRAGMA integrity_check(1)`).Scan(&verdict); err != nil || verdict != "ok" {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return container.Damaged("its database file is damaged", errors.Join(err, errors.New(verdict)))
	}
	rows, err := handle.QueryContext(ctx, `SELECT type, name, coalesce(sql, '') FROM sqlite_schema`)
	if err != nil {
		return container.Damaged("its database file cannot be read", err)
	}
	defer rows.Close() //nolint:errcheck // Err reports it
	var found []object
	for rows.Next() {
		var o object
		if err := rows.Scan(&o.Type, &o.Name, &o.SQL); err != nil {
			return err
		}
		found = append(found, o)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return r.checkObjects(ref, found)
}

// checkObjects compares what the file contains with what the migrations create, and with
// what the manifest says.
func (r *reader) checkObjects(ref reference, found []object) error {
	for _, o := range found {
		if !strings.HasPrefix(o.Name, "sqlite_") && !ref.has(o) {
			return stoa.Errorf(stoa.ArchiveRefused, "The archive has the %s %s, which Stoa did not create in this form. It was not made by Stoa.", o.Type, shorten(o.Name))
		}
	}
	for _, o := range ref.objects {
		if o.Type != "index" && !slices.ContainsFunc(found, func(f object) bool { return f.Type == o.Type && f.Name == o.Name }) {
			return container.Damaged("it lacks the "+o.Type+" "+o.Name+", which Stoa creates", nil)
		}
	}
	return sameTables(r.head.Tables, ref.tables)
}

// sameTables checks that the tables of an archive, with their columns, are the expected
// ones.
func sameTables(got, want []Table) error {
	for _, w := range want {
		i := slices.IndexFunc(got, func(t Table) bool { return t.Name == w.Name })
		if i < 0 {
			return container.Damaged("it lacks the table "+w.Name, nil)
		}
		if !slices.Equal(slices.Sorted(slices.Values(got[i].Columns)), slices.Sorted(slices.Values(w.Columns))) {
			return container.Damaged("the columns of the table "+w.Name+" are not those of its schema version", nil)
		}
	}
	if len(got) != len(want) {
		return container.Damaged("it has tables that are not those of its schema version", nil)
	}
	return nil
}
