package sqlite_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa/internal/sqlite"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestOpenAtOnce opens a new file from many pools at the same moment, each of which
// switches it to WAL.
func TestOpenAtOnce(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "a file with 100% ?odd#name.db")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			db, err := sqlite.Open(sqlite.Options{Path: path, Begin: "immediate", Pragmas: []string{"journal_mode(WAL)"}})
			if err != nil {
				t.Error(err)
				return
			}
			if err := errors.Join(db.PingContext(t.Context()), db.Close()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	_, err := os.Stat(path)
	testkit.Must(t, err)
}

// TestOpenMissing checks that the mode rw creates no file, and that Retry decides how
// often to try.
func TestOpenMissing(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing.db")
	attempts := 0
	db, err := sqlite.Open(sqlite.Options{Path: path, Mode: "rw", Begin: "deferred", Retry: func(_ error, attempt int) bool {
		attempts = attempt
		return attempt < 3
	}})
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing was opened
	if err := db.PingContext(t.Context()); !sqlite.HasCode(err, sqlite3.SQLITE_CANTOPEN) || attempts != 3 {
		t.Errorf("%v after %d attempts, want SQLITE_CANTOPEN after 3", err, attempts)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file was created")
	}
}

// TestLock checks that one holder at a time has a lock, and that a wait ends with its
// context.
func TestLock(t *testing.T) {
	t.Parallel()
	o := sqlite.Options{Path: filepath.Join(t.TempDir(), "lock")}
	unlock, err := sqlite.TryLock(t.Context(), o)
	testkit.Must(t, err)
	if _, err := sqlite.TryLock(t.Context(), o); !sqlite.HasCode(err, sqlite3.SQLITE_BUSY) {
		t.Errorf("%v, want SQLITE_BUSY", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := sqlite.Lock(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	unlock()

	var holders, n atomic.Int32
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			for range 5 {
				unlock, err := sqlite.Lock(t.Context(), o)
				if err != nil {
					t.Error(err)
					return
				}
				if now := holders.Add(1); now != 1 {
					t.Errorf("%d holders", now)
				}
				holders.Add(-1)
				n.Add(1)
				unlock()
			}
		})
	}
	wg.Wait()
	if n.Load() != 25 {
		t.Errorf("held %d times, want 25", n.Load())
	}
}
