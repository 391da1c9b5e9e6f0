package provisioning

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// A run is recorded as a row with its state, and as events, from which the states of its
// steps are derived.

// runs are the leases of provisioning runs. A run that waits for its job has no owner.
// Its claimed_until is the time at which Reconcile looks for the job.
var runs = lease.Table{Name: "provisioning_runs", Key: "id", Where: `state IN ('queued', 'running')`, KeepPresent: true}

// lease returns the lease of a run for that owner.
func (s *Service) lease(run stoa.RunID, owner lease.Owner) lease.Lease {
	return lease.Lease{Table: runs, Key: run, Owner: owner, Duration: s.opts.Lease}
}

// change is an event to be recorded: of a step or, when step is empty, of the run. A zero
// time means that of the transaction.
type change struct {
	step  string
	state State
	fault *Fault
	at    time.Time
}

// begun returns the last step that the changes start, or "".
func begun(changes []change) string {
	for _, c := range slices.Backward(changes) {
		if c.step != "" && c.state == Running {
			return c.step
		}
	}
	return ""
}

// transition is one change of the state of a run: a step ends and the next one starts, a
// step is repeated because of a fault, or the run ends.
type transition struct {
	ended step   // has no name if no step ends
	begun string // "" if no step starts
	fault *Fault // of the step that ended; or of the step that starts: why it is repeated
	at    time.Time
}

// failure returns the transition that ends a run with a fault in that step.
func failure(name string, fault *Fault) transition {
	return transition{ended: step{name: name, final: true}, fault: fault}
}

// changes returns the events of the transition.
func (t transition) changes() (all []change) {
	state := Succeeded
	if t.fault != nil {
		state = Failed
	}
	if t.ended.name != "" {
		all = append(all, change{step: t.ended.name, state: state, fault: t.fault, at: t.at})
	}
	switch {
	case t.ended.final:
		all = append(all, change{state: state, fault: t.fault})
	case t.ended.name != "" && t.begun != "":
		all = append(all, change{step: t.begun, state: Running, at: t.at})
	case t.begun != "":
		all = append(all, change{step: t.begun, state: Running, fault: t.fault, at: t.at})
	}
	return all
}

// recordDelay is the maximum delay between a change of a run and its record. Steps often
// follow each other within milliseconds. A step whose record is lost with the process is
// repeated.
const recordDelay = 100 * time.Millisecond

// mayDefer reports whether the end of a step may be recorded together with later steps.
// It is recorded at once when the run ends, when a long step follows, when the next step
// reads what is recorded, and when an earlier execution crashed, since a recorded step
// shows that this execution makes progress.
func (e *execution) mayDefer(t transition) bool {
	if t.ended.final || t.begun == "" || e.credentials != nil || e.crashes > 0 {
		return false
	}
	long := t.begun == "migrate" && !e.tenant.Engine.Embedded()
	return !long && time.Since(e.recordedAt) < recordDelay
}

// applyError is the reason why the changes of a step in the master database could not be
// recorded.
type applyError struct {
	error
	step  string
	index int // index in the pending transitions
}

func (e *applyError) Unwrap() error { return e.error }

// record commits the pending transitions and then the given ones, with what their
// steps change in the master database. It fails with lease.ErrLost when the lease has another owner.
func (e *execution) record(ctx context.Context, transitions ...transition) error {
	all := append(slices.Clip(e.pending), transitions...)
	var changes []change
	for _, t := range all {
		changes = append(changes, t.changes()...)
	}
	err := e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		log, err := e.updateRun(ctx, tx, changes)
		if err != nil {
			return err
		}
		for i, t := range all {
			if err := e.apply(ctx, tx, t); err != nil {
				return &applyError{err, t.ended.name, i}
			}
		}
		if err := e.tell(ctx, tx, changes[len(changes)-1]); err != nil {
			return err
		}
		return insertEvents(ctx, tx, e.run.ID, log, changes...)
	})
	if err == nil {
		e.pending, e.credentials, e.recordedAt = nil, nil, time.Now()
	}
	return err
}

// tell records the event that the run has ended, if the change is its end.
func (e *execution) tell(ctx context.Context, tx *masterdb.Tx, last change) error {
	data := map[string]string{"runId": e.run.ID.String()}
	switch {
	case last.step != "" || last.state != Succeeded && last.state != Failed:
		return nil
	case last.fault == nil:
		tx.AfterCommit(func() { e.ended.WithLabelValues(string(Succeeded)).Inc() })
		return events.Record(ctx, tx, events.DatabaseReady, e.run.StoreID, stoa.UserID{}, data)
	}
	tx.AfterCommit(func() { e.ended.WithLabelValues(string(Failed)).Inc() })
	data["code"], data["message"] = string(last.fault.Code), last.fault.Message
	return events.Record(ctx, tx, events.DatabaseFailed, e.run.StoreID, stoa.UserID{}, data)
}

// apply makes the changes of the transition in the master database.
func (e *execution) apply(ctx context.Context, tx *masterdb.Tx, t transition) error {
	switch {
	case t.ended.final && t.fault != nil:
		if err := tenantdb.RecordHealth(ctx, tx, e.run.StoreID, t.fault.Err()); err != nil {
			return err
		}
		return e.registry.FailProvisioning(ctx, tx, e.run.StoreID)
	case t.ended.apply != nil:
		return t.ended.apply(e, ctx, tx)
	}
	return nil
}

// updateRun writes the state of the run after the changes. The row is locked until tx
// ends. Only the owner of the lease writes it: an execution that was suspended must not
// overwrite the changes that another one has made since.
func (e *execution) updateRun(ctx context.Context, tx *masterdb.Tx, changes []change) (log eventLog, err error) {
	log.State = Running
	var fault *Fault
	var finished *time.Time
	var starts *int // nil: unchanged
	if slices.ContainsFunc(changes, func(c change) bool { return c.step != "" && c.state == Succeeded }) {
		starts = new(1) // the start of this execution
	}
	if last := changes[len(changes)-1]; last.step == "" {
		log.State, fault, finished, starts = last.state, last.fault, &tx.Now, new(0)
	}
	code, message := fault.columns()
	err = tx.Get(ctx, &log, `UPDATE provisioning_runs SET changes = changes + $4, step = CASE WHEN $5 = '' THEN step ELSE $5 END,
		state = $6, finished_at = $7, error_code = $8, error_message = $9, claimed_by = CASE WHEN $6 = 'running' THEN claimed_by END,
		unended_starts = coalesce($10, unended_starts)
		WHERE id = $1 AND attempt = $2 AND state = 'running' AND claimed_by = $3 RETURNING state, attempt, changes`,
		e.run.ID, e.run.Attempt, string(e.lease.Owner), len(changes), begun(changes), string(log.State), finished, code, message, starts)
	if errors.Is(err, masterdb.ErrNotFound) {
		return log, lease.ErrLost
	}
	return log, err
}

// insertRun records a new run. With an owner the run is in progress and leased. Without
// one it is queued, and its job has to start within the duration of a lease.
func (s *Service) insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, inProject bool, owner lease.Owner) (Run, error) {
	run := Run{ID: stoa.NewID[stoa.RunID](), StoreID: store, State: Queued, Attempt: 1, CreatedAt: tx.Now, InProject: inProject, Warnings: []tenantdb.Warning{}}
	changes, starts := []change{{state: Queued}}, 0
	if owner != "" {
		run.State, run.StartedAt, starts = Running, &tx.Now, 1
		changes = append(changes, change{state: Running}, change{step: run.steps()[0].name, state: Running})
	}
	run.Step = begun(changes)
	err := tx.ExecLater(ctx, `INSERT INTO provisioning_runs (id, store_id, state, step, attempt, changes, created_at, started_at, claimed_by, claimed_until,
			in_project, unended_starts)
		VALUES ($1, $2, $3, $4, 1, $5, $6, $7, nullif($8, ''), $9, $10, $11)`,
		run.ID, store, string(run.State), run.Step, len(changes), tx.Now, run.StartedAt, string(owner), tx.Now.Add(s.opts.Lease), inProject, starts)
	if err != nil {
		return run, err
	}
	if err := insertEvents(ctx, tx, run.ID, eventLog{Attempt: 1, Changes: int64(len(changes))}, changes...); err != nil {
		return run, err
	}
	run.Steps = stepsOf(run.steps(), nil)
	if owner != "" {
		run.Steps[0].State, run.Steps[0].StartedAt = Running, &tx.Now
	}
	return run, nil
}

// acquire leases the job's run to the owner and starts its first step that has not
// succeeded. The execution counts as a crash until a step or the run has ended. It fails
// with lease.ErrLost when the run has ended, when another execution has its lease, or
// when a later attempt than the job's exists.
func (s *Service) acquire(ctx context.Context, tx *masterdb.Tx, job Provision, owner lease.Owner) (*execution, error) {
	l := s.lease(job.RunID, owner)
	if err := l.Acquire(ctx, tx); err != nil {
		return nil, err
	}
	run, err := readRun(ctx, tx, `id = $1`, job.RunID)
	if err != nil {
		return nil, err
	}
	if run.Attempt != job.Attempt {
		return nil, lease.ErrLost
	}
	if run, err = withSteps(ctx, tx, run); err != nil {
		return nil, err
	}
	var changes []change
	if run.State == Queued {
		changes = append(changes, change{state: Running})
	}
	changes = append(changes, transition{begun: run.next(0)}.changes()...)
	var row struct {
		Attempt       int
		Changes       int64
		UnendedStarts int
	}
	err = tx.Get(ctx, &row, `UPDATE provisioning_runs SET state = 'running', started_at = coalesce(started_at, $2), changes = changes + $3,
		step = CASE WHEN $4 = '' THEN step ELSE $4 END, unended_starts = unended_starts + 1
		WHERE id = $1 RETURNING attempt, changes, unended_starts`, run.ID, tx.Now, len(changes), begun(changes))
	if err != nil {
		return nil, err
	}
	run.State = Running
	e := s.newExecution(run, l)
	e.crashes = row.UnendedStarts - 1
	if len(changes) == 0 {
		return e, nil
	}
	return e, insertEvents(ctx, tx, run.ID, eventLog{Attempt: row.Attempt, Changes: row.Changes}, changes...)
}

// releaseRun releases the lease of a run that has not ended. The execution does not count
// as a crash. It fails with lease.ErrLost when the lease has another owner.
func (e *execution) releaseRun(ctx context.Context, tx *masterdb.Tx) error {
	if err := e.lease.Release(ctx, tx); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET claimed_until = $2, unended_starts = unended_starts - 1 WHERE id = $1`,
		e.run.ID, tx.Now.Add(e.opts.Lease))
	return err
}

// requeue starts the next attempt of a failed run. Steps that succeeded keep that state.
func (s *Service) requeue(ctx context.Context, tx *masterdb.Tx, run stoa.RunID) (attempt int, err error) {
	var log eventLog
	err = tx.Get(ctx, &log, `UPDATE provisioning_runs SET state = 'queued', attempt = attempt + 1, changes = changes + 1, finished_at = NULL,
		error_code = NULL, error_message = NULL, claimed_by = NULL, claimed_until = $2, unended_starts = 0 WHERE id = $1 RETURNING attempt, changes`,
		run, tx.Now.Add(s.opts.Lease))
	if err != nil {
		return 0, err
	}
	return log.Attempt, insertEvents(ctx, tx, run, log, change{state: Queued})
}

func (s *Service) enqueue(ctx context.Context, tx *masterdb.Tx, run Run) error {
	return s.queue.Enqueue(ctx, tx, Provision{RunID: run.ID, Attempt: run.Attempt})
}

// insertEvents inserts the changes as the last events that the run's log counts, and
// notifies the callers that wait for the run. The caller has changed the run's row in tx,
// so that the numbers of events are in the order in which they become visible.
func insertEvents(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, log eventLog, changes ...change) error {
	var values []any
	for i, c := range changes {
		if c.at.IsZero() {
			c.at = tx.Now
		}
		code, message := c.fault.columns()
		values = append(values, run, log.Changes-int64(len(changes)-1-i), log.Attempt, c.step, string(c.state), code, message, c.at)
	}
	err := tx.ExecLater(ctx, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, error_code, error_message, created_at)
		VALUES `+masterdb.Placeholders(len(changes), 8), values...)
	if err != nil {
		return err
	}
	return tx.Notify(eventTopic, run.String())
}
