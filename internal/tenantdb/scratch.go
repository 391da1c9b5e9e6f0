package tenantdb

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// scratchFolder holds temporary databases, each in a folder of its own.
const scratchFolder = "scratch"

// scratchAge is the age of a folder of a process that has ended without removing it.
const scratchAge = 24 * time.Hour

// Scratch is a temporary embedded database of one caller.
type Scratch struct {
	*DB
	Folder string // for other temporary files
}

// OpenScratch creates a temporary embedded database, which has no tables. The caller must
// call Remove.
func (m *Manager) OpenScratch() (Scratch, error) {
	removeOld(filepath.Join(m.opts.DataDir, scratchFolder))
	s := Scratch{Folder: filepath.Join(m.opts.DataDir, scratchFolder, rand.Text())}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		return s, err
	}
	engines := map[credential.EngineName]Engine{credential.SQLite: sqliteEngine{dir: s.Folder, spareFiles: m.opts.spareFiles}}
	db, err := newDB(engines, credential.Credentials{Kind: credential.Managed, Engine: credential.SQLite, Database: stoa.NewID[stoa.StoreID]().String()}, nil, nil)
	if err != nil {
		return s, err
	}
	db.dials, db.log = new(dialTracker), m.opts.Log
	m.limit(db)
	s.DB = db
	return s, nil
}

// Remove deletes the database and everything in its folder.
func (s Scratch) Remove() error {
	if s.DB != nil {
		_ = s.Close() // the files are deleted in any case
	}
	return os.RemoveAll(s.Folder)
}

// removeOld deletes what processes have left that ended before Remove.
func removeOld(folder string) {
	entries, err := os.ReadDir(folder)
	if err != nil {
		return // there is none yet
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && time.Since(newest(filepath.Join(folder, e.Name()), info)) > scratchAge {
			_ = os.RemoveAll(filepath.Join(folder, e.Name())) // the next call tries again
		}
	}
}

// newest returns when the folder or a file in it was last written.
func newest(folder string, info fs.FileInfo) time.Time {
	at := info.ModTime()
	_ = filepath.WalkDir(folder, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if file, err := d.Info(); err == nil && file.ModTime().After(at) {
			at = file.ModTime()
		}
		return nil
	})
	return at
}
