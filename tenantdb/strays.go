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
)

// Stray is a managed database that no store has. Its role may be all that is
// left of it.
type Stray struct {
	Name   string     // of the database and its role, or the store's id
	Engine EngineName // where it is
	Place  string     // the server or the file, for people
}

// Strays finds the managed databases of this installation, on the operator's
// server and in the data directory, that the registry does not know. It
// changes nothing.
func (m *Manager) Strays(ctx context.Context) ([]Stray, error) {
	// Credentials are stored before anything is made: to look at the registry
	// last leaves no new database out.
	found, err := m.strayFiles()
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
	if err := m.master.Select(ctx, &known, `SELECT database_name FROM store_databases WHERE kind = 'managed'`); err != nil {
		return nil, err
	}
	slices.Sort(known)
	return slices.DeleteFunc(found, func(s Stray) bool {
		_, ok := slices.BinarySearch(known, s.Name)
		return ok
	}), nil
}

// made lists what of this installation is on the operator's server.
func (m *Manager) made(ctx context.Context) (found []Stray, err error) {
	prefix, err := m.managedPrefix(ctx)
	if err != nil {
		return nil, err
	}
	var names []string
	err = m.asAdmin(func(h host, db *DB) (err error) {
		names, err = h.list(ctx, db, prefix)
		return err
	})
	for _, name := range names {
		if managedName.MatchString(name) {
			found = append(found, Stray{name, m.opts.Managed.admin.Engine, m.opts.Managed.String()})
		}
	}
	return found, err
}

// strayFiles lists the embedded databases in the data directory. Of one, the
// write-ahead log may be all that is left.
func (m *Manager) strayFiles() (found []Stray, err error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(m.opts.DataDir), "stores", "??", "*.db*"))
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		id, err := stoa.ParseID[stoa.StoreID](name)
		if err != nil || len(found) > 0 && found[len(found)-1].Name == id.String() {
			continue
		}
		found = append(found, Stray{id.String(), SQLite, path})
	}
	return found, err
}

// globEscape takes their meaning from the characters of a folder's name.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}

// DropStray removes a stray for good, unless a store has come to own it since
// it was found.
func (m *Manager) DropStray(ctx context.Context, s Stray) error {
	var owners int
	if err := m.master.Get(ctx, &owners, `SELECT count(*) FROM store_databases WHERE database_name = $1`, s.Name); err != nil {
		return err
	}
	if owners > 0 {
		return fmt.Errorf("%s belongs to a store now", s.Name)
	}
	if s.Engine == SQLite {
		id, err := stoa.ParseID[stoa.StoreID](s.Name)
		if err != nil {
			return err
		}
		return m.removeFiles(id)
	}
	if m.opts.Managed == nil || !managedName.MatchString(s.Name) {
		return fmt.Errorf("%.80q is not on the operator's server", s.Name)
	}
	return m.asAdmin(func(h host, db *DB) error { return h.drop(ctx, db, s.Name) })
}

// removeFiles removes an embedded database with what SQLite keeps beside it,
// whatever of it is left.
func (m *Manager) removeFiles(store stoa.StoreID) error {
	path, err := sqliteEngine{dir: m.opts.DataDir}.path(ManagedSQLite(store))
	if err != nil {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm", "-journal", draftSuffix} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
