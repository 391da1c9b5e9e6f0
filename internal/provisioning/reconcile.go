package provisioning

import (
	"context"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// A run in progress is leased to the one execution that works on it, on any replica. When
// a process ends, Release expires its leases, and its runs are resumed at once. A lease
// also expires when it is not renewed. This covers an execution that ended within a live
// process (by the clock of that process), and a process that is not recorded, such as one
// of an earlier release. Reconcile resumes these runs.

// maxCrashes is how many executions of a run may end with their process. After that the
// run fails instead of being resumed, since its database may crash the processes of all
// replicas, one after the other. A recorded end of a step resets the count.
const maxCrashes = 2

func errCrashed() error {
	return stoa.Errorf(stoa.ProvisioningCrashed, "The platform stopped unexpectedly, %d times in a row, while it set up this database. "+
		"Nothing is lost. Try again; if it happens again, use another database and tell the operator the run's id.", maxCrashes)
}

// Watch resumes lost runs until ctx is done. Every replica does so.
func (s *Service) Watch(ctx context.Context) {
	tick := time.NewTicker(s.opts.Lease * 2 / 3)
	defer tick.Stop()
	for {
		if _, err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "lost provisioning runs not looked for", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lost is the SQL condition of runs that no process executes. $1 is the time, $2 the name
// of this process.
var lost = runs.Where + ` AND ` + runs.Expired(1, 2)

// Reconcile enqueues a job for each run that no process executes: its lease has expired,
// or its job did not start in time and is in no queue. It returns the number of jobs. Any
// number of replicas may call it concurrently.
func (s *Service) Reconcile(ctx context.Context) (resumed int, err error) {
	var n int
	if err := s.db.Get(ctx, &n, `SELECT count(*) FROM provisioning_runs WHERE `+lost, s.db.Now(), s.process.Name()); err != nil || n == 0 {
		return 0, err // the usual case, in which nothing is locked
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		resumed, err = s.resumeLost(ctx, tx)
		return err
	})
	if err == nil && resumed > 0 {
		s.log.InfoContext(ctx, "lost provisioning runs resumed", "runs", resumed)
	}
	return resumed, err
}

// Release expires, in tx, the leases of a process that has ended, and enqueues a
// job for each of its runs that has none.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	n, err := runs.ExpireProcess(ctx, tx, process)
	if err != nil || n == 0 {
		return err
	}
	_, err = s.resumeLost(ctx, tx)
	return err
}

// resumeLost enqueues a job for each lost run, unless a job is already waiting.
func (s *Service) resumeLost(ctx context.Context, tx *masterdb.Tx) (resumed int, err error) {
	lock := tx.ForUpdate()
	if lock != "" {
		lock += " SKIP LOCKED" // the row may be locked by another replica's Reconcile or by the execution itself
	}
	var rows []struct {
		ID      stoa.RunID
		Attempt int
	}
	err = tx.Select(ctx, &rows, `SELECT id, attempt FROM provisioning_runs WHERE `+lost+` ORDER BY created_at LIMIT 1000`+lock, tx.Now, s.process.Name())
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	all, err := jobs.Waiting[Provision](ctx, tx)
	if err != nil {
		return 0, err
	}
	waiting := map[Provision]bool{}
	for _, job := range all {
		waiting[job] = true
	}
	for _, run := range rows {
		job := Provision{RunID: run.ID, Attempt: run.Attempt}
		if !waiting[job] {
			if err := s.queue.Enqueue(ctx, tx, job); err != nil {
				return resumed, err
			}
			resumed++
		}
		_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_by = NULL, claimed_until = $2 WHERE id = $1`, run.ID, tx.Now.Add(s.opts.Lease))
		if err != nil {
			return resumed, fmt.Errorf("run %s: %w", run.ID, err)
		}
	}
	return resumed, nil
}
