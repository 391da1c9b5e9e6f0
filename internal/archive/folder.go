package archive

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/stoahq/stoa"
)

// Folder is a Storage in a folder of the file system.
type Folder struct{ root string }

// NewFolder returns a Storage in the folder root, which is created when it is needed.
func NewFolder(root string) *Folder { return &Folder{root} }

// partial is the suffix of files that are being written. No name of an archive has it.
const partial = ".partial~"

// Check implements Storage.
func (f *Folder) Check(ctx context.Context) ([]string, error) {
	name := "check-" + rand.Text()
	_, err := f.Create(ctx, name, func(w io.Writer) error {
		_, err := io.WriteString(w, name)
		return err
	})
	if err != nil {
		return nil, err
	}
	return nil, f.Delete(ctx, name)
}

// Create implements Storage. The file gets its name when its content is on disk.
func (f *Folder) Create(ctx context.Context, name string, write func(io.Writer) error) (Stored, error) {
	if err := checkName(name); err != nil {
		return Stored{}, err
	}
	path := f.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return Stored{}, folderFault(err)
	}
	temporary := path + "." + rand.Text() + partial
	defer os.Remove(temporary) //nolint:errcheck // it has another name by now, or is of no use
	err := writeFile(ctx, temporary, write)
	if err == nil {
		err = publish(temporary, path)
	}
	if err != nil {
		return Stored{}, folderFault(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return Stored{}, folderFault(err)
	}
	return Stored{name, info.Size(), info.ModTime()}, nil
}

func (f *Folder) path(name string) string { return filepath.Join(f.root, filepath.FromSlash(name)) }

func writeFile(ctx context.Context, path string, write func(io.Writer) error) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) //nolint:gosec // checkName allows no path out of the folder
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // after an error
	w := &fileWriter{ctx: ctx, file: file}
	if err := write(w); err != nil {
		if w.err != nil {
			return w.err
		}
		return &writeError{err}
	}
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}

// fileWriter keeps the file's own error apart from that of its caller.
type fileWriter struct {
	ctx  context.Context //nolint:containedctx // of the one call that uses it
	file *os.File
	err  error
}

func (w *fileWriter) Write(p []byte) (n int, err error) {
	if w.err = w.ctx.Err(); w.err == nil {
		n, w.err = w.file.Write(p)
	}
	return n, w.err
}

// publish gives a file its name, unless there is a file of that name, and makes that last.
func publish(temporary, path string) error {
	err := os.Link(temporary, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Some file systems have no links. Two writers of one name could then overwrite
		// each other, but names are unique.
		if _, missing := os.Lstat(path); missing == nil {
			return fs.ErrExist
		}
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

// syncFolder writes a folder's list of names to disk.
func syncFolder(path string) error {
	dir, err := os.Open(path) //nolint:gosec // as above
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // it was only read
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) && !errors.Is(err, fs.ErrPermission) {
		return err // other errors mean that the system cannot do this with a folder
	}
	return nil
}

// Open implements Storage.
func (f *Folder) Open(_ context.Context, name string) (io.ReadCloser, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	file, err := os.Open(f.path(name))
	if err != nil {
		return nil, folderFault(err)
	}
	return file, nil
}

// List implements Storage.
func (f *Folder) List(ctx context.Context, prefix string, fn func(Stored) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	root := f.path(prefix[:strings.LastIndexByte(prefix, '/')+1])
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) { // the folder, or a file that was deleted meanwhile
			return nil
		}
		if err != nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		relative, err := filepath.Rel(f.root, path)
		name := filepath.ToSlash(relative)
		if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(name, prefix) || checkName(name) != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := fn(Stored{name, info.Size(), info.ModTime()}); err != nil {
			return &writeError{err}
		}
		return nil
	})
	return folderFault(err)
}

// Delete implements Storage.
func (f *Folder) Delete(_ context.Context, name string) error {
	if err := checkName(name); err != nil {
		return err
	}
	err := os.Remove(f.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return folderFault(err)
}

// folderFault returns the error for a failure of the file system.
func folderFault(err error) error {
	var known *stoa.Error
	if own, ok := callersError(err); ok {
		return own
	}
	switch {
	case err == nil, errors.As(err, &known), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), errors.Is(err, syscall.EFBIG):
		return storageFull(err)
	case errors.Is(err, fs.ErrExist):
		return archiveExists(err)
	case errors.Is(err, fs.ErrNotExist):
		return noArchive(err)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return storageForbidden(err)
	}
	return storageUnavailable(err)
}
