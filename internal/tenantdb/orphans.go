package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Orphan is a managed database that belongs to no store. Only its role may be left.
type Orphan struct {
	Name   string                // of the database and its role, or the store id
	Engine credential.EngineName // of the database
	Place  string                // the server or the file, for display
}

// Orphans returns the managed databases of this installation, on the operator's server
// and in the data directory, that have no record. It changes nothing.
func (m *Manager) Orphans(ctx context.Context) ([]Orphan, error) {
	// Credentials are stored before a database is created. Reading the records
	// last therefore excludes new databases.
	found, err := m.orphanFiles()
	if err != nil {
		return nil, err
	}
	if m.opts.Managed != nil {
		made, err := m.made(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.opts.Managed, err)
		}
		found = append(found, made...)
	}
	var known []string
	if err := m.master.Select(ctx, &known, `SELECT database_name FROM store_databases WHERE kind = 'managed'
		UNION SELECT source_name FROM store_moves WHERE finished_at IS NULL UNION SELECT target_name FROM store_moves WHERE finished_at IS NULL`); err != nil {
		return nil, err
	}
	slices.Sort(known)
	return slices.DeleteFunc(found, func(s Orphan) bool {
		_, ok := slices.BinarySearch(known, s.Name)
		return ok
	}), nil
}

// made returns the databases and roles of this installation on the operator's server.
func (m *Manager) made(ctx context.Context) (found []Orphan, err error) {
	prefix, err := m.managedPrefix(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	err = m.withAdmin(func(h host, db *DB) (err error) {
		names, err = h.list(ctx, db, prefix)
		return err
	})
	for _, name := range names {
		if managedName.MatchString(name) {
			found = append(found, Orphan{Name: name, Engine: m.opts.Managed.admin.Engine, Place: m.opts.Managed.String()})
		}
	}
	return found, err
}

// orphanFiles returns the embedded databases in the data directory, including those of
// which only the write-ahead log is left.
func (m *Manager) orphanFiles() (found []Orphan, err error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(m.opts.DataDir), "stores", "??", "*.db*"))
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		id, err := stoa.ParseID[stoa.StoreID](name)
		if err != nil || len(found) > 0 && found[len(found)-1].Name == id.String() {
			continue
		}
		found = append(found, Orphan{Name: id.String(), Engine: credential.SQLite, Place: path})
	}
	return found, err
}

// globEscape escapes the pattern characters in a folder's name.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// DropOrphan deletes an orphan, unless it has been assigned to a store since it
// was found.
func (m *Manager) DropOrphan(ctx context.Context, s Orphan) error {
	var owners int
	if err := m.master.Get(ctx, &owners, `SELECT (SELECT count(*) FROM store_databases WHERE database_name = $1)
		+ (SELECT count(*) FROM store_moves WHERE finished_at IS NULL AND (source_name = $1 OR target_name = $1))`, s.Name); err != nil {
		return err
	}
	if owners > 0 {
		return fmt.Errorf("%s belongs to a store now", s.Name)
	}
	if s.Engine == credential.SQLite {
		id, err := stoa.ParseID[stoa.StoreID](s.Name)
		if err != nil {
			return err
		}
		return m.removeFiles(id)
	}
	if m.opts.Managed == nil || !managedName.MatchString(s.Name) {
		return fmt.Errorf("%.80q is not on the operator's server", s.Name)
	}
	return m.withAdmin(func(h host, db *DB) error { return h.drop(ctx, db, s.Name) })
}

// removeFiles deletes an embedded database and the other files of SQLite, as
// far as they exist.
func (m *Manager) removeFiles(store stoa.StoreID) error {
	path, err := sqliteEngine{dir: m.opts.DataDir}.path(credential.ManagedSQLite(store))
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", partialSuffix} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
