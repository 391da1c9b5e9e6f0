package masterdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/sqlite"
)

// Path returns the path of the SQLite file, or "" on PostgreSQL.
func (db *DB) Path() string { return db.path }

// SnapshotFile calls fn with the path of a copy of a SQLite master as it is now. The copy
// is beside the master, only this user can read it, and it is removed afterwards. Writers of
// the master do not wait meanwhile. Only one process at a time has a copy.
func (db *DB) SnapshotFile(ctx context.Context, fn func(path string) error) error {
	return withTemporary(ctx, db.path, "-backup", func(path string) error {
		if err := db.vacuumInto(ctx, path); err != nil {
			return db.MapError(ctx, fmt.Errorf("copy the master database: %w", err))
		}
		return fn(path)
	})
}

func (db *DB) vacuumInto(ctx context.Context, path string) error {
	handle, err := sqlite.Open(sqlite.Options{Path: db.path, Begin: "deferred", Mode: "rw", Pragmas: pragmas})
	if err != nil {
		return err
	}
	defer handle.Close() //nolint:errcheck // the copy is complete without it
	_, err = handle.ExecContext(ctx, `VACUUM INTO ?`, path)
	return err
}

// CreateFile creates the SQLite master at path from the file that fn fills. The master
// appears when fn has returned nil and the file is on disk, and not at all otherwise. It
// fails if there is a master at path already, or what could be a part of one.
func CreateFile(ctx context.Context, path string, fn func(temporary string) error) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("create master database: %w", err)
	}
	return withTemporary(ctx, path, "-restore", func(temporary string) error {
		if err := refuseFiles(path); err != nil {
			return err
		}
		if err := fn(temporary); err != nil {
			return err
		}
		if err := syncPath(temporary); err != nil {
			return err
		}
		if err := refuseFiles(path); err != nil {
			return err
		}
		// A link, unlike a rename, replaces no file that appeared meanwhile. Some file systems
		// have no links.
		err := os.Link(temporary, path)
		if errors.Is(err, fs.ErrExist) {
			return fileExists(path)
		}
		if err != nil {
			err = os.Rename(temporary, path)
		}
		if err != nil {
			return fmt.Errorf("create master database: %w", err)
		}
		return syncPath(filepath.Dir(path))
	})
}

// refuseFiles returns an error if there is a master at path. SQLite would read a journal
// without its database as a part of the new one.
func refuseFiles(path string) error {
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); err == nil {
			return fileExists(path + suffix)
		} else if !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("create master database: %w", err)
		}
	}
	return nil
}

func fileExists(path string) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseNotEmpty, "There is a file %s. It was not changed. Move it and the files whose names begin like it to another folder, then try again.", path)
}

// withTemporary calls fn with the path of a new, empty file beside the master at path. The
// file is removed afterwards, and so is what a process that was killed has left.
func withTemporary(ctx context.Context, path, suffix string, fn func(temporary string) error) error {
	temporary := path + suffix
	lock := temporary + "-lock"
	if err := createPrivate(lock); err != nil {
		return fmt.Errorf("lock %s: %w", temporary, err)
	}
	unlock, err := sqlite.TryLock(ctx, sqlite.Options{Path: lock, Mode: "rw"})
	if sqlite.HasCode(err, sqlite3.SQLITE_BUSY) {
		return stoa.Errorf(stoa.PlatformUnavailable, "Another process does the same with this master database. Wait until it has ended.")
	}
	if err != nil {
		return fmt.Errorf("lock %s: %w", temporary, err)
	}
	defer unlock()
	if err := removeTemporary(temporary); err != nil {
		return err
	}
	defer removeTemporary(temporary) //nolint:errcheck // the next call removes what is left
	if err := createPrivate(temporary); err != nil {
		return err
	}
	return fn(temporary)
}

// removeTemporary removes a temporary file and those that SQLite and this package have made
// beside it.
func removeTemporary(path string) error {
	names, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, entry := range names {
		rest, ours := strings.CutPrefix(entry.Name(), filepath.Base(path))
		if !ours || rest == "-lock" || rest != "" && rest[0] != '-' {
			continue
		}
		if err := os.Remove(filepath.Join(filepath.Dir(path), entry.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// syncPath writes a file, or the list of a folder's names, to disk.
func syncPath(path string) error {
	f, err := os.Open(path) //nolint:gosec // the path is configured by the operator
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
