package verify

import (
	"context"
	"fmt"

	"github.com/stoahq/stoa/internal/masterdb"
)

// rowReader reads the rows of a query in order, in chunks.
type rowReader[T any] struct {
	q     masterdb.Querier
	query string        // with $1, $2, … for the key of the previous row
	key   func(T) []any // returns the columns that the query is ordered by
	after []any
	chunk []T
	ended bool
}

const chunkSize = 2000

func newRowReader[T any](q masterdb.Querier, query string, key func(T) []any, first ...any) rowReader[T] {
	return rowReader[T]{q: q, query: query + fmt.Sprintf(` LIMIT %d`, chunkSize), key: key, after: first}
}

// next returns the next row if fits accepts it. Otherwise the row stays for the next
// call. ok is false when no row is returned.
func (s *rowReader[T]) next(ctx context.Context, fits func(T) bool) (row T, ok bool, err error) {
	if len(s.chunk) == 0 && !s.ended {
		s.chunk = nil
		if err := s.q.Select(ctx, &s.chunk, s.query, s.after...); err != nil {
			return row, false, err
		}
		s.ended = len(s.chunk) < chunkSize
		if n := len(s.chunk); n > 0 {
			s.after = s.key(s.chunk[n-1])
		}
	}
	if len(s.chunk) == 0 || !fits(s.chunk[0]) {
		return row, false, nil
	}
	row, s.chunk = s.chunk[0], s.chunk[1:]
	return row, true, nil
}
