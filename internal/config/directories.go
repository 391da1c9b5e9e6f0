package config

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Missing reports whether nothing is at path.
func Missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// CheckPrivate checks that nobody else can read a file or directory.
func CheckPrivate(path string) (string, error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return path + " (not made yet; 'stoa serve' makes it)", nil
	}
	if err != nil {
		return "", err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("%s can be read by others (mode %04o)", path, info.Mode().Perm())
	}
	return path, nil
}

// Unwritable is the error of a directory that this process cannot write to.
type Unwritable struct {
	Path, Cause, Remedy string
	err                 error
}

func (u *Unwritable) Error() string {
	return fmt.Sprintf("%s cannot be written to: %s (%s)", u.Path, u.Cause, u.Remedy)
}

func (u *Unwritable) Unwrap() error { return u.err }

// NewUnwritable returns the operating system's error with its cause and remedy.
func NewUnwritable(path string, err error) *Unwritable {
	u := &Unwritable{Path: path, Cause: err.Error(), Remedy: "see that it is a directory on a disk that works", err: err}
	switch {
	case errors.Is(err, syscall.EROFS):
		u.Cause, u.Remedy = "its file system is read-only", "mount it read-write, or name another directory"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		u.Cause, u.Remedy = "its disk has no space left", "free some space, or name another directory"
	case errors.Is(err, fs.ErrPermission):
		u.Cause, u.Remedy = fmt.Sprintf("user %d may not", os.Geteuid()), "give it to the user that runs 'stoa serve' (chown)"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		u.Cause, u.Remedy = "a file is in its place", "move the file, or name another directory"
	}
	return u
}

// probeSize is the size of a page of SQLite, in bytes.
const probeSize = 4096

// CheckWritable writes a file into dir and removes it. If dir does not exist, it
// checks its nearest parent.
func CheckWritable(dir string) error {
	at := dir
	for Missing(at) && filepath.Dir(at) != at {
		at = filepath.Dir(at)
	}
	if err := probe(at); err != nil {
		return NewUnwritable(dir, err)
	}
	return nil
}

func probe(dir string) (err error) {
	f, err := os.CreateTemp(dir, ".stoa-check-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(make([]byte, probeSize))
	return errors.Join(err, f.Sync(), f.Close())
}

// CheckDirs checks every directory that the platform writes to.
func (c *Config) CheckDirs() error {
	dirs := []string{c.DataDir}
	for _, sub := range []string{"stores", "mail"} { // they may be separate mounts
		if dir := filepath.Join(c.DataDir, sub); !Missing(dir) {
			dirs = append(dirs, dir)
		}
	}
	if path, ok := strings.CutPrefix(c.MasterURL(), "sqlite:"); ok && filepath.Dir(path) != filepath.Clean(c.DataDir) {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if err := CheckWritable(dir); err != nil {
			return err
		}
	}
	return nil
}

// OpenMasterDB opens the master database. SQLite does not report why it cannot write. The
// error is therefore that of the directory check, if that fails.
func (c *Config) OpenMasterDB(ctx context.Context) (*masterdb.DB, error) {
	master, err := masterdb.OpenPooled(ctx, c.MasterURL(), c.MasterSessionURL())
	if errors.Is(err, masterdb.ErrTransactionPooling) && c.MasterSessionURL() == "" {
		return nil, fmt.Errorf("%w (MASTER_DB_SESSION_URL)", err)
	}
	path, ok := strings.CutPrefix(c.MasterURL(), "sqlite:")
	if err == nil || !ok {
		return master, err
	}
	if cause := CheckWritable(filepath.Dir(path)); cause != nil {
		return nil, fmt.Errorf("master database: %w", cause)
	}
	return nil, err
}
