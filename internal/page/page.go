// Package page implements keyset paging: the size of a page, cursors, and whether another
// page follows. A list runs from the newest row to the oldest. Its query selects the rows
// whose key is less than Bounds.Before, sorted by the key in descending order, with the
// limit Bounds.Rows. Cut makes the page from these rows. All reads a whole list in parts, from
// the oldest row to the newest.
//
// A cursor is the key of the last row of a page. Callers pass it back unchanged.
package page

import (
	"encoding/base64"
	"iter"
	"math"
	"strconv"

	"github.com/stoahq/stoa"
)

// These are the sizes of a page. A limit of 0 means DefaultLimit.
const (
	DefaultLimit = 20
	MaxLimit     = 100
)

// Bounds selects the rows of one page.
type Bounds[K any] struct {
	Limit  int // the rows of the page, at most
	Before K   // the key that the page's keys are less than
}

// Rows returns the LIMIT of the page's query: one row more than the page
// holds, which tells whether another page follows.
func (b Bounds[K]) Rows() int { return b.Limit + 1 }

// ByID returns the bounds of a page of a list that is sorted by id and whose
// cursor is the text of an id. It adds to faults a limit that is out of range
// and a cursor that is not an id.
func ByID[ID ~[16]byte](limit int, cursor string, faults *stoa.Invalid) Bounds[ID] {
	b := Bounds[ID]{Limit: size(limit, faults), Before: LastID[ID]()}
	if cursor == "" {
		return b
	}
	var err error
	if b.Before, err = stoa.ParseID[ID](cursor); err != nil {
		addCursorFault(faults)
	}
	return b
}

// ByEncodedID is ByID with the cursors of EncodeID.
func ByEncodedID[ID ~[16]byte](limit int, cursor string, faults *stoa.Invalid) Bounds[ID] {
	b := Bounds[ID]{Limit: size(limit, faults), Before: LastID[ID]()}
	if cursor == "" {
		return b
	}
	id, err := base64.RawURLEncoding.Strict().DecodeString(cursor)
	if err != nil || len(id) != 16 {
		addCursorFault(faults)
		return b
	}
	b.Before = ID([16]byte(id))
	return b
}

// BySequence is ByID for a list that is sorted by a number greater than 0,
// with the cursors of EncodeSequence.
func BySequence(limit int, cursor string, faults *stoa.Invalid) Bounds[int64] {
	b := Bounds[int64]{Limit: size(limit, faults), Before: math.MaxInt64}
	if cursor == "" {
		return b
	}
	sequence, ok := decodeSequence(cursor)
	if !ok {
		addCursorFault(faults)
		return b
	}
	b.Before = sequence
	return b
}

// LastID returns the id that sorts after every other.
func LastID[ID ~[16]byte]() ID {
	var last [16]byte
	for i := range last {
		last[i] = 0xff
	}
	return ID(last)
}

// EncodeID returns an id as a cursor of ByEncodedID.
func EncodeID[ID ~[16]byte](id ID) string {
	raw := [16]byte(id)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// EncodeSequence returns a number as a cursor of BySequence.
func EncodeSequence(sequence int64) string {
	return base64.RawURLEncoding.EncodeToString(strconv.AppendInt(nil, sequence, 10))
}

// decodeSequence decodes a cursor. It accepts only what EncodeSequence returns.
func decodeSequence(cursor string) (sequence int64, ok bool) {
	text, err := base64.RawURLEncoding.DecodeString(cursor)
	if err != nil {
		return 0, false
	}
	sequence, err = strconv.ParseInt(string(text), 10, 64)
	return sequence, err == nil && sequence > 0 && EncodeSequence(sequence) == cursor
}

// Cut returns the page of the rows that its query has selected, and the cursor
// of the next page, which is nil on the last. cursor returns the cursor of a row.
func Cut[Row any](rows []Row, limit int, cursor func(Row) string) (page []Row, next *string) {
	if len(rows) <= limit {
		return rows, nil
	}
	text := cursor(rows[limit-1])
	return rows[:limit], &text
}

// Part is how many rows All asks for at a time.
const Part = 500

// All yields every row of a list in the order of their ids. It holds Part of them in memory:
// read returns the next ones, those after an id, and fewer than Part at the end. An error ends
// the sequence.
func All[ID ~[16]byte, Row any](idOf func(Row) ID, read func(after ID) ([]Row, error)) iter.Seq2[Row, error] {
	return func(yield func(Row, error) bool) {
		var after ID
		for {
			rows, err := read(after)
			if err != nil {
				var none Row
				yield(none, err)
				return
			}
			for _, row := range rows {
				if !yield(row, nil) {
					return
				}
				after = idOf(row)
			}
			if len(rows) < Part {
				return
			}
		}
	}
}

// size returns the number of rows of a page, which is valid if no fault is added.
func size(limit int, faults *stoa.Invalid) int {
	if limit < 0 || limit > MaxLimit {
		faults.Add("limit", "must be between 1 and %d", MaxLimit)
	}
	if limit == 0 {
		return DefaultLimit
	}
	return limit
}

func addCursorFault(faults *stoa.Invalid) {
	faults.Add("cursor", "is not a cursor of this list; begin again without one")
}
