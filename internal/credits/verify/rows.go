package verify

import (
	"context"
	"fmt"

	"github.com/stoahq/stoa/internal/masterdb"
)

// rowReader reads the rows of a query in order, in chunks.
type rowReader[T any] struct {
	tx    *masterdb.Tx
	query string         // with $1, $2, … for the key of the previous row
	into  func(*T) []any // returns the destinations of the query's columns
	key   func(T) []any  // returns the columns that the query is ordered by
	after []any
	chunk []T
	at    int // the next row of the chunk
	ended bool
}

const chunkSize = 2000

func newRowReader[T any](tx *masterdb.Tx, query string, into func(*T) []any, key func(T) []any, first ...any) rowReader[T] {
	return rowReader[T]{tx: tx, query: query + fmt.Sprintf(` LIMIT %d`, chunkSize), into: into, key: key, after: first}
}

// next returns the next row if fits accepts it. Otherwise the row stays for the next
// call. ok is false when no row is returned.
func (s *rowReader[T]) next(ctx context.Context, fits func(T) bool) (row T, ok bool, err error) {
	if s.at == len(s.chunk) && !s.ended {
		if err := s.read(ctx); err != nil {
			return row, false, err
		}
	}
	if s.at == len(s.chunk) || !fits(s.chunk[s.at]) {
		return row, false, nil
	}
	s.at++
	return s.chunk[s.at-1], true, nil
}

// read reads the next chunk in place of the one before.
func (s *rowReader[T]) read(ctx context.Context) error {
	s.chunk, s.at = s.chunk[:0], 0
	var row, empty T
	err := s.tx.Each(ctx, s.query, s.after, s.into(&row), func() error {
		s.chunk = append(s.chunk, row)
		row = empty
		return nil
	})
	if err != nil {
		return err
	}
	s.ended = len(s.chunk) < chunkSize
	if n := len(s.chunk); n > 0 {
		s.after = s.key(s.chunk[n-1])
	}
	return nil
}
