package traffic

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// flushBatch is the number of rows that one statement writes.
const flushBatch = 500

// row is a count with its key.
type row struct {
	key
	count
}

// Flush adds the counts to the table. The counts of a batch that fails are kept for the
// next flush.
func (s *Service) Flush(ctx context.Context) error {
	rows, dropped := s.take()
	if dropped > 0 {
		s.log.WarnContext(ctx, "requests to stores not counted: too many stores had requests in one minute", "requests", dropped)
	}
	for batch := range slices.Chunk(rows, flushBatch) {
		err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return store(ctx, tx, batch) })
		if err != nil {
			s.giveBack(rows)
			return err
		}
		rows = rows[len(batch):]
	}
	return nil
}

// take removes the counts and returns them in the order of their keys, so that two
// processes lock the same rows in the same order.
func (s *Service) take() (rows []row, dropped int64) {
	s.mu.Lock()
	counts := s.counts
	s.counts, dropped, s.dropped = map[key]*count{}, s.dropped, 0
	s.mu.Unlock()
	rows = make([]row, 0, len(counts))
	for k, c := range counts {
		rows = append(rows, row{k, *c})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(bytes.Compare(a.store[:], b.store[:]), cmp.Compare(a.hour, b.hour))
	})
	return rows, dropped
}

func (s *Service) giveBack(rows []row) {
	for _, r := range rows {
		s.add(r.key, r.count)
	}
	select {
	case s.wake <- struct{}{}:
	default: // Run already has a wake-up pending
	}
}

// store adds rows to the table in one statement.
func store(ctx context.Context, tx *masterdb.Tx, rows []row) error {
	var values strings.Builder
	args := make([]any, 0, 6*len(rows))
	for i, r := range rows {
		if i > 0 {
			values.WriteString(", ")
		}
		n := len(args)
		fmt.Fprintf(&values, "($%d, $%d, $%d, $%d, $%d, $%d)", n+1, n+2, n+3, n+4, n+5, n+6)
		args = append(args, r.store, time.Unix(r.hour*3600, 0).UTC(), r.requests, r.errors, r.total.Milliseconds(), r.slowest.Milliseconds())
	}
	return tx.ExecLater(ctx, `INSERT INTO store_traffic (store_id, hour, requests, errors, total_ms, slowest_ms) VALUES `+values.String()+`
		ON CONFLICT (store_id, hour) DO UPDATE SET requests = store_traffic.requests + excluded.requests,
			errors = store_traffic.errors + excluded.errors, total_ms = store_traffic.total_ms + excluded.total_ms,
			slowest_ms = CASE WHEN excluded.slowest_ms > store_traffic.slowest_ms THEN excluded.slowest_ms ELSE store_traffic.slowest_ms END`, args...)
}
