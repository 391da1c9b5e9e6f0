package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"modernc.org/sqlite"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// sqliteTemplate returns the file of an embedded database with the built-in
// migrations, which new stores copy. Custom migrations are not in it, because their
// results may differ between stores.
var sqliteTemplate = sync.OnceValues(func() (file []byte, err error) {
	ctx := context.Background()
	connector, err := sqlite.NewConnector("file::memory:")
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	defer pool.Close() //nolint:errcheck // the database is in memory
	pool.SetMaxOpenConns(1)
	builtin, err := sqliteDialect.builtin()
	if err != nil {
		return nil, err
	}
	s := &session{DB: pool, migrator: migrator{dialect: &sqliteDialect}}
	if _, err := s.up(ctx, builtin, VersionTable, 0, nil); err != nil {
		return nil, err
	}
	if _, err := pool.ExecContext(ctx, sqliteDialect.marker); err != nil {
		return nil, err
	}
	err = s.on(ctx, func(_ context.Context, conn *sql.Conn) error {
		return conn.Raw(func(driver any) error {
			file, err = driver.(interface{ Serialize() ([]byte, error) }).Serialize()
			return err
		})
	})
	if err == nil {
		// PRAGMA journal_mode = WAL writes these bytes into a file, but not in
		// memory.
		// Source: sqlite.org/fileformat2.html, 1.3.3.
		const wal, writeVersion, readVersion = 2, 18, 19
		file[writeVersion], file[readVersion] = wal, wal
	}
	return file, err
})

// make creates a new store's file as a copy of the template, which is faster
// than running the migrations. It keeps an existing file. An interrupted copy
// leaves no file of that name, because the file gets its name after its content
// is on disk.
func (e sqliteEngine) make(c credential.Credentials) error {
	path, err := e.path(c)
	if err != nil {
		return err
	}
	// SQLite would apply a log without its file to the next file of that name.
	for _, suffix := range []string{"", "-wal", "-journal"} {
		if _, err := os.Lstat(path + suffix); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	file, err := sqliteTemplate()
	if err != nil {
		return fmt.Errorf("template database: %w", err)
	}
	folder := filepath.Dir(path)
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	draft := path + partialSuffix
	err = writeSynced(draft, file)
	if errors.Is(err, fs.ErrExist) { // of another process, or left from before: SQLite creates the file, empty
		return nil
	}
	defer os.Remove(draft) //nolint:errcheck // removeFiles deletes it with the store at the latest
	if err != nil {
		return err
	}
	// A link, unlike a rename, never replaces a file that SQLite has created
	// meanwhile. If the file system has no links, SQLite creates the file.
	if os.Link(draft, path) != nil {
		return nil
	}
	return syncFolder(folder)
}

// partialSuffix is the suffix of the name of an incomplete copy.
const partialSuffix = "-new"

// writeSynced creates a file that only this user can read and returns when it is on
// disk.
func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // the name comes from a store's id
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncFolder(path string) error {
	f, err := os.Open(path) //nolint:gosec // Stoa's own folder
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
