package archive

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"
)

// magic is the first line of the encrypted content, before the compressed part.
const magic = "stoa archive %d\n"

// A record begins with its kind and the length of its body, as four bytes, the most
// significant first.
const (
	recordHead    = 'H' // JSON: Head
	recordRows    = 'R' // encoded rows of the current table
	recordLinks   = 'L' // encoded links of the current table: see Table.links
	recordTable   = 'T' // JSON: Summary of the current table, which ends with it
	recordPadding = 'P' // random bytes
	recordEnd     = 'E' // JSON: Summary of the archive

	recordHeader = 5 // bytes
)

// window is the number of bytes that the compression looks back, which a reader must keep.
const window = 1 << 20

// Writer writes one archive. It is not safe for concurrent use.
type Writer struct {
	head  Head
	age   io.WriteCloser
	zstd  *zstd.Encoder
	out   countingWriter // counts compressed bytes
	plain int64          // bytes before the compression

	table int    // index of the current table
	kind  byte   // of the records in block
	block []byte // records that were not written yet
	count tally  // of the current table
	total tally
}

// NewWriter writes the beginning of an archive to dst. The archive can be opened with the
// identity of any of the recipients. It is complete when Close returns nil.
func NewWriter(dst io.Writer, head Head, recipients ...age.Recipient) (*Writer, error) {
	if err := head.check(); err != nil {
		return nil, fmt.Errorf("archive: the head cannot be written: %w", err)
	}
	if len(recipients) == 0 {
		return nil, errors.New("archive: no recipient")
	}
	w := &Writer{head: head}
	var err error
	if w.age, err = age.Encrypt(dst, recipients...); err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(w.age, magic, FormatVersion); err != nil {
		return nil, err
	}
	w.out.w = w.age
	if w.zstd, err = zstd.NewWriter(&w.out, zstd.WithEncoderConcurrency(1), zstd.WithWindowSize(window), zstd.WithLowerEncoderMem(true)); err != nil {
		return nil, err
	}
	return w, w.writeJSON(recordHead, head, maxHead)
}

// Row adds a row to the current table. values are those that a driver returns for the
// table's columns.
func (w *Writer) Row(values []any) error {
	if err := w.begin(recordRows); err != nil {
		return err
	}
	at := len(w.block)
	block, err := appendRow(w.block, w.head.Tables[w.table].Columns, values)
	if err != nil {
		return err
	}
	w.block = block
	w.count.add(block[at:])
	return w.flushFull()
}

// Link adds the references of a row to its own table. values are the row's key and these
// references. Links come after all rows of the table.
func (w *Writer) Link(values []any) error {
	if err := w.begin(recordLinks); err != nil {
		return err
	}
	t := w.head.Tables[w.table]
	block, err := appendRow(w.block, t.pick(t.links()), values)
	if err != nil {
		return err
	}
	w.block = block
	return w.flushFull()
}

// begin prepares the block for a row of a kind.
func (w *Writer) begin(kind byte) error {
	if w.table == len(w.head.Tables) {
		return errors.New("archive: all tables have ended")
	}
	if w.kind == kind {
		return nil
	}
	err := w.flush()
	w.kind = kind
	return err
}

func (w *Writer) flushFull() error {
	if len(w.block) < blockSize {
		return nil
	}
	return w.flush()
}

func (w *Writer) flush() error {
	if len(w.block) == 0 {
		return nil
	}
	err := w.write(w.kind, w.block)
	w.block = w.block[:0]
	if cap(w.block) > 2*blockSize { // after a very long row
		w.block = nil
	}
	return err
}

// EndTable ends the current table.
func (w *Writer) EndTable() (Summary, error) {
	if w.table == len(w.head.Tables) {
		return Summary{}, errors.New("archive: all tables have ended")
	}
	s := w.count.summary(w.head.Tables[w.table].Name)
	err := w.flush()
	if err == nil {
		err = w.writeJSON(recordTable, s, maxSummary)
	}
	w.total.addAll(w.count)
	w.count, w.kind = tally{}, 0
	w.table++
	return s, err
}

// Close writes the end of the archive, after every table has ended. It does not close the
// writer below. Without Close, the archive is incomplete and no reader accepts it.
func (w *Writer) Close() (Summary, error) {
	if w.table != len(w.head.Tables) {
		w.Abort()
		return Summary{}, errors.New("archive: a table has not ended")
	}
	total := w.total.summary("")
	err := w.writeJSON(recordEnd, total, maxSummary)
	if err == nil {
		err = w.zstd.Close()
	}
	if err == nil {
		err = w.age.Close()
	}
	return total, err
}

// Abort frees what the writer holds. The archive stays incomplete.
func (w *Writer) Abort() {
	w.out.w = io.Discard
	_ = w.zstd.Close()
}

func (w *Writer) writeJSON(kind byte, v any, most int) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > most {
		return fmt.Errorf("archive: a record %q of %d bytes", kind, len(body))
	}
	return w.write(kind, body)
}

func (w *Writer) write(kind byte, body []byte) error {
	header := binary.BigEndian.AppendUint32([]byte{kind}, uint32(len(body))) //nolint:gosec // at most maxBlock
	for _, part := range [][]byte{header, body} {
		if _, err := w.zstd.Write(part); err != nil {
			return err
		}
		w.plain += int64(len(part))
	}
	if kind == recordPadding || kind == recordEnd {
		return nil
	}
	return w.pad()
}

// pad writes random bytes if the content compresses so well that a reader would take the
// archive for one that was made to exhaust it.
func (w *Writer) pad() error {
	if w.plain < freeExpansion/4 {
		return nil
	}
	missing := w.plain/(maxExpansion/4) - w.out.n
	for missing > 0 {
		padding := make([]byte, min(missing, blockSize))
		_, _ = rand.Read(padding) // never fails: see crypto/rand
		missing -= int64(len(padding))
		if err := w.write(recordPadding, padding); err != nil {
			return err
		}
		if err := w.zstd.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// countingWriter counts the bytes written to w.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
