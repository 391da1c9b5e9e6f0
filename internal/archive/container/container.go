// Package container writes and reads the outer form of archives: a first line, then records
// in one stream that is compressed with zstd and encrypted with age. What the records hold
// is up to the kind of archive.
package container

import (
	"errors"
	"io"

	"github.com/stoahq/stoa"
)

// Format describes a kind of archive.
type Format struct {
	Name      string // what the first line begins with, such as "stoa archive"
	Version   int    // that is written; a reader accepts all versions up to it
	MaxRecord int64  // bytes of the longest record
}

// PaddingRecord is the kind of the records of random bytes that a Writer adds and a Reader
// leaves out.
const PaddingRecord = 'P'

const (
	// header is the length of a record's kind and of the length of its body, which is four
	// bytes, the most significant first.
	header = 5
	// window is the number of bytes that the compression looks back, which a reader must keep.
	window = 1 << 20
	// keptBuffer is the size of the largest buffer that is kept between records.
	keptBuffer = 2 << 20
	// maxExpansion limits how many bytes one compressed byte may become, after the first
	// FreeExpansion bytes. A writer adds padding to an archive that would exceed a quarter
	// of it.
	maxExpansion = 2000
	// FreeExpansion is the number of bytes for which that limit does not hold.
	FreeExpansion = 64 << 20
)

// Damaged returns the error for an archive that is not as it was written. what continues
// the sentence. The error is not io.EOF, with which readers say that all is well.
func Damaged(what string, cause error) *stoa.Error {
	if errors.Is(cause, io.EOF) {
		cause = io.ErrUnexpectedEOF
	}
	return stoa.Errorf(stoa.ArchiveDamaged, "The archive is damaged or incomplete: %s. Take another copy of it, or another archive.", what).WithCause(cause)
}
