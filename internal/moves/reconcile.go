package moves

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// lost is the SQL condition of moves that no process works on although it is time. $1 is the
// time, $2 the name of this process.
var lost = moves.Where + ` AND ` + moves.Expired(1, 2)

// Watch enqueues jobs for moves that no process works on, until ctx is done.
func (s *Service) Watch(ctx context.Context) {
	tick := time.NewTicker(s.opts.Lease * 2 / 3)
	defer tick.Stop()
	for {
		if err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "lost moves not looked for", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Reconcile enqueues a job for each move that no process works on: its lease has expired, or
// its job did not start in time. Any number of replicas may call it.
func (s *Service) Reconcile(ctx context.Context) error {
	var n int
	if err := s.db.Get(ctx, &n, `SELECT count(*) FROM store_moves WHERE `+lost, s.db.Now(), s.process.Name()); err != nil || n == 0 {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.resume(ctx, tx) })
}

// Release expires, in tx, the leases of a process that has ended, and enqueues jobs for its
// moves.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	n, err := moves.ExpireProcess(ctx, tx, process)
	if err != nil || n == 0 {
		return err
	}
	return s.resume(ctx, tx)
}

func (s *Service) resume(ctx context.Context, tx *masterdb.Tx) error {
	lock := tx.ForUpdate()
	if lock != "" {
		lock += " SKIP LOCKED"
	}
	var ids []stoa.MoveID
	if err := tx.Select(ctx, &ids, `SELECT id FROM store_moves WHERE `+lost+` ORDER BY id LIMIT 1000`+lock, tx.Now, s.process.Name()); err != nil {
		return err
	}
	// A job may wait for a slot. One that waits for the next round of following would be too
	// late.
	all, err := jobs.WaitingSoon[Run](ctx, tx, 2*busyPause)
	if err != nil {
		return err
	}
	waiting := map[stoa.MoveID]bool{}
	for _, job := range all {
		waiting[job.MoveID] = true
	}
	for _, id := range ids {
		if !waiting[id] {
			if err := s.queue.Enqueue(ctx, tx, Run{MoveID: id}); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `UPDATE store_moves SET claimed_by = NULL, claimed_until = $2 WHERE id = $1`, id, tx.Now.Add(s.opts.Lease)); err != nil {
			return err
		}
	}
	return nil
}
