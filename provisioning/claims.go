package provisioning

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
)

// A run under way is claimed by the one execution that works on it, so that no
// two do, on however many replicas. When a process ends, whoever notices releases
// its claims (Release), and the run goes on at once. The claim also holds for
// Options.Claim only and is renewed: so the claim of an execution that ended within
// a process that lives lapses by that process's own clock, and so does that of a
// process that nobody knows, such as one of an earlier release. Reconcile has such
// runs taken up again. A run that waits for its job has the same time for that,
// without a claimant.

// errOvertaken means that there is nothing to do: the run has ended, goes on
// in an attempt after the job's, or is another execution's.
var errOvertaken = errors.New("provisioning: the run is not this job's")

// errLapsed: the master could not be reached to renew a claim.
var errLapsed = errors.New("provisioning: the claim on the run could not be renewed")

// maxCrashes is how many executions of a run may die with their process before
// the run fails instead of being resumed. What the run meets at a database may
// be what ends the processes: of all replicas, one after the other. A step that
// is recorded as done takes the deaths before it off the count.
const maxCrashes = 2

func errCrashed() error {
	return stoa.Errorf(stoa.ProvisioningCrashed, "The platform stopped unexpectedly, %d times in a row, while it set up this database. "+
		"Nothing is lost. Try again; if it happens again, use another database and tell the operator the run's id.", maxCrashes)
}

// claimedElsewhere is an SQL condition: the claimant is an execution of another process
// that is present. $%d is the name of this one.
const claimedElsewhere = `EXISTS (SELECT 1 FROM processes p WHERE p.name <> $%d AND substr(claimed_by, 1, length(p.name) + 1) = p.name || '.')`

// claim marks the job's run as under way by claimant, begins its first step
// that is not done, and returns it. It may be under way already, left behind
// by an execution whose claim has ended. The execution counts from here on,
// before it works; crashes is how many before it died.
func (s *Service) claim(ctx context.Context, tx *masterdb.Tx, job Provision, claimant string) (run Run, crashes int, err error) {
	var counted struct{ UnendedStarts int }
	err = tx.Get(ctx, &counted, `UPDATE provisioning_runs SET claimed_by = $3, claimed_until = $4, unended_starts = unended_starts + 1
		WHERE id = $1 AND attempt = $2 AND state IN ('queued', 'running')
		AND (claimed_by IS NULL OR claimed_until IS NULL OR claimed_until < $5 AND NOT `+fmt.Sprintf(claimedElsewhere, 6)+`) RETURNING unended_starts`,
		job.RunID, job.Attempt, claimant, tx.Now.Add(s.opts.Claim), tx.Now, s.name)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Run{}, 0, errOvertaken
	}
	if err != nil {
		return Run{}, 0, err
	}
	run, err = resume(ctx, tx, job.RunID)
	return run, counted.UnendedStarts - 1, err
}

// resume begins the first step of a claimed run that is not done.
func resume(ctx context.Context, tx *masterdb.Tx, id stoa.RunID) (Run, error) {
	run, err := readRun(ctx, tx, `id = $1`, id)
	if err != nil {
		return Run{}, err
	}
	if run, err = withSteps(ctx, tx, run); err != nil {
		return Run{}, err
	}
	var changes []change
	if run.State == Queued {
		changes = append(changes, change{state: Running})
	}
	changes = append(changes, passage{begun: run.next(0)}.changes()...)
	if len(changes) == 0 {
		return run, nil
	}
	var log eventLog
	err = tx.Get(ctx, &log, `UPDATE provisioning_runs SET state = 'running', started_at = coalesce(started_at, $2), changes = changes + $3,
		step = CASE WHEN $4 = '' THEN step ELSE $4 END WHERE id = $1 RETURNING attempt, changes`, run.ID, tx.Now, len(changes), begun(changes))
	if err != nil {
		return Run{}, err
	}
	run.State = Running
	return run, insertEvents(ctx, tx, run.ID, log, changes...)
}

// claimant names one execution.
func (s *Service) claimant() string { return s.name + "." + strconv.FormatInt(s.works.Add(1), 10) }

// keep renews the claim until stop is called. The context it returns ends
// with the claim: its cause is errOvertaken, or errLapsed when nothing could
// be heard of the master for as long as the claim held.
func (w *work) keep(ctx context.Context) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(w.opts.Claim / 3)
		defer tick.Stop()
		for until := time.Now().Add(w.opts.Claim); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			asked := time.Now()
			switch err := w.renew(ctx, until); {
			case err == nil:
				until = asked.Add(w.opts.Claim)
			case errors.Is(err, errOvertaken):
				cancel(errOvertaken)
			case time.Now().After(until):
				cancel(errLapsed)
			default:
				w.log.WarnContext(ctx, "a claim could not be renewed yet", "run", w.run.ID.String(), "err", err)
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// renew prolongs the claim, if the master answers before it ends.
func (w *work) renew(ctx context.Context, until time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_until = $3 WHERE id = $1 AND claimed_by = $2`,
			w.run.ID, w.claimant, tx.Now.Add(w.opts.Claim))
		if err == nil && n == 0 {
			return errOvertaken
		}
		return err
	})
}

// release gives up the claim on a run that has not ended, so that it can go on
// at once: in its job or, where it has none, as handOver sees to. A claim that
// cannot be given up lapses, and its execution counts as one that died.
func (w *work) release(ctx context.Context, handOver func(context.Context, *masterdb.Tx) error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failTimeout)
	defer cancel()
	err := w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_by = NULL, claimed_until = $3, unended_starts = unended_starts - 1
			WHERE id = $1 AND claimed_by = $2`, w.run.ID, w.claimant, tx.Now.Add(w.opts.Claim))
		if err != nil || n == 0 || handOver == nil {
			return err
		}
		return handOver(ctx, tx)
	})
	if err != nil {
		w.log.WarnContext(ctx, "a claim could not be given up and lapses", "run", w.run.ID.String(), "err", err)
		w.here.keep()
	}
}

// Watch has lost runs taken up again until ctx is done. Every replica does so.
func (s *Service) Watch(ctx context.Context) {
	tick := time.NewTicker(s.opts.Claim * 2 / 3)
	defer tick.Stop()
	for {
		if _, err := s.Reconcile(ctx); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "lost provisioning runs could not be looked for", "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// lost is an SQL condition: a run is to be worked on and is nobody's. $1 is the
// time, $2 the name of this process.
var lost = `state IN ('queued', 'running') AND (claimed_until IS NULL OR claimed_until < $1) AND (claimed_by IS NULL OR NOT ` + fmt.Sprintf(claimedElsewhere, 2) + `)`

// Reconcile finds runs that are to be worked on and are nobody's: their claim
// has lapsed, or their job did not begin in time and is in no queue. It
// enqueues a job for each and returns how many those were. Any number of
// replicas may call it at once.
func (s *Service) Reconcile(ctx context.Context) (resumed int, err error) {
	var n int
	if err := s.db.Get(ctx, &n, `SELECT count(*) FROM provisioning_runs WHERE `+lost, s.db.Now(), s.name); err != nil || n == 0 {
		return 0, err // most looks end here, and lock nothing
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		resumed, err = s.takeUp(ctx, tx)
		return err
	})
	if err == nil && resumed > 0 {
		s.log.InfoContext(ctx, "provisioning runs that nobody worked on are taken up again", "runs", resumed)
	}
	return resumed, err
}

// Release gives up the claims of a process that has ended, in tx, and enqueues a
// job for each of its runs that has none.
func (s *Service) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	prefix := process + "."
	n, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_by = NULL, claimed_until = NULL
		WHERE state IN ('queued', 'running') AND substr(claimed_by, 1, $2) = $1`, prefix, len(prefix))
	if err != nil || n == 0 {
		return err
	}
	_, err = s.takeUp(ctx, tx)
	return err
}

// takeUp enqueues a job for each run that is nobody's, unless one waits for it.
func (s *Service) takeUp(ctx context.Context, tx *masterdb.Tx) (resumed int, err error) {
	lock := tx.ForUpdate()
	if lock != "" {
		lock += " SKIP LOCKED" // another replica's look, or the execution itself
	}
	var runs []struct {
		ID      stoa.RunID
		Attempt int
	}
	if err := tx.Select(ctx, &runs, `SELECT id, attempt FROM provisioning_runs WHERE `+lost+` ORDER BY created_at LIMIT 1000`+lock, tx.Now, s.name); err != nil || len(runs) == 0 {
		return 0, err
	}
	jobs, err := jobs.Waiting[Provision](ctx, tx)
	if err != nil {
		return 0, err
	}
	waiting := map[Provision]bool{}
	for _, job := range jobs {
		waiting[job] = true
	}
	for _, run := range runs {
		job := Provision{RunID: run.ID, Attempt: run.Attempt}
		if !waiting[job] {
			if err := s.queue.Enqueue(ctx, tx, job); err != nil {
				return resumed, err
			}
			resumed++
		}
		_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_by = NULL, claimed_until = $2 WHERE id = $1`, run.ID, tx.Now.Add(s.opts.Claim))
		if err != nil {
			return resumed, fmt.Errorf("run %s: %w", run.ID, err)
		}
	}
	return resumed, nil
}
