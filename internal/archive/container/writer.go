package container

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// Writer writes one archive. It is not safe for concurrent use.
type Writer struct {
	format Format
	age    io.WriteCloser
	zstd   *zstd.Encoder
	out    countingWriter // counts compressed bytes
	plain  int64          // bytes before the compression

	aborted bool
}

// NewWriter writes the first line of an archive to dst. The archive can be opened with the
// identity of any of the recipients. It is complete when Close returns nil.
func NewWriter(dst io.Writer, format Format, recipients ...age.Recipient) (*Writer, error) {
	if len(recipients) == 0 {
		return nil, errors.New("archive: no recipient")
	}
	w := &Writer{format: format}
	var err error
	if w.age, err = age.Encrypt(dst, recipients...); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(w.age, "%s %d\n", format.Name, format.Version); err != nil {
		return nil, err
	}
	w.out.w = w.age
	w.zstd, err = zstd.NewWriter(&w.out, zstd.WithEncoderConcurrency(2), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true))
	return w, err
}

// WriteJSON writes a record of JSON with at most the given number of bytes.
func (w *Writer) WriteJSON(kind byte, v any, most int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > most {
		return fmt.Errorf("archive: a record %q of %d bytes", kind, len(body))
	}
	return w.Write(kind, body)
}

// Write writes a record.
func (w *Writer) Write(kind byte, body []byte) error {
	if int64(len(body)) > w.format.MaxRecord {
		return fmt.Errorf("archive: a record %q of %d bytes", kind, len(body))
	}
	if err := w.write(kind, body); err != nil {
		return err
	}
	return w.pad()
}

func (w *Writer) write(kind byte, body []byte) error {
	if w.aborted {
		return errors.New("archive: the writer was aborted")
	}
	head := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body))) //nolint:gosec // at most MaxRecord
	for _, part := range [][]byte{head, body} {
		if _, err := w.zstd.Write(part); err != nil {
			return err
		}
		w.plain += int64(len(part))
	}
	return nil
}

// pad writes random bytes if the content compresses so well that a reader would take the
// archive for one that was made to exhaust it.
func (w *Writer) pad() error {
	if w.plain < FreeExpansion/4 {
		return nil
	}
	for {
		missing := w.plain/(maxExpansion/4) - w.out.n.Load()
		if missing <= 0 {
			return nil
		}
		padding := make([]byte, min(missing, w.format.MaxRecord, 1<<20))
		_, _ = rand.Read(padding) // never fails: see crypto/rand
		if err := w.write(PaddingRecord, padding); err != nil {
			return err
		}
		if err := w.zstd.Flush(); err != nil { // so that all of it is counted
			return err
		}
	}
}

// Close writes the last record and completes the archive. It does not close the writer
// below.
func (w *Writer) Close(kind byte, v any, most int) error {
	body, err := json.Marshal(v)
	if err != nil || len(body) > most {
		w.Abort()
		return errors.Join(err, fmt.Errorf("archive: a last record of %d bytes", len(body)))
	}
	if err := w.write(kind, body); err != nil { // without padding: nothing follows it
		return err
	}
	if err := w.zstd.Close(); err != nil {
		return err
	}
	return w.age.Close()
}

// Abort frees what the writer holds. The archive stays incomplete: nothing is written to it
// after Abort has returned, and Write and Close fail.
func (w *Writer) Abort() {
	w.aborted = true
	w.zstd.Reset(io.Discard) // waits for the compressor's goroutines
}

// countingWriter counts the bytes written to w. The compressor writes from a goroutine of
// its own, while the count is read.
type countingWriter struct {
	w io.Writer
	n atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n.Add(int64(n))
	return n, err
}
