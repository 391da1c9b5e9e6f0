package tenantdb_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// ownMigrations creates a folder of custom migrations with the given files for
// each dialect.
func ownMigrations(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		testkit.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		testkit.Must(t, os.WriteFile(path, []byte(text), 0o600))
	}
	return dir
}

const up = "-- +goose Up\n"

// TestCustomMigrationsAreChecked checks that faults in the folder are reported
// when it is read, with the name of the file.
func TestCustomMigrationsAreChecked(t *testing.T) {
	t.Parallel()
	if own, err := tenantdb.LoadCustomMigrations(""); own != nil || err != nil || own.Latest() != 0 {
		t.Errorf("none: %v %v", own, err)
	}
	for name, tt := range map[string]struct {
		files  map[string]string
		latest int64
		want   string
	}{
		"good":             {map[string]string{"sqlite/00001_a.sql": up, "sqlite/00007_b.sql": up, "mysql/1_x.sql": up, "mysql/7_y.sql": up}, 7, ""},
		"one dialect":      {map[string]string{"postgres/20260101120000_a.sql": up, "README.md": "x"}, 20260101120000, ""},
		"empty":            {nil, 0, "none of the folders"},
		"other versions":   {map[string]string{"sqlite/1_a.sql": up, "mysql/2_a.sql": up}, 0, "differ"},
		"one more":         {map[string]string{"sqlite/1_a.sql": up, "mysql/1_a.sql": up, "mysql/2_a.sql": up}, 0, "differ"},
		"same twice":       {map[string]string{"sqlite/1_a.sql": up, "sqlite/01_b.sql": up}, 0, "version 1"},
		"not a migration":  {map[string]string{"sqlite/1_a.sql": up, "sqlite/notes.txt": ""}, 0, "notes.txt"},
		"Go code":          {map[string]string{"sqlite/1_a.go": up}, 0, "1_a.go"},
		"without a number": {map[string]string{"sqlite/a.sql": up}, 0, "a.sql"},
		"version 0":        {map[string]string{"sqlite/0_a.sql": up}, 0, "0_a.sql"},
		"no annotation":    {map[string]string{"sqlite/1_a.sql": "CREATE TABLE a (n integer);"}, 0, "+goose Up"},
		"a folder":         {map[string]string{"sqlite/1_a.sql/x": ""}, 0, "1_a.sql"},
		"empty dialect":    {map[string]string{"sqlite/1_a.sql": up, "mysql": ""}, 0, "mysql"},
	} {
		own, err := tenantdb.LoadCustomMigrations(ownMigrations(t, tt.files))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) || own.Latest() != tt.latest {
			t.Errorf("%s: %d, %v", name, own.Latest(), err)
		}
	}
	if _, err := tenantdb.LoadCustomMigrations(filepath.Join(t.TempDir(), "no")); err == nil {
		t.Error("a folder that is not there is accepted")
	}
}

// opened does the same as tenantdbtest.Open with custom migrations.
func opened(t *testing.T, c credential.Credentials, dataDir, ownDir string) *tenantdb.DB {
	t.Helper()
	own, err := tenantdb.LoadCustomMigrations(ownDir)
	testkit.Must(t, err)
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{
		DataDir: dataDir, Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: tenantdbtest.SupabaseRules(), Custom: own,
	})
	t.Cleanup(func() { testkit.Must(t, m.Close(context.Background())) })
	db, err := m.OpenUnleased(c)
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, db.Close()) })
	return db
}

// TestCustomMigrationsResume interrupts custom migrations after each statement and
// between statements, and checks that the final result is the same as without
// an interruption.
func TestCustomMigrationsResume(t *testing.T) {
	t.Parallel()
	const table, row = up + "CREATE TABLE IF NOT EXISTS notes (id integer PRIMARY KEY, body char(200));", "INTO notes VALUES (1, 'one');"
	dir := ownMigrations(t, map[string]string{
		"sqlite/1_notes.sql": table, "postgres/1_notes.sql": table, "mysql/1_notes.sql": table,
		"sqlite/2_row.sql": up + "INSERT " + row, "postgres/2_row.sql": up + "INSERT " + row, "mysql/2_row.sql": up + "REPLACE " + row,
		"sqlite/3_index.sql":   up + "CREATE INDEX notes_body ON notes (body);",
		"postgres/3_index.sql": "-- +goose NO TRANSACTION\n" + up + "CREATE INDEX CONCURRENTLY IF NOT EXISTS notes_body ON notes (body);",
		"mysql/3_index.sql":    up + "ALTER TABLE notes ADD COLUMN IF NOT EXISTS more integer;",
	})
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c, data := tenantdbtest.Create(t, engine), t.TempDir()
			_, err := opened(t, c, data, "").Migrate(t.Context())
			testkit.Must(t, err)
			db, interrupted := opened(t, c, data, dir), 0
			for n := int32(1); !interrupt(t, db, n); n += 1 + n/8 {
				interrupted++
			}
			if interrupted < 10 {
				t.Errorf("interrupted only %d times", interrupted)
			}
			schema, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{})
			testkit.Must(t, err)
			if want := (tenantdb.Schema{Version: tenantdb.LatestVersion(), Own: 3}); schema != want {
				t.Errorf("%+v", schema)
			}
			var rows int
			testkit.Must(t, db.Get(t.Context(), &rows, `SELECT count(*) FROM notes`))
			if rows != 1 {
				t.Errorf("%d rows", rows)
			}
		})
	}
}

// TestMigrateTo checks that migrations are applied up to the requested version,
// and that an error of Before prevents any write.
func TestMigrateTo(t *testing.T) {
	t.Parallel()
	dir := ownMigrations(t, map[string]string{"postgres/1_a.sql": up + "CREATE TABLE notes (n integer);", "mysql/1_a.sql": up + "CREATE TABLE notes (n integer);"})
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c, data := tenantdbtest.Create(t, engine), t.TempDir()
			if engine == credential.SQLite { // the folder has no migrations for SQLite
				db := opened(t, c, data, dir)
				if _, err := db.Migrate(t.Context()); stoa.CodeOf(err) != stoa.MigrationFailed || !strings.Contains(err.Error(), `"sqlite"`) {
					t.Errorf("%v", err)
				}
				if in, err := db.Inspect(t.Context()); err != nil || len(in.Tables) != 0 {
					t.Errorf("%+v %v", in, err)
				}
				return
			}
			db, no := opened(t, c, data, dir), errors.New("no")
			_, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{Before: func(ctx context.Context, db *tenantdb.DB) error {
				return errors.Join(db.Ping(ctx), no)
			}})
			if !errors.Is(err, no) {
				t.Errorf("%v", err)
			}
			if in, err := db.Inspect(t.Context()); err != nil || len(in.Tables) != 0 {
				t.Errorf("%+v %v", in, err)
			}
			for _, tt := range []struct {
				to   int64
				want tenantdb.Schema
			}{{3, tenantdb.Schema{Version: 3}}, {2, tenantdb.Schema{Version: 3}}, {0, tenantdb.Schema{Version: tenantdb.LatestVersion(), Own: 1}}} {
				got, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{To: tt.to})
				if err != nil || got != tt.want {
					t.Errorf("to %d: %+v, %v", tt.to, got, err)
				}
			}
		})
	}
}

// TestMigrationsThatWriteRowsRunOnce checks that concurrent callers take turns.
// A migration that only writes rows leaves nothing in the schema that would
// prevent a second run.
func TestMigrationsThatWriteRowsRunOnce(t *testing.T) {
	t.Parallel()
	first, files := map[string]string{}, map[string]string{}
	for _, folder := range []string{"sqlite", "postgres", "mysql"} {
		first[folder+"/1_notes.sql"] = up + "CREATE TABLE notes (body char(200));"
		files[folder+"/1_notes.sql"] = first[folder+"/1_notes.sql"]
		for _, n := range []string{"2", "3", "4", "5"} {
			files[folder+"/"+n+"_row.sql"] = up + "INSERT INTO notes VALUES ('" + n + "');"
		}
	}
	// The pause is longer than the callers need to connect, so they overlap.
	files["postgres/2_row.sql"] = up + "SELECT pg_sleep(0.3);\nINSERT INTO notes VALUES ('2');"
	begun, dir := ownMigrations(t, first), ownMigrations(t, files)
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c, data := tenantdbtest.Create(t, engine), t.TempDir()
			_, err := opened(t, c, data, begun).Migrate(t.Context())
			testkit.Must(t, err)
			const callers = 6
			errs, start := make(chan error, callers), make(chan struct{})
			for range callers {
				db := opened(t, c, data, dir)
				go func() {
					<-start
					_, err := db.Migrate(t.Context())
					errs <- err
				}()
			}
			close(start)
			for range callers {
				testkit.Must(t, <-errs)
			}
			var rows int
			testkit.Must(t, opened(t, c, data, "").Get(t.Context(), &rows, `SELECT count(*) FROM notes`))
			if rows != 4 {
				t.Errorf("%d rows, want each once", rows)
			}
		})
	}
}
