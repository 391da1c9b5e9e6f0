package tenantdb_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// embeddedFile returns the path of a store's embedded database.
func embeddedFile(dir string, store stoa.StoreID) string {
	id := store.String()
	return filepath.Join(dir, "stores", id[len(id)-2:], id+".db")
}

// made creates a new store's embedded database. None of its files is open yet.
func (h *testManager) made(t *testing.T) (stoa.StoreID, credential.Credentials) {
	t.Helper()
	store := h.store(t)
	c := credential.ManagedSQLite(store)
	testkit.Must(t, h.MakeEmbedded(c))
	return store, c
}

func (h *testManager) unleasedAt(t *testing.T, c credential.Credentials) *tenantdb.DB {
	t.Helper()
	db, err := h.OpenUnleased(c)
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, db.Close()) })
	return db
}

// TestEmbeddedDatabaseBeginsMigrated checks that a copy contains what the
// migrations create, and their versions, and that it belongs to no store.
func TestEmbeddedDatabaseBeginsMigrated(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store, c := h.made(t)
	if diff := cmp.Diff(1, len(filesIn(t, h.dir))); diff != "" {
		t.Errorf("files: %v", filesIn(t, h.dir))
	}
	db := h.unleasedAt(t, c)
	got, err := db.Structure(t.Context())
	testkit.Must(t, err)
	want, err := tenantdb.Expected(credential.SQLite)
	testkit.Must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	var versions []int64
	testkit.Must(t, db.Select(t.Context(), &versions, `SELECT version_id FROM `+tenantdb.VersionTable+` WHERE is_applied ORDER BY id`))
	if len(versions) != int(tenantdb.LatestVersion())+1 || versions[len(versions)-1] != tenantdb.LatestVersion() {
		t.Errorf("versions %v", versions)
	}
	var mode string
	testkit.Must(t, db.Get(t.Context(), &mode, `PRAGMA journal_mode`))
	var faults []string
	testkit.Must(t, db.Select(t.Context(), &faults, `PRAGMA integrity_check`))
	if mode != "wal" || len(faults) != 1 || faults[0] != "ok" {
		t.Errorf("journal %s, check %v", mode, faults)
	}
	if marked, err := db.Marked(t.Context(), store); marked || err != nil {
		t.Errorf("marked %t, %v", marked, err)
	}
	testkit.Must(t, db.Mark(t.Context(), store))
	version, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	if version != tenantdb.LatestVersion() {
		t.Errorf("version %d", version)
	}
	testkit.Must(t, h.MakeEmbedded(c)) // a second call keeps the existing file
	if marked, err := db.Marked(t.Context(), store); !marked || err != nil {
		t.Errorf("after a second time: marked %t, %v", marked, err)
	}
	for _, file := range filesIn(t, h.dir) {
		info, err := os.Stat(filepath.Join(h.dir, file))
		testkit.Must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", file, info.Mode())
		}
	}
}

// TestCustomMigrationsRunAfterTheCopy checks that custom migrations run in each
// store after the copy.
func TestCustomMigrationsRunAfterTheCopy(t *testing.T) {
	t.Parallel()
	dir := ownMigrations(t, map[string]string{"sqlite/1_a.sql": up + "CREATE TABLE mine AS SELECT hex(randomblob(16)) AS secret;"})
	own, err := tenantdb.LoadCustomMigrations(dir)
	testkit.Must(t, err)
	h, secrets := setup(t, tenantdb.Options{Custom: own}), map[string]bool{}
	for range 2 {
		_, c := h.made(t)
		db := h.unleasedAt(t, c)
		schema, err := db.MigrateTo(t.Context(), tenantdb.MigrateOptions{})
		testkit.Must(t, err)
		if schema != (tenantdb.Schema{Version: tenantdb.LatestVersion(), Own: 1}) {
			t.Errorf("%+v", schema)
		}
		var secret string
		testkit.Must(t, db.Get(t.Context(), &secret, `SELECT secret FROM mine`))
		secrets[secret] = true
	}
	if len(secrets) != 2 {
		t.Error("two stores share what was meant for one")
	}
}

// TestEmbeddedDatabaseIsMadeOnce checks that concurrent callers create one
// file.
func TestEmbeddedDatabaseIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	for range 5 {
		c := credential.ManagedSQLite(h.store(t))
		errs := make(chan error, 8)
		for range cap(errs) {
			go func() {
				err := h.MakeEmbedded(c)
				if err == nil {
					db, openErr := h.OpenUnleased(c)
					if err = openErr; err == nil {
						_, err = db.Migrate(t.Context())
						_ = db.Close()
					}
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			testkit.Must(t, <-errs)
		}
		if version, err := h.unleasedAt(t, c).SchemaVersion(t.Context()); err != nil || version != tenantdb.LatestVersion() {
			t.Errorf("version %d, %v", version, err)
		}
	}
}

// TestWhatLiesWhereTheCopyGoes checks files that an interruption or another
// process has left: a log without its file is not applied to the copy, an
// incomplete copy is not treated as a database, and all files are removed with
// the store.
func TestWhatLiesWhereTheCopyGoes(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{"-wal", "-journal", "-new"} {
		t.Run(suffix, func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{})
			store := h.store(t)
			c, path := credential.ManagedSQLite(store), embeddedFile(h.dir, store)
			testkit.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
			testkit.Must(t, os.WriteFile(path+suffix, []byte("half of it"), 0o600))
			testkit.Must(t, h.MakeEmbedded(c))
			if _, err := os.Stat(path); !os.IsNotExist(err) {
				t.Errorf("the file was made beside %s: %v", suffix, err)
			}
			db, err := h.OpenUnleased(c)
			testkit.Must(t, err)
			_, err = db.Migrate(t.Context()) // as before templates existed
			testkit.Must(t, err)
			migrated(t, db)
			testkit.Must(t, db.Close())
			testkit.Must(t, h.RemoveEmbedded(store))
			for _, file := range filesIn(t, h.dir) {
				if filepath.Base(file) != "migration-lock" {
					t.Errorf("%s is left", file)
				}
			}
		})
	}
}

// TestEmbeddedDatabaseCannotBeMade checks that a folder that cannot be written
// to is reported as a fault of the store's database.
func TestEmbeddedDatabaseCannotBeMade(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	testkit.Must(t, os.WriteFile(filepath.Join(h.dir, "stores"), nil, 0o600))
	checkEmbeddedFault(t, h.MakeEmbedded(credential.ManagedSQLite(h.store(t))))
}
