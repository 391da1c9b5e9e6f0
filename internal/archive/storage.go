package archive

import (
	"context"
	"errors"
	"io"
	"regexp"
	"time"

	"github.com/stoahq/stoa"
)

// Storage keeps archives under names such as stores/ID/20261127T190444Z-ID.stoa. It never
// overwrites one. Its methods are safe for concurrent use. Their errors are a *stoa.Error,
// except those of the caller's context and of its write function.
type Storage interface {
	// Check makes sure that archives can be written, read and deleted. It returns what the
	// storage cannot do, for the operator.
	Check(ctx context.Context) (notes []string, err error)
	// Create stores what write writes. If it fails, nothing is stored under the name.
	Create(ctx context.Context, name string, write func(io.Writer) error) (Stored, error)
	// Open returns a reader of an archive.
	Open(ctx context.Context, name string) (io.ReadCloser, error)
	// List calls fn for each archive whose name begins with prefix, in any order.
	List(ctx context.Context, prefix string, fn func(Stored) error) error
	// Delete deletes an archive. It does nothing if there is none.
	Delete(ctx context.Context, name string) error
}

// Stored describes an archive in a Storage.
type Stored struct {
	Name  string
	Bytes int64
	At    time.Time // when it was stored
}

// FileName returns the name of a store's archive. Names of one store have a common prefix and
// sort by time, so that rules of object storage can apply to them.
func FileName(store stoa.StoreID, at time.Time, id string) string {
	return StorePrefix(store) + at.UTC().Format("20060102T150405Z") + "-" + id + ".stoa"
}

// StorePrefix returns the beginning of the names of a store's archives.
func StorePrefix(store stoa.StoreID) string { return "stores/" + store.String() + "/" }

// storedName matches the names that a Storage accepts.
var storedName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*(/[A-Za-z0-9][A-Za-z0-9_-]*(\.[A-Za-z0-9_-]+)*)*$`)

// maxStoredName is the limit of a name, in bytes.
const maxStoredName = 400

func checkName(name string) error {
	if len(name) > maxStoredName || !storedName.MatchString(name) {
		return stoa.Errorf(stoa.InvalidRequest, "The name of an archive consists of letters, digits, and the characters . _ - and /.")
	}
	return nil
}

// checkPrefix checks the prefix of a List.
func checkPrefix(prefix string) error {
	if prefix == "" {
		return nil
	}
	return checkName(prefix[:len(prefix)-len(trailingSlash.FindString(prefix))])
}

var trailingSlash = regexp.MustCompile(`/?$`)

func storageFull(cause error) *stoa.Error {
	return stoa.Errorf(stoa.ArchiveStorageFailed, "The storage of the archives is full. Free some room there or raise its quota, then try again.").WithCause(cause)
}

func storageForbidden(cause error) *stoa.Error {
	return stoa.Errorf(stoa.ArchiveStorageFailed, "The storage of the archives refuses this platform. Check its keys and rights: to read, write, list and delete, and to do multipart uploads.").WithCause(cause)
}

func storageUnavailable(cause error) *stoa.Error {
	e := stoa.Errorf(stoa.ArchiveStorageFailed, "The storage of the archives cannot be reached or does not answer in time. Try again shortly.").WithCause(cause)
	e.RetryAfter = time.Minute
	return e
}

func storageLies(what string) *stoa.Error {
	return stoa.Errorf(stoa.ArchiveStorageFailed, "The storage of the archives did not keep what was sent: %s. The archive was not stored; check the storage, then try again.", what)
}

func archiveExists(cause error) *stoa.Error {
	return stoa.Errorf(stoa.ArchiveStorageFailed, "There is an archive of this name already. It was not changed.").WithCause(cause)
}

func noArchive(cause error) *stoa.Error {
	return stoa.Errorf(stoa.NotFound, "There is no archive of this name in the storage.").WithCause(cause)
}

// writeError marks an error of the caller's write function.
type writeError struct{ error }

func (e *writeError) Unwrap() error { return e.error }

// callersError returns the error of the write function, if it is one.
func callersError(err error) (error, bool) {
	var own *writeError
	if errors.As(err, &own) {
		return own.error, true
	}
	return nil, false
}
