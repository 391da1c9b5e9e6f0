package tenantdb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Orphan is a managed database that belongs to no store. Only its role may be left.
type Orphan struct {
	Name   string                // of the database and its role, or the store id
	Engine credential.EngineName // of the database
	Place  string                // the server or the file, for display
}

// comparedAtOnce is how many databases are compared with the records at a time.
const comparedAtOnce = 5000

// Orphans yields the managed databases of this installation, in the data directory and on
// the operator's server, that have no record. An error ends the sequence. It changes
// nothing. In memory it holds comparedAtOnce files and one more folder's of the data
// directory, and the names of all databases on the server.
func (m *Manager) Orphans(ctx context.Context) iter.Seq2[Orphan, error] {
	return func(yield func(Orphan, error) bool) {
		folders, err := filepath.Glob(filepath.Join(globEscape(m.opts.DataDir), "stores", "??"))
		var found []Orphan
		for i, folder := range folders {
			var files []Orphan
			if files, err = embeddedFilesIn(folder); err != nil {
				break
			}
			found = append(found, files...)
			if len(found) < comparedAtOnce && i < len(folders)-1 {
				continue
			}
			if !m.yieldOrphans(ctx, found, yield) {
				return
			}
			found = nil
		}
		if err == nil && m.opts.Managed != nil {
			if found, err = m.made(ctx); err != nil {
				err = fmt.Errorf("%s: %w", m.opts.Managed, err)
			}
		}
		if err != nil {
			yield(Orphan{}, err)
			return
		}
		for part := range slices.Chunk(found, comparedAtOnce) {
			if !m.yieldOrphans(ctx, part, yield) {
				return
			}
		}
	}
}

// yieldOrphans yields those of the databases that have no record, and reports whether to go
// on. Credentials are stored before a database is created: reading the records after the
// databases were found excludes new ones.
func (m *Manager) yieldOrphans(ctx context.Context, found []Orphan, yield func(Orphan, error) bool) bool {
	recorded, err := m.recorded(ctx, found)
	if err != nil {
		yield(Orphan{}, err)
		return false
	}
	for _, o := range found {
		if !recorded[o.Name] && !yield(o, nil) {
			return false
		}
	}
	return true
}

// recorded returns which of the databases belong to a store, or to a move that has not
// ended.
func (m *Manager) recorded(ctx context.Context, databases []Orphan) (map[string]bool, error) {
	all := make([]string, len(databases))
	for i, o := range databases {
		all[i] = o.Name
	}
	list, err := json.Marshal(all)
	if err != nil {
		return nil, err
	}
	in := ` IN (SELECT value FROM json_each($1))`
	if m.master.Engine == masterdb.Postgres {
		in = ` IN (SELECT json_array_elements_text(CAST($1 AS json)))`
	}
	var names []string
	err = m.master.Select(ctx, &names, `SELECT database_name FROM store_databases WHERE kind = 'managed' AND database_name`+in+`
		UNION SELECT source_name FROM store_moves WHERE finished_at IS NULL AND source_name`+in+`
		UNION SELECT target_name FROM store_moves WHERE finished_at IS NULL AND target_name`+in, string(list))
	recorded := make(map[string]bool, len(names))
	for _, name := range names {
		recorded[name] = true
	}
	return recorded, err
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

// embeddedFilesIn returns the embedded databases in a folder, including those of which only
// the write-ahead log is left.
func embeddedFilesIn(folder string) (found []Orphan, err error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(folder), "*.db*"))
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
