package moves

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// lostMove is a move that no process works on although it is time.
type lostMove struct{ ID stoa.MoveID }

// Key implements lease.Work.
func (m lostMove) Key() any { return m.ID }

// Recovery resumes lost moves.
func (s *Service) Recovery() *lease.Recovery[lostMove] {
	return &lease.Recovery[lostMove]{DB: s.db, Log: s.log, Table: moves, Columns: "id", Process: s.process, Duration: s.opts.Lease, Enqueue: s.enqueueLost}
}

// enqueueLost enqueues a job for each move that has none.
func (s *Service) enqueueLost(ctx context.Context, tx *masterdb.Tx, lost []lostMove) (enqueued int, err error) {
	// A job may wait for a slot. One that waits for the next round of following would be too
	// late.
	all, err := jobs.WaitingSoon[Run](ctx, tx, 2*busyPause)
	if err != nil {
		return 0, err
	}
	waiting := map[stoa.MoveID]bool{}
	for _, job := range all {
		waiting[job.MoveID] = true
	}
	for _, m := range lost {
		if waiting[m.ID] {
			continue
		}
		if err := s.queue.Enqueue(ctx, tx, Run{MoveID: m.ID}); err != nil {
			return 0, err
		}
		enqueued++
	}
	return enqueued, nil
}
