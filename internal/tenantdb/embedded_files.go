package tenantdb

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// EmbeddedFile is a store's embedded database in the data directory.
type EmbeddedFile struct {
	Store stoa.StoreID
	Path  string
}

// MakeEmbedded creates the file of an embedded database with the built-in migrations
// applied. It keeps an existing file. Its error is for the store's owner.
func (m *Manager) MakeEmbedded(c credential.Credentials) error {
	e := sqliteEngine{dir: m.opts.DataDir}
	err := e.make(c)
	if fault := e.Fault(err); fault != nil {
		return fault
	}
	return err
}

// RemoveEmbedded deletes an embedded database and the other files of SQLite, as
// far as they exist.
func (m *Manager) RemoveEmbedded(store stoa.StoreID) error {
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

// EmbeddedFiles yields the embedded databases in the data directory, a folder at a time. An
// error ends the sequence.
func (m *Manager) EmbeddedFiles() iter.Seq2[[]EmbeddedFile, error] {
	return func(yield func([]EmbeddedFile, error) bool) {
		folders, err := filepath.Glob(filepath.Join(globEscape(m.opts.DataDir), "stores", "??"))
		if err != nil {
			yield(nil, err)
			return
		}
		for _, folder := range folders {
			if files, err := embeddedFilesIn(folder); !yield(files, err) || err != nil {
				return
			}
		}
	}
}

// embeddedFilesIn returns the embedded databases in a folder, including those of which only
// the write-ahead log is left.
func embeddedFilesIn(folder string) (found []EmbeddedFile, err error) {
	paths, err := filepath.Glob(filepath.Join(globEscape(folder), "*.db*"))
	for _, path := range paths {
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		id, err := stoa.ParseID[stoa.StoreID](name)
		if err != nil || len(found) > 0 && found[len(found)-1].Store == id {
			continue
		}
		found = append(found, EmbeddedFile{Store: id, Path: path})
	}
	return found, err
}

// globEscape escapes the pattern characters in a folder's name.
func globEscape(dir string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
