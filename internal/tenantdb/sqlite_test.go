package tenantdb_test

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// filesIn lists the files under dir.
func filesIn(t *testing.T, dir string) (files []string) {
	t.Helper()
	testkit.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			relative, _ := filepath.Rel(dir, path)
			files = append(files, relative)
		}
		return err
	}))
	return files
}

// openEmbedded opens a database under dir and closes it at the end of the test.
func openEmbedded(t *testing.T, dir, name string) (*tenantdb.DB, error) {
	t.Helper()
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{DataDir: dir})
	t.Cleanup(func() { testkit.Must(t, m.Close(context.Background())) }) // the test's context is done by now
	db, err := m.OpenUnleased(credential.Credentials{Kind: credential.Managed, Engine: credential.SQLite, Database: name})
	if err == nil {
		t.Cleanup(func() { testkit.Must(t, db.Close()) })
	}
	return db, err
}

// TestSQLitePath checks that the path of the file depends only on a store's id.
func TestSQLitePath(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{
		"", "x", "../x", "..", "/etc/passwd", ":memory:", "file::memory:", "../../../../../../../../../etc/passwd",
		"aaaaaaaa-aaaa-aaaa-aaaa-../../../../", "%2e%2e%2f%2e%2e%2f%2e%2e%2f%2e%2e%2f", "{0193b2f4-0000-7000-8000-00000000000a}",
		"urn:uuid:0193b2f4-0000-7000-8000-00000000000a", "0193b2f400007000800000000000000a", "0193b2f4-0000-7000-8000-00000000000a ",
	} {
		if _, err := openEmbedded(t, dir, name); err == nil {
			t.Errorf("%q opens", name)
		}
	}
	if files := filesIn(t, dir); len(files) > 0 {
		t.Errorf("made %v", files)
	}

	store, err := stoa.ParseID[stoa.StoreID]("0193b2f4-0000-7000-8000-0000000000ab")
	testkit.Must(t, err)
	for _, name := range []string{store.String(), strings.ToUpper(store.String())} {
		db, err := openEmbedded(t, dir, name)
		testkit.Must(t, err)
		testkit.Must(t, exec(t, db, `CREATE TABLE IF NOT EXISTS a (n integer)`))
	}
	want := filepath.Join("stores", "ab", store.String()+".db")
	if diff := cmp.Diff([]string{want, want + "-shm", want + "-wal"}, filesIn(t, dir)); diff != "" {
		t.Error(diff)
	}
}

// TestSQLiteFolderName checks that a folder's name may contain characters that
// have a meaning in a URL.
func TestSQLiteFolderName(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a b?mode=memory&c#d%2f'e")
	db, err := openEmbedded(t, dir, stoa.NewID[stoa.StoreID]().String())
	testkit.Must(t, err)
	testkit.Must(t, exec(t, db, `CREATE TABLE a (n integer)`))
	if files := filesIn(t, dir); len(files) != 3 {
		t.Errorf("got %v", files)
	}
}

// TestSQLiteFilesArePrivate checks that only the process's own user can read a
// store's files.
func TestSQLiteFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "data")
	db, err := openEmbedded(t, dir, stoa.NewID[stoa.StoreID]().String())
	testkit.Must(t, err)
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		testkit.Must(t, err)
		info, err := d.Info()
		testkit.Must(t, err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	}))
}

func TestSQLiteFaults(t *testing.T) {
	t.Parallel()
	t.Run("folder is a file", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		testkit.Must(t, os.WriteFile(filepath.Join(dir, "stores"), nil, 0o600))
		_, err := openEmbedded(t, dir, stoa.NewID[stoa.StoreID]().String())
		checkEmbeddedFault(t, err)
	})
	t.Run("file is a folder", func(t *testing.T) {
		t.Parallel()
		dir, id := t.TempDir(), stoa.NewID[stoa.StoreID]().String()
		testkit.Must(t, os.MkdirAll(filepath.Join(dir, "stores", id[34:], id+".db"), 0o700))
		db, err := openEmbedded(t, dir, id)
		testkit.Must(t, err)
		checkEmbeddedFault(t, db.Ping(t.Context()))
	})
	t.Run("not a database", func(t *testing.T) {
		t.Parallel()
		dir, id := t.TempDir(), stoa.NewID[stoa.StoreID]().String()
		testkit.Must(t, os.MkdirAll(filepath.Join(dir, "stores", id[34:]), 0o700))
		testkit.Must(t, os.WriteFile(filepath.Join(dir, "stores", id[34:], id+".db"), []byte(strings.Repeat("something else ", 100)), 0o600))
		db, err := openEmbedded(t, dir, id)
		testkit.Must(t, err)
		checkEmbeddedFault(t, db.Ping(t.Context()))
		var n int
		checkEmbeddedFault(t, db.Get(t.Context(), &n, `SELECT 1`))
	})
}

func checkEmbeddedFault(t *testing.T, err error) {
	t.Helper()
	if stoa.CodeOf(err) != stoa.DatabaseUnreachable {
		t.Errorf("got %v, want database_unreachable", err)
	}
}
