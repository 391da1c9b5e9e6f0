package imports

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// Format is the form of a file.
type Format string

// The formats. The first line of CSV names the columns; each line of JSON Lines is an
// object.
const (
	CSV       Format = "csv"
	JSONLines Format = "jsonl"
)

// The limits of a file.
const (
	maxLine  = 1 << 20 // bytes
	maxLines = 100_000
	maxFile  = 1 << 30 // bytes
)

// File is an open file, which is read twice.
type File struct {
	f      *os.File
	format Format
}

// formatOf returns the format that a file's name says, or "".
func formatOf(name string) Format {
	switch strings.ToLower(filepath.Ext(name)) {
	case ".csv":
		return CSV
	case ".jsonl", ".ndjson":
		return JSONLines
	}
	return ""
}

// ErrFormat means that neither the caller nor the file's name says the format.
var ErrFormat = errors.New("its format is not known")

// Open opens a file; "-" is stdin. Without a format its name says it. What can be read
// only once is copied to a temporary file, which nobody else can read and which is gone
// with the process. Close the file.
func Open(name string, stdin io.Reader, format Format) (*File, error) {
	if format == "" {
		format = formatOf(name)
	}
	if format == "" {
		return nil, fmt.Errorf("%s: %w", name, ErrFormat)
	}
	if name == "-" {
		return spool(stdin, format, maxFile)
	}
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case info.IsDir():
		err = fmt.Errorf("%s is a folder", name)
	case !info.Mode().IsRegular(): // a pipe
		defer f.Close() //nolint:errcheck // it was only read
		return spool(f, format, maxFile)
	case info.Size() > maxFile:
		err = errTooLarge()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{f, format}, nil
}

func errTooLarge() error { return fmt.Errorf("is larger than %d MiB: split it", maxFile>>20) }

// spool copies at most limit bytes to a temporary file without a name.
func spool(from io.Reader, format Format, limit int64) (*File, error) {
	f, err := os.CreateTemp("", "stoa-import-*")
	if err != nil {
		return nil, err
	}
	n, err := int64(0), os.Remove(f.Name()) // the file lives as long as it is open
	if err == nil {
		n, err = io.Copy(f, io.LimitReader(from, limit+1))
	}
	if err == nil && n > limit {
		err = errTooLarge()
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &File{f, format}, nil
}

// Close closes the file.
func (f *File) Close() error { return f.f.Close() }
