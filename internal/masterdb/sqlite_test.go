package masterdb_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSQLiteFilesArePrivate checks that other users can read neither the database, which
// holds password hashes, nor its write-ahead log, which holds the same rows.
func TestSQLiteFilesArePrivate(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	dir := filepath.Join(root, "a", "b")
	db := masterdbtest.Open(t, "sqlite:"+filepath.Join(dir, "master.db"))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)

	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	found := map[string]fs.FileMode{}
	for _, e := range entries {
		info, err := e.Info()
		testkit.Must(t, err)
		found[e.Name()] = info.Mode()
	}
	for _, name := range []string{"master.db", "master.db-wal", "master.db-shm"} {
		if _, ok := found[name]; !ok {
			t.Errorf("there is no %s", name)
		}
	}
	for name, mode := range found {
		if mode != 0o600 {
			t.Errorf("%s has mode %v, want 0600", name, mode)
		}
	}
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if info, err := os.Stat(d); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v, want 0700", d, info.Mode(), err)
		}
	}
}

// TestSQLitePathIsTakenLiterally checks paths with characters that have a meaning in a URI,
// because the path becomes a part of one.
func TestSQLitePathIsTakenLiterally(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"plain.db", "with space.db", "a?mode=memory.db", "per%41cent.db", "sharp#.db", "κύρια.db", "a&b=c;d.db"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			db := masterdbtest.Open(t, "sqlite:"+filepath.Join(dir, name))
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)
			entries, err := os.ReadDir(dir)
			testkit.Must(t, err)
			for _, e := range entries {
				if !strings.HasPrefix(e.Name(), name) {
					t.Errorf("the folder holds %q", e.Name())
				}
			}
			if _, err := os.Stat(filepath.Join(dir, name+"-wal")); err != nil {
				t.Errorf("the database is not at the path: %v", err)
			}
		})
	}
}

// TestSQLiteSharedByProcesses checks that two handles can share one file, like a running
// server and a command. Each transaction reads, then writes.
func TestSQLiteSharedByProcesses(t *testing.T) {
	t.Parallel()
	const handles, workers, rounds = 2, 4, 25
	url := masterdbtest.URL(t, masterdb.SQLite)
	var wg sync.WaitGroup
	for range handles {
		db := masterdbtest.Open(t, url)
		for range workers {
			wg.Go(func() {
				for range rounds {
					err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
						var price int
						const row = ` WHERE service_key = 'storage'`
						if err := tx.Get(t.Context(), &price, `SELECT unit_price FROM service_credit_costs`+row+tx.ForUpdate()); err != nil {
							return err
						}
						_, err := tx.Exec(t.Context(), `UPDATE service_credit_costs SET unit_price = $1`+row, price+1)
						return err
					})
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
	}
	wg.Wait()
	var price int
	testkit.Must(t, masterdbtest.Open(t, url).Get(t.Context(), &price, `SELECT unit_price FROM service_credit_costs WHERE service_key = 'storage'`))
	if want := 100 + handles*workers*rounds; price != want {
		t.Errorf("the counter is %d, want %d: updates were lost", price, want)
	}
}

// TestSQLiteReadsWhileWriting checks that readers do not wait for an open write
// transaction.
func TestSQLiteReadsWhileWriting(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := addPrice(t.Context(), tx, "new", tx.Now); err != nil {
			return err
		}
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				var n int
				if err := db.Get(t.Context(), &n, `SELECT count(*) FROM service_credit_costs WHERE service_key = 'new'`); err != nil || n != 0 {
					t.Errorf("a reader sees %d uncommitted rows, %v", n, err)
				}
			})
		}
		wg.Wait()
		return nil
	}))
}
