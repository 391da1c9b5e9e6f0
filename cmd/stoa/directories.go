package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stoahq/stoa/masterdb"
)

func missing(path string) bool {
	_, err := os.Stat(path)
	return errors.Is(err, os.ErrNotExist)
}

// checkPrivate checks that nobody else can read a file or directory.
func checkPrivate(path string) (string, error) {
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

// unwritable is the error of a directory that this process cannot write to.
type unwritable struct {
	path, cause, remedy string
	err                 error
}

func (u *unwritable) Error() string {
	return fmt.Sprintf("%s cannot be written to: %s (%s)", u.path, u.cause, u.remedy)
}

func (u *unwritable) Unwrap() error { return u.err }

// newUnwritable returns the operating system's error with its cause and remedy.
func newUnwritable(path string, err error) *unwritable {
	u := &unwritable{path: path, cause: err.Error(), remedy: "see that it is a directory on a disk that works", err: err}
	switch {
	case errors.Is(err, syscall.EROFS):
		u.cause, u.remedy = "its file system is read-only", "mount it read-write, or name another directory"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		u.cause, u.remedy = "its disk has no space left", "free some space, or name another directory"
	case errors.Is(err, fs.ErrPermission):
		u.cause, u.remedy = fmt.Sprintf("user %d may not", os.Geteuid()), "give it to the user that runs 'stoa serve' (chown)"
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, fs.ErrExist):
		u.cause, u.remedy = "a file is in its place", "move the file, or name another directory"
	}
	return u
}

// probeSize is the size of a page of SQLite, in bytes.
const probeSize = 4096

// checkWritable writes a file into dir and removes it. If dir does not exist, it
// checks its nearest parent.
func checkWritable(dir string) error {
	at := dir
	for missing(at) && filepath.Dir(at) != at {
		at = filepath.Dir(at)
	}
	if err := probe(at); err != nil {
		return newUnwritable(dir, err)
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

// checkDirs checks every directory that the platform writes to.
func (c *Config) checkDirs() error {
	dirs := []string{c.DataDir}
	for _, sub := range []string{"stores", "mail"} { // they may be mounted from elsewhere
		if dir := filepath.Join(c.DataDir, sub); !missing(dir) {
			dirs = append(dirs, dir)
		}
	}
	if path, ok := strings.CutPrefix(c.masterURL(), "sqlite:"); ok && filepath.Dir(path) != filepath.Clean(c.DataDir) {
		dirs = append(dirs, filepath.Dir(path))
	}
	for _, dir := range dirs {
		if err := checkWritable(dir); err != nil {
			return err
		}
	}
	return nil
}

// openMasterDB opens the master database. SQLite does not report why it cannot
// write: the error is that of its directory, if there is one.
func (c *Config) openMasterDB(ctx context.Context) (*masterdb.DB, error) {
	master, err := masterdb.Open(ctx, c.masterURL())
	path, ok := strings.CutPrefix(c.masterURL(), "sqlite:")
	if err == nil || !ok {
		return master, err
	}
	if cause := checkWritable(filepath.Dir(path)); cause != nil {
		return nil, fmt.Errorf("master database: %w", cause)
	}
	return nil, err
}
