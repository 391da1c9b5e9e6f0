package backups

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// faultyStorage is a storage that fails, or lies, while it has a fault.
type faultyStorage struct {
	archive.Storage
	mu    sync.Mutex
	fault storageFault
}

// storageFault replaces calls of a storage. What is nil works.
type storageFault struct {
	create func(ctx context.Context, store func() (archive.Stored, error), name string, write func(io.Writer) error) (archive.Stored, error)
	open   func(content []byte) io.Reader
	remove error
}

func (f *faultyStorage) set(fault storageFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

func (f *faultyStorage) now() storageFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fault
}

func (f *faultyStorage) Create(ctx context.Context, name string, write func(io.Writer) error) (archive.Stored, error) {
	store := func() (archive.Stored, error) { return f.Storage.Create(ctx, name, write) }
	if create := f.now().create; create != nil {
		return create(ctx, store, name, write)
	}
	return store()
}

func (f *faultyStorage) Open(ctx context.Context, name string) (io.ReadCloser, error) {
	r, err := f.Storage.Open(ctx, name)
	open := f.now().open
	if err != nil || open == nil {
		return r, err
	}
	content, err := io.ReadAll(r)
	return io.NopCloser(open(content)), errors.Join(err, r.Close())
}

func (f *faultyStorage) Delete(ctx context.Context, name string) error {
	if err := f.now().remove; err != nil {
		return err
	}
	return f.Storage.Delete(ctx, name)
}

// limitedWriter takes some bytes and fails then.
type limitedWriter struct {
	left int
	err  error
}

func (w *limitedWriter) Write(b []byte) (int, error) {
	if len(b) > w.left {
		return w.left, w.err
	}
	w.left -= len(b)
	return len(b), nil
}

func errStorage(cause error) error {
	return stoa.Errorf(stoa.ArchiveStorageFailed, "The storage of the archives has failed.").WithCause(cause)
}

// fullAfter is a storage that is full after some bytes.
func fullAfter(n int) storageFault {
	return storageFault{create: func(_ context.Context, _ func() (archive.Stored, error), _ string, write func(io.Writer) error) (archive.Stored, error) {
		full := errStorage(syscall.ENOSPC)
		if err := write(&limitedWriter{n, full}); err != nil {
			return archive.Stored{}, err
		}
		return archive.Stored{}, full
	}}
}

// faulty returns a service whose storage can be given faults.
func faulty(f fixture) *faultyStorage {
	s := &faultyStorage{Storage: f.storage}
	f.storage = s
	return s
}

// TestStorageFaultsOfBackups checks that a storage which fails while an archive is made leaves
// a failed archive that says so and no file, and that the next one succeeds.
func TestStorageFaultsOfBackups(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		storage := faulty(f)
		p, s := f.store(t, credential.SQLite)
		for name, fault := range map[string]storageFault{
			"full at once": fullAfter(0), "full in the middle": fullAfter(300), "full at the end": fullAfter(1 << 20),
			"forbidden": {create: func(context.Context, func() (archive.Stored, error), string, func(io.Writer) error) (archive.Stored, error) {
				return archive.Stored{}, errStorage(os.ErrPermission)
			}},
		} {
			storage.set(fault)
			b := f.made(t, p, s.ID)
			if b.State != Failed || b.Fault == nil || b.Fault.Code != stoa.ArchiveStorageFailed {
				t.Errorf("%s: %+v", name, b)
			}
			storage.set(storageFault{})
			if files := f.files(t); len(files) != 0 {
				t.Errorf("%s: files %q are left", name, files)
			}
		}
		if b := f.made(t, p, s.ID); b.State != Succeeded || b.CheckState != CheckPassed {
			t.Errorf("after the faults: %+v", b)
		}
	})
}

// TestStorageThatLies checks that an archive which the storage has confirmed, and gives back
// otherwise, is found by its check, and that a restore of it changes nothing.
func TestStorageThatLies(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		storage := faulty(f)
		p, s := f.store(t, credential.SQLite)
		good := f.made(t, p, s.ID)
		f.addProduct(t, s.ID, "cake")
		other := f.made(t, p, s.ID)
		var otherContent []byte
		storage.set(storageFault{open: func(content []byte) io.Reader {
			otherContent = bytes.Clone(content)
			return bytes.NewReader(content)
		}})
		testkit.Must(t, f.CheckByOperator(t.Context(), s.ID, other.ID, false))
		for name, open := range map[string]func([]byte) io.Reader{
			"nothing":         func([]byte) io.Reader { return bytes.NewReader(nil) },
			"less":            func(c []byte) io.Reader { return bytes.NewReader(c[:len(c)-1]) },
			"more":            func(c []byte) io.Reader { return bytes.NewReader(append(c, 0)) },
			"another archive": func([]byte) io.Reader { return bytes.NewReader(otherContent) },
			"gone in the middle": func(c []byte) io.Reader {
				return io.MultiReader(bytes.NewReader(c[:len(c)/2]), failingReader{errStorage(io.ErrUnexpectedEOF)})
			},
		} {
			storage.set(storageFault{open: open})
			if err := f.CheckByOperator(t.Context(), s.ID, good.ID, false); err == nil {
				t.Errorf("%s: the check has found nothing", name)
			}
			r, err := f.Restore(t.Context(), p, s.ID, good.ID, RestoreOptions{})
			testkit.Must(t, err)
			if r = f.restored(t, r); r.State != Failed {
				t.Errorf("%s: restore %+v", name, r)
			}
			storage.set(storageFault{})
			if diff := cmp.Diff([]string{"bread", "cake"}, f.products(t, s.ID)); diff != "" {
				t.Errorf("%s: products (-want +got):\n%s", name, diff)
			}
		}
	})
}

// TestStorageFullBeforeARestore checks that a store is not restored when its present rows
// cannot be saved, and stays as it is and open.
func TestStorageFullBeforeARestore(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		storage := faulty(f)
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		f.addProduct(t, s.ID, "cake")
		storage.set(fullAfter(300))
		r, err := f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Failed || r.Fault.Code != stoa.ArchiveStorageFailed {
			t.Errorf("restore %+v: %+v", r, r.Fault)
		}
		if diff := cmp.Diff([]string{"bread", "cake"}, f.products(t, s.ID)); diff != "" {
			t.Errorf("products (-want +got):\n%s", diff)
		}
		f.addProduct(t, s.ID, "pie")
		storage.set(storageFault{})
		r, err = f.Restore(t.Context(), p, s.ID, b.ID, RestoreOptions{})
		testkit.Must(t, err)
		if r = f.restored(t, r); r.State != Succeeded {
			t.Errorf("after the fault: %+v: %+v", r, r.Fault)
		}
	})
}

// TestStorageThatKeepsFiles checks that an archive whose file cannot be deleted is deleted
// when the storage works again.
func TestStorageThatKeepsFiles(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		storage := faulty(f)
		p, s := f.store(t, credential.SQLite)
		b := f.made(t, p, s.ID)
		storage.set(storageFault{remove: errStorage(os.ErrPermission)})
		testkit.Must(t, f.Delete(t.Context(), p, s.ID, b.ID))
		if err := f.FinishDelete(t.Context(), b.ID); err == nil {
			t.Error("a file is said to be deleted that is not")
		}
		if n := len(f.files(t)); n != 1 {
			t.Errorf("%d files", n)
		}
		storage.set(storageFault{})
		testkit.Eventually(t, time.Minute, "the file is deleted", func() bool {
			testkit.Must(t, f.FinishDelete(t.Context(), b.ID))
			return len(f.files(t)) == 0
		})
	})
}

// failingReader fails at once.
type failingReader struct{ err error }

func (r failingReader) Read([]byte) (int, error) { return 0, r.err }

// TestSlowStorageIsGivenUp checks that a storage which never answers does not hold a process
// that stops.
func TestSlowStorageIsGivenUp(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, f fixture) {
		storage := faulty(f)
		p, s := f.store(t, credential.SQLite)
		entered := make(chan struct{}, 10)
		storage.set(storageFault{create: func(ctx context.Context, _ func() (archive.Stored, error), _ string, _ func(io.Writer) error) (archive.Stored, error) {
			entered <- struct{}{}
			<-ctx.Done()
			return archive.Stored{}, ctx.Err()
		}})
		_, err := f.Make(t.Context(), p, s.ID)
		testkit.Must(t, err)
		<-entered
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		testkit.Must(t, f.queue.Stop(ctx))
	})
}
