package backups

import (
	"context"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// progressEvery limits how often the progress of a job is recorded.
const progressEvery = 2 * time.Second

// progress returns a function that records the progress of a job by write, at once and then
// unless that was recorded just before. A progress that cannot be recorded is none: the job
// goes on. The function is not safe for concurrent use.
func (s *Service) progress(write func(*masterdb.Tx) error) func(context.Context) {
	var last time.Time
	return func(ctx context.Context) {
		if time.Since(last) < progressEvery {
			return
		}
		if err := s.db.Tx(ctx, write); err != nil {
			s.log.DebugContext(ctx, "progress not recorded", "err", err)
		}
		last = time.Now()
	}
}

// loading returns a function that counts the rows that a step of a restore has read or
// stored, of total, and records them.
func (s *Service) loading(ctx context.Context, r restoreRow, total int64) func(rows int64) {
	var done int64
	record := s.progress(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE backup_restores SET rows_done = $3, rows_total = $4 WHERE id = $1 AND claimed_by = $2`, r.ID, string(r.owner), done, total)
		return err
	})
	return func(rows int64) {
		done += rows
		record(ctx)
	}
}
