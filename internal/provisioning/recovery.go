package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// maxCrashes is how many executions of a run may end with their process. After that the
// run fails instead of being resumed, since its database may crash the processes of all
// replicas, one after the other. A recorded end of a step resets the count.
const maxCrashes = 2

func errCrashed() error {
	return stoa.Errorf(stoa.ProvisioningCrashed, "The platform stopped unexpectedly, %d times in a row, while it set up this database. "+
		"Nothing is lost. Try again; if it happens again, use another database and tell the operator the run's id.", maxCrashes)
}

// lostRun is a run in progress that no process executes.
type lostRun struct {
	ID      stoa.RunID
	Attempt int
}

// Key implements lease.Work.
func (r lostRun) Key() any { return r.ID }

// Recovery resumes lost runs.
func (s *Service) Recovery() *lease.Recovery[lostRun] {
	return &lease.Recovery[lostRun]{DB: s.db, Log: s.log, Table: runs, Columns: "id, attempt", Process: s.process, Duration: s.opts.Lease, Enqueue: s.enqueueLost}
}

// enqueueLost enqueues a job for each run that has none.
func (s *Service) enqueueLost(ctx context.Context, tx *masterdb.Tx, lost []lostRun) (enqueued int, err error) {
	all, err := jobs.Waiting[Provision](ctx, tx)
	if err != nil {
		return 0, err
	}
	waiting := map[Provision]bool{}
	for _, job := range all {
		waiting[job] = true
	}
	for _, run := range lost {
		job := Provision{RunID: run.ID, Attempt: run.Attempt}
		if waiting[job] {
			continue
		}
		if err := s.queue.Enqueue(ctx, tx, job); err != nil {
			return 0, err
		}
		enqueued++
	}
	return enqueued, nil
}
