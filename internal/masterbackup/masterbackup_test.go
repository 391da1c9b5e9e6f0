package masterbackup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		a := fill(t, db)
		id, other := newIdentity(t), newIdentity(t)
		want := dump(t, db)
		file, written := backup(t, db, other.Recipient(), id.Recipient())
		if diff := cmp.Diff([]string{"k7"}, written.Head.Keys); diff != "" {
			t.Errorf("keys (-want +got):\n%s", diff)
		}
		if written.Total.Rows == 0 || len(written.Tables) < 50 || written.Head.NotIncluded != nil {
			t.Errorf("written: %+v", written)
		}
		url := emptyURL(t, engine)
		var tables int
		restored, err := Restore(t.Context(), url, iotest.HalfReader(bytes.NewReader(file)), RestoreOptions{OnTable: func(container.Summary, int) { tables++ }}, id)
		testkit.Must(t, err)
		if diff := cmp.Diff(written, restored); diff != "" {
			t.Errorf("result (-written +restored):\n%s", diff)
		}
		if tables != len(written.Tables) {
			t.Errorf("progress of %d tables of %d", tables, len(written.Tables))
		}
		target := masterdbtest.Open(t, url)
		if diff := cmp.Diff(want, dump(t, target)); diff != "" {
			t.Errorf("rows (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(structure(t, db), structure(t, target)); diff != "" {
			t.Errorf("structure (-want +got):\n%s", diff)
		}
		wantMaster(t, target)
		var next [2]int64
		for i, d := range []*masterdb.DB{db, target} {
			logChange(t, d)
			testkit.Must(t, d.Get(t.Context(), &next[i], `SELECT max(id) FROM change_log`))
		}
		if next[0] != next[1] || next[0] < 3 { // two changes were logged before the backup
			t.Errorf("the sequence goes on with %d, and %d after the restore", next[0], next[1])
		}
		ledger := credits.New(target)
		if _, err := ledger.Spend(t.Context(), a.Owner, a.Store, credits.SpendRequest{ServiceKey: "product_translation"}); err != nil {
			t.Errorf("a spend in the restored master: %v", err)
		}
		wantMaster(t, target)
		wantNoFiles(t, db, target)
	})
}

// wantNoFiles checks that no copy of a master is left beside it.
func wantNoFiles(t *testing.T, masters ...*masterdb.DB) {
	t.Helper()
	for _, db := range masters {
		if db.Engine != masterdb.SQLite {
			continue
		}
		names, err := os.ReadDir(filepath.Dir(db.Path()))
		testkit.Must(t, err)
		for _, n := range names {
			if strings.Contains(n.Name(), "-backup") && !strings.HasSuffix(n.Name(), "-backup-lock") || strings.Contains(n.Name(), "-restore") && !strings.HasSuffix(n.Name(), "-restore-lock") {
				t.Errorf("%s is left", n.Name())
			}
		}
	}
}

// TestDamagedArchives restores archives that are not as they were written. Nothing is ever
// restored from one, and the database can still be restored into afterwards.
func TestDamagedArchives(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		id := newIdentity(t)
		file, _ := backup(t, db, id.Recipient())
		url := emptyURL(t, engine)
		restore := func(src io.Reader) error {
			_, err := Restore(t.Context(), url, src, RestoreOptions{}, id)
			return err
		}
		_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, newIdentity(t))
		wantCode(t, err, stoa.ArchiveKeyUnknown)
		for _, at := range []int{len(file) / 3, len(file) - 1} {
			flipped := bytes.Clone(file)
			flipped[at] ^= 1
			wantCode(t, restore(bytes.NewReader(flipped)), stoa.ArchiveDamaged)
		}
		for _, at := range []int{0, 100, len(file) * 2 / 3} {
			wantCode(t, restore(bytes.NewReader(file[:at])), stoa.ArchiveDamaged)
		}
		wantCode(t, restore(bytes.NewReader(append(bytes.Clone(file), 0))), stoa.ArchiveDamaged)
		gone := errors.New("gone")
		if err := restore(io.MultiReader(bytes.NewReader(file[:len(file)/2]), iotest.ErrReader(gone))); !errors.Is(err, gone) {
			t.Errorf("the error is %v, want that of the source", err)
		}
		wantNothing(t, url)
		testkit.Must(t, restore(bytes.NewReader(file)))
		wantMaster(t, masterdbtest.Open(t, url))
	})
}

// wantNothing checks that no server would start on the database.
func wantNothing(t *testing.T, url string) {
	t.Helper()
	if path, ok := strings.CutPrefix(url, "sqlite:"); ok {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("there is a master database: %v", err)
		}
		return
	}
	db := masterdbtest.Open(t, url)
	var objects int
	testkit.Must(t, db.Get(t.Context(), &objects, `SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace`))
	if objects == 0 {
		t.Error("no restore has begun")
	}
	if _, err := db.Migrate(t.Context()); !errors.Is(err, masterdb.ErrRestoreIncomplete) {
		t.Errorf("a server would start: %v", err)
	}
	var users int
	if err := db.Get(t.Context(), &users, `SELECT count(*) FROM users`); err == nil && users > 0 {
		t.Errorf("%d users of an incomplete archive", users)
	}
}

// forge rewrites the records of an archive.
func forge(t *testing.T, file []byte, id *age.X25519Identity, version int, change func(kind byte, body []byte) []byte) []byte {
	t.Helper()
	in, err := container.NewReader(bytes.NewReader(file), format, 0, id)
	testkit.Must(t, err)
	defer in.Close()
	var b bytes.Buffer
	f := format
	f.Version = version
	out, err := container.NewWriter(&b, f, id.Recipient())
	testkit.Must(t, err)
	for {
		kind, body, err := in.Record()
		testkit.Must(t, err)
		if kind == recordEnd {
			testkit.Must(t, out.Close(kind, json.RawMessage(change(kind, body)), maxSummary))
			return b.Bytes()
		}
		if body = change(kind, body); body != nil {
			testkit.Must(t, out.Write(kind, body))
		}
	}
}

// editHead returns a change of the head for forge.
func editHead(t *testing.T, edit func(*Head)) func(byte, []byte) []byte {
	t.Helper()
	return func(kind byte, body []byte) []byte {
		if kind != recordHead {
			return body
		}
		var h Head
		testkit.Must(t, json.Unmarshal(body, &h))
		edit(&h)
		out, err := json.Marshal(h)
		testkit.Must(t, err)
		return out
	}
}

// TestForgedArchives restores archives that somebody made who knows the recipient.
func TestForgedArchives(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		id := newIdentity(t)
		file, _ := backup(t, db, id.Recipient())
		url := emptyURL(t, engine)
		other := map[masterdb.Engine]masterdb.Engine{masterdb.SQLite: masterdb.Postgres, masterdb.Postgres: masterdb.SQLite}[engine]
		seenTables := 0
		for name, c := range map[string]struct {
			version int
			change  func(byte, []byte) []byte
			code    stoa.Code
		}{
			"newer format":                  {FormatVersion + 1, func(_ byte, b []byte) []byte { return b }, stoa.ArchiveTooNew},
			"newer schema":                  {1, editHead(t, func(h *Head) { h.SchemaVersion++ }), stoa.ArchiveTooNew},
			"newer queue":                   {1, editHead(t, func(h *Head) { h.QueueVersion++ }), stoa.ArchiveTooNew},
			"older schema than its content": {1, editHead(t, func(h *Head) { h.SchemaVersion -= 2 }), ""},
			"other engine":                  {1, editHead(t, func(h *Head) { h.Engine = other }), stoa.ArchiveRefused},
			"unknown engine":                {1, editHead(t, func(h *Head) { h.Engine = "oracle" }), stoa.ArchiveDamaged},
			"SQL as a name":                 {1, editHead(t, func(h *Head) { h.Tables[0].Name = `users"; DROP TABLE users; --` }), stoa.ArchiveDamaged},
			"SQL as a column":               {1, editHead(t, func(h *Head) { h.Tables[0].Columns[0] = `id), (SELECT 1` }), stoa.ArchiveDamaged},
			"a table less":                  {1, editHead(t, func(h *Head) { h.Tables = h.Tables[1:] }), stoa.ArchiveDamaged},
			"a column less":                 {1, editHead(t, func(h *Head) { h.Tables[0].Columns = h.Tables[0].Columns[1:] }), stoa.ArchiveDamaged},
			"a table more":                  {1, editHead(t, func(h *Head) { h.Tables = append(h.Tables, Table{"more", []string{"id"}}) }), stoa.ArchiveDamaged},
			"no tables":                     {1, editHead(t, func(h *Head) { h.Tables = nil }), stoa.ArchiveDamaged},
			"no rows": {1, func(kind byte, b []byte) []byte {
				if kind == recordData {
					return nil
				}
				return b
			}, stoa.ArchiveDamaged},
			"another checksum": {1, func(kind byte, b []byte) []byte {
				var s container.Summary
				if kind != recordTable || json.Unmarshal(b, &s) != nil || s.Table != "users" {
					return b
				}
				s.Rows++
				b, _ = json.Marshal(s)
				return b
			}, stoa.ArchiveDamaged},
			"a summary less": {1, func(kind byte, b []byte) []byte {
				if kind == recordTable {
					if seenTables++; seenTables == 5 {
						return nil
					}
				}
				return b
			}, stoa.ArchiveDamaged},
			"unknown member": {1, func(kind byte, b []byte) []byte {
				if kind == recordHead {
					return []byte(strings.Replace(string(b), `{"engine"`, `{"x":1,"engine"`, 1))
				}
				return b
			}, stoa.ArchiveDamaged},
		} {
			_, err := Restore(t.Context(), url, bytes.NewReader(forge(t, file, id, c.version, c.change)), RestoreOptions{}, id)
			if c.code == "" {
				if err == nil {
					t.Errorf("%s is restored", name)
				}
				continue
			}
			if stoa.CodeOf(err) != c.code {
				t.Errorf("%s: %v, want %s", name, err, c.code)
			}
		}
		_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, id)
		testkit.Must(t, err)
	})
}

// TestOnlyIntoAnEmptyDatabase restores into databases that have content.
func TestOnlyIntoAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		id := newIdentity(t)
		file, _ := backup(t, db, id.Recipient())
		restore := func(url string) error {
			_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, id)
			return err
		}
		before := dump(t, db)
		if engine == masterdb.SQLite {
			path := db.Path()
			wantCode(t, restore("sqlite:"+path), stoa.DatabaseNotEmpty, path)
			dir := t.TempDir()
			for _, suffix := range []string{"", "-wal", "-journal"} { // even when it is empty
				path := filepath.Join(dir, "m"+suffix+".db")
				testkit.Must(t, os.WriteFile(path+suffix, nil, 0o600))
				wantCode(t, restore("sqlite:"+path), stoa.DatabaseNotEmpty, path+suffix)
			}
		} else {
			url := db.Sessions().Config().ConnString()
			wantCode(t, restore(url), stoa.DatabaseNotEmpty, "8 users and 1 stores")
			for _, foreign := range []string{`CREATE TABLE theirs (id int)`, `CREATE VIEW theirs AS SELECT 1`, `CREATE SEQUENCE theirs`, `CREATE FUNCTION theirs() RETURNS int LANGUAGE sql AS 'SELECT 1'`, `CREATE TYPE theirs AS ENUM ('a')`} {
				url := emptyURL(t, engine)
				other := masterdbtest.Open(t, url)
				exec(t, other, foreign)
				wantCode(t, restore(url), stoa.DatabaseNotEmpty, "theirs")
				other.Close()
			}
		}
		if diff := cmp.Diff(before, dump(t, db)); diff != "" {
			t.Errorf("the refused restore changed the database (-before +after):\n%s", diff)
		}
	})
}

// TestForeignObjectsAreLeftOut makes a backup of a master to which somebody has added tables,
// columns and triggers.
func TestForeignObjectsAreLeftOut(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		want := structure(t, db)
		exec(t, db, `CREATE TABLE "Their ""table""" (id integer PRIMARY KEY)`)
		exec(t, db, `ALTER TABLE users ADD COLUMN "their column" text`)
		exec(t, db, `CREATE VIEW their_view AS SELECT 1`)
		listed := []string{`column users.their column`, `table Their "table"`}
		if engine == masterdb.SQLite {
			exec(t, db, `CREATE TRIGGER their_trigger AFTER INSERT ON users BEGIN DELETE FROM sessions; END`)
			listed = append(listed, "trigger their_trigger", "view their_view")
		}
		id := newIdentity(t)
		file, written := backup(t, db, id.Recipient())
		if diff := cmp.Diff(listed, written.Head.NotIncluded); diff != "" {
			t.Errorf("not included (-want +got):\n%s", diff)
		}
		url := emptyURL(t, engine)
		_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, id)
		testkit.Must(t, err)
		target := masterdbtest.Open(t, url)
		wantMaster(t, target)
		if engine == masterdb.Postgres { // SQLite rewrites the text of an altered table
			if diff := cmp.Diff(want, structure(t, target)); diff != "" {
				t.Errorf("structure (-want +got):\n%s", diff)
			}
		}
	})
}

// TestWritesMeanwhile makes backups while credits are spent. Each has a consistent ledger.
func TestWritesMeanwhile(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		id := newIdentity(t)
		ctx, stop := context.WithCancel(t.Context())
		var writers sync.WaitGroup
		for range 3 {
			a := creditstest.New(t, db)
			a.Give(t, 1_000_000*credits.Credit)
			writers.Go(func() {
				for ctx.Err() == nil {
					if _, err := a.Ledger.Spend(ctx, a.Owner, a.Store, credits.SpendRequest{ServiceKey: "product_translation"}); err != nil && ctx.Err() == nil {
						t.Errorf("a spend during the backup: %v", err)
					}
					<-time.After(5 * time.Millisecond) // the machine has other tests to run
				}
			})
		}
		var rows []int64
		for range 3 {
			file, written := backup(t, db, id.Recipient())
			i := slices.IndexFunc(written.Tables, func(s container.Summary) bool { return s.Table == "credit_transactions" })
			rows = append(rows, written.Tables[i].Rows)
			url := emptyURL(t, engine)
			_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, id)
			testkit.Must(t, err)
			wantMaster(t, masterdbtest.Open(t, url))
		}
		stop()
		writers.Wait()
		if rows[0] >= rows[1] || rows[1] >= rows[2] {
			t.Errorf("nothing was written meanwhile: %v", rows)
		}
	})
}

// TestInterruptedRestore ends restores at each of their steps, and restores again.
func TestInterruptedRestore(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		db := masterdbtest.Open(t, masterdbtest.URL(t, engine))
		fill(t, db)
		id := newIdentity(t)
		file, _ := backup(t, db, id.Recipient())
		url := emptyURL(t, engine)
		stop := errors.New("stop")
		ctx, cancel := context.WithCancel(t.Context())
		_, err := Restore(ctx, url, bytes.NewReader(file), RestoreOptions{OnTable: func(container.Summary, int) { cancel() }}, id)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
		wantNothing(t, url)
		_, err = Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{Finish: func(_ context.Context, tx *masterdb.Tx, _ Head) error {
			if _, err := tx.Exec(t.Context(), `DELETE FROM sessions`); err != nil {
				return err
			}
			return stop
		}}, id)
		if !errors.Is(err, stop) {
			t.Errorf("the error is %v", err)
		}
		if engine == masterdb.SQLite {
			wantNothing(t, url)
		} else if _, err := masterdbtest.Open(t, url).Migrate(t.Context()); !errors.Is(err, masterdb.ErrRestoreIncomplete) {
			t.Errorf("a server would start: %v", err)
		}
		// Another restore at the same time is refused.
		_, err = Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{Finish: func(ctx context.Context, tx *masterdb.Tx, h Head) error {
			_, err := Restore(ctx, url, bytes.NewReader(file), RestoreOptions{}, id)
			wantCode(t, err, stoa.PlatformUnavailable, "Another process")
			_, err = tx.Exec(ctx, `UPDATE users SET first_name = $1`, h.Release)
			return err
		}}, id)
		testkit.Must(t, err)
		target := masterdbtest.Open(t, url)
		wantMaster(t, target)
		wantNoFiles(t, target)
		var names []string
		testkit.Must(t, target.Select(t.Context(), &names, `SELECT DISTINCT first_name FROM users`))
		if !slices.Equal(names, []string{stoa.Version}) {
			t.Errorf("Finish has not changed the users: %v", names)
		}
	})
}

// TestOlderSchema restores an archive that an older release has written.
func TestOlderSchema(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, engine masterdb.Engine) {
		t.Helper()
		const version = 33
		if engine == masterdb.SQLite {
			testkit.Must(t, os.MkdirAll(filepath.Join(t.TempDir(), "new"), 0o700))
		}
		old := masterdbtest.Open(t, emptyURL(t, engine))
		testkit.Must(t, old.MigrateTo(t.Context(), version))
		testkit.Must(t, migrateQueue(t.Context(), old))
		exec(t, old, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at) VALUES ($1, 'a@example.com', 'x', 'A', 'B', $2, $2)`, stoa.NewID[stoa.UserID](), old.Now())
		id := newIdentity(t)
		var b bytes.Buffer
		w := &writer{dst: &b, recipients: recipients(id)}
		schema, err := old.Schema(t.Context())
		testkit.Must(t, err)
		testkit.Must(t, w.begin(t.Context(), old, schema))
		if engine == masterdb.Postgres {
			err = w.postgres(t.Context(), old)
		} else {
			err = old.SnapshotFile(t.Context(), func(path string) error { return w.sqlite(t.Context(), path) })
		}
		testkit.Must(t, err)
		_, err = Write(t.Context(), old, io.Discard, WriteOptions{}, id.Recipient())
		if !errors.Is(err, masterdb.ErrSchemaTooOld) {
			t.Errorf("a backup of a schema that is too old: %v", err)
		}
		url := emptyURL(t, engine)
		_, err = Restore(t.Context(), url, &b, RestoreOptions{}, id)
		testkit.Must(t, err)
		target := masterdbtest.Open(t, url)
		schema, err = target.Schema(t.Context())
		testkit.Must(t, err)
		testkit.Must(t, schema.Check())
		if diff := cmp.Diff(structure(t, masterdbtest.Open(t, masterdbtest.URL(t, engine))), structure(t, target)); diff != "" {
			t.Errorf("structure (-new +restored):\n%s", diff)
		}
		var users int
		testkit.Must(t, target.Get(t.Context(), &users, `SELECT count(*) FROM users`))
		if users != 1 {
			t.Errorf("%d users", users)
		}
	})
}

// TestForgedFile restores a SQLite file with a trigger that Stoa did not make.
func TestForgedFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		statement string
		code      stoa.Code
		words     string
	}{
		"trigger":           {`CREATE TRIGGER evil AFTER INSERT ON users BEGIN UPDATE users SET role = 'operator'; END`, stoa.ArchiveRefused, "trigger evil"},
		"changed trigger":   {`DROP TRIGGER credit_transactions_no_update; CREATE TRIGGER credit_transactions_no_update BEFORE UPDATE ON credit_transactions BEGIN SELECT 1; END`, stoa.ArchiveRefused, "trigger credit_transactions_no_update"},
		"trigger less":      {`DROP TRIGGER credit_transactions_no_delete`, stoa.ArchiveDamaged, "lacks the trigger"},
		"view":              {`CREATE VIEW evil AS SELECT * FROM users`, stoa.ArchiveRefused, "view evil"},
		"table":             {`CREATE TABLE evil (id)`, stoa.ArchiveRefused, "table evil"},
		"view for a table":  {`DROP TABLE subscriptions; CREATE VIEW subscriptions AS SELECT 1 AS id`, stoa.ArchiveRefused, "view subscriptions"},
		"index in addition": {`CREATE INDEX evil ON users (first_name)`, stoa.ArchiveRefused, "index evil"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
			fill(t, db)
			id := newIdentity(t)
			file, _ := backup(t, db, id.Recipient())
			exec(t, db, c.statement)
			var changed []byte
			testkit.Must(t, db.SnapshotFile(t.Context(), func(path string) (err error) {
				changed, err = os.ReadFile(path)
				return err
			}))
			file = forge(t, file, id, 1, func(kind byte, body []byte) []byte {
				if kind != recordData {
					return body
				}
				n := min(blockSize, len(changed))
				body, changed = changed[:n], changed[n:]
				return body
			})
			if len(changed) > 0 {
				t.Fatalf("%d bytes do not fit", len(changed))
			}
			url := emptyURL(t, masterdb.SQLite)
			_, err := Restore(t.Context(), url, bytes.NewReader(file), RestoreOptions{}, id)
			wantCode(t, err, c.code, c.words)
			wantNothing(t, url)
		})
	}
}
