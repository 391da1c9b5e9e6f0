package archive

import (
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
)

// These are the kinds of records.
const (
	recordHead  = 'H' // JSON: Head
	recordRows  = 'R' // encoded rows of the current table
	recordLinks = 'L' // encoded links of the current table: see Table.links
	recordTable = 'T' // JSON: Summary of the current table, which ends with it
	recordEnd   = 'E' // JSON: Summary of the archive
)

// Writer writes one archive. It compresses and encrypts a block of rows while the next one is
// filled. It is not safe for concurrent use.
type Writer struct {
	head Head
	out  *container.Writer // in use while writing is not nil

	table   int             // index of the current table
	kind    byte            // of the records in block
	block   []byte          // records that were not written yet
	written []byte          // the block before, which is being written or is free
	writing chan error      // receives the result of writing it; nil: it is free
	count   container.Tally // of the current table
	total   container.Tally
	content contentLimit
}

// NewWriter writes the beginning of an archive to dst. The archive can be opened with the
// identity of any of the recipients. It is complete when Close returns nil.
func NewWriter(dst io.Writer, head Head, recipients ...age.Recipient) (*Writer, error) {
	if err := head.check(); err != nil {
		return nil, fmt.Errorf("archive: the head cannot be written: %w", err)
	}
	out, err := container.NewWriter(dst, format, recipients...)
	if err != nil {
		return nil, err
	}
	return &Writer{head: head, out: out}, out.WriteJSON(recordHead, head, maxHead)
}

// Row adds a row to the current table. values are those that a driver returns for the
// table's columns.
func (w *Writer) Row(values []any) error {
	if w.table == len(w.head.Tables) {
		return errEnded
	}
	row, err := appendRow(nil, w.head.Tables[w.table].Columns, values)
	if err != nil {
		return err
	}
	return w.row(row)
}

// row adds an encoded row to the current table.
func (w *Writer) row(row []byte) error {
	if err := w.begin(recordRows, row); err != nil {
		return err
	}
	w.block = append(w.block, row...)
	w.count.Add(row)
	return w.flushFull()
}

// Link adds the references of a row to its own table. values are the row's key and these
// references. Links come after all rows of the table.
func (w *Writer) Link(values []any) error {
	if w.table == len(w.head.Tables) {
		return errEnded
	}
	t := w.head.Tables[w.table]
	link, err := appendRow(nil, t.pick(t.links()), values)
	if err != nil {
		return err
	}
	return w.link(link)
}

// link adds an encoded link to the current table.
func (w *Writer) link(link []byte) error {
	if err := w.begin(recordLinks, link); err != nil {
		return err
	}
	w.block = append(w.block, link...)
	return w.flushFull()
}

var errEnded = errors.New("archive: all tables have ended")

// begin prepares the block for a row of a kind.
func (w *Writer) begin(kind byte, row []byte) error {
	if w.table == len(w.head.Tables) {
		return errEnded
	}
	if err := w.content.take(row); err != nil {
		return err
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
	if err := w.wait(); err != nil {
		return err
	}
	kind, block, done := w.kind, w.block, make(chan error, 1)
	w.block, w.written, w.writing = w.written[:0], block, done
	go func() { done <- stoa.CatchPanic(func() error { return w.out.Write(kind, block) }) }()
	return nil
}

// wait waits until the block before is written. It returns the error of that once.
func (w *Writer) wait() error {
	if w.writing == nil {
		return nil
	}
	err := <-w.writing
	w.writing = nil
	if cap(w.written) > 2*blockSize { // after a very long row
		w.written = nil
	}
	return err
}

// EndTable ends the current table.
func (w *Writer) EndTable() (Summary, error) {
	if w.table == len(w.head.Tables) {
		return Summary{}, errEnded
	}
	s := w.count.Summary(w.head.Tables[w.table].Name)
	err := w.flush()
	if err == nil {
		err = w.wait()
	}
	if err == nil {
		err = w.out.WriteJSON(recordTable, s, maxSummary)
	}
	w.total.AddAll(w.count)
	w.count, w.kind = container.Tally{}, 0
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
	if err := w.wait(); err != nil {
		w.Abort()
		return Summary{}, err
	}
	total := w.total.Summary("")
	return total, w.out.Close(recordEnd, total, maxSummary)
}

// Abort frees what the writer holds, after which it does not use dst. The archive stays
// incomplete.
func (w *Writer) Abort() {
	_ = w.wait() // the archive is incomplete in any case
	w.out.Abort()
}
