package tenantdb

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// CustomMigrations are the operator's migrations. They run in every store after the
// built-in ones and have their own version table. A nil value contains none.
type CustomMigrations struct {
	folders  map[string]fs.FS // by dialect.folder
	versions []int64          // sorted
	latest   int64
}

// LoadCustomMigrations reads the folders in dir that are named like the dialects, as
// far as they exist. It fails if none exists, if a file in one of them is not a
// migration, or if two of them have different versions. It returns nil if dir
// is "".
func LoadCustomMigrations(dir string) (*CustomMigrations, error) {
	if dir == "" {
		return nil, nil //nolint:nilnil // documented: nil has no migrations
	}
	if _, err := os.ReadDir(dir); err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	own := &CustomMigrations{folders: map[string]fs.FS{}}
	var first string
	var versions []int64
	for _, name := range dialectFolders() {
		folder := filepath.Join(dir, name)
		if _, err := os.Stat(folder); errors.Is(err, fs.ErrNotExist) {
			continue
		}
		files := os.DirFS(folder)
		found, err := versionsIn(files)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", folder, err)
		}
		if first == "" {
			first, versions = folder, found
		} else if !slices.Equal(versions, found) {
			return nil, fmt.Errorf("%s and %s differ: versions %v and %v", first, folder, versions, found)
		}
		own.folders[name] = files
	}
	if first == "" {
		return nil, fmt.Errorf("%s has none of the folders %s", dir, strings.Join(dialectFolders(), ", "))
	}
	own.versions, own.latest = versions, versions[len(versions)-1]
	return own, nil
}

// versionsIn returns the sorted versions of a folder's migrations.
func versionsIn(files fs.FS) ([]int64, error) {
	entries, err := fs.ReadDir(files, ".")
	if err != nil {
		return nil, err
	}
	var versions []int64
	for _, e := range entries {
		version, err := goose.NumericComponent(e.Name())
		if err != nil || e.IsDir() || path.Ext(e.Name()) != ".sql" {
			return nil, fmt.Errorf("%s is no migration; they are named like 00001_notes.sql", e.Name())
		}
		text, err := fs.ReadFile(files, e.Name())
		if err != nil {
			return nil, err
		}
		if !bytes.Contains(text, []byte("-- +goose Up")) {
			return nil, fmt.Errorf("%s has no line '-- +goose Up' before its statements", e.Name())
		}
		versions = append(versions, version)
	}
	slices.Sort(versions)
	if len(versions) == 0 {
		return nil, errors.New("no migration in it")
	}
	for i := range versions[1:] {
		if versions[i] == versions[i+1] {
			return nil, fmt.Errorf("two migrations have the version %d", versions[i])
		}
	}
	return versions, nil
}

// Latest returns the version of the last migration, or 0 if there is none.
func (o *CustomMigrations) Latest() int64 {
	if o == nil {
		return 0
	}
	return o.latest
}

// of returns the migrations of an engine, or nil if there are none.
func (o *CustomMigrations) of(engine credential.EngineName) (fs.FS, error) {
	if o == nil {
		return nil, nil //nolint:nilnil // documented
	}
	folder := registered[engine].dialect.folder
	files, ok := o.folders[folder]
	if !ok {
		return nil, stoa.Errorf(stoa.MigrationFailed, "The platform does not set up stores on this kind of database. Tell its operator, or use another kind.").
			WithCause(fmt.Errorf("the custom migrations have no folder %q, which a store on %s needs", folder, engine))
	}
	return files, nil
}
