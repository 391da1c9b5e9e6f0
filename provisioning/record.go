package provisioning

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// A run's record is its row, which says how it stands, and its events, which
// say how that came about. How its steps stand is told from the events.

// change is an event to be: of a step or, when that is empty, of the run. The
// time is that of the transaction unless it is given.
type change struct {
	step  string
	state State
	fault *Fault
	at    time.Time
}

// begun returns the last step that the changes begin, or "".
func begun(changes []change) string {
	for _, c := range slices.Backward(changes) {
		if c.step != "" && c.state == Running {
			return c.step
		}
	}
	return ""
}

// insertRun records a run. With a claimant it is under way already; without,
// it has so long to find one; see Reconcile.
func insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, inProject bool, claimant string, hold time.Duration) (Run, error) {
	run := Run{ID: stoa.NewID[stoa.RunID](), StoreID: store, State: Queued, Attempt: 1, CreatedAt: tx.Now, InProject: inProject, Warnings: []tenantdb.Warning{}}
	changes := []change{{state: Queued}}
	if claimant != "" {
		run.State, run.StartedAt = Running, &tx.Now
		changes = append(changes, change{state: Running}, change{step: run.steps()[0].name, state: Running})
	}
	run.Step = begun(changes)
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_runs (id, store_id, state, step, attempt, changes, created_at, started_at, claimed_by, claimed_until,
			in_project, unended_starts)
		VALUES ($1, $2, $3, $4, 1, $5, $6, $7, nullif($8, ''), $9, $10, CASE WHEN $8 = '' THEN 0 ELSE 1 END)`,
		run.ID, store, string(run.State), run.Step, len(changes), tx.Now, run.StartedAt, claimant, tx.Now.Add(hold), inProject)
	if err != nil {
		return run, err
	}
	if err := insertEvents(ctx, tx, run.ID, eventLog{Attempt: 1, Changes: int64(len(changes))}, changes...); err != nil {
		return run, err
	}
	run.Steps = stepsOf(run.steps(), nil)
	if claimant != "" {
		run.Steps[0].State, run.Steps[0].StartedAt = Running, &tx.Now
	}
	return run, nil
}

// insertEvents writes the last of the changes that the run's log counts. The
// caller has changed the run's row in tx: that keeps their numbers in the order
// in which they become visible.
func insertEvents(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, log eventLog, changes ...change) error {
	var values []any
	for i, c := range changes {
		if c.at.IsZero() {
			c.at = tx.Now
		}
		code, message := c.fault.columns()
		values = append(values, run, log.Changes-int64(len(changes)-1-i), log.Attempt, c.step, string(c.state), code, message, c.at)
	}
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, error_code, error_message, created_at)
		VALUES `+rows(len(changes), 8), values...)
	return errors.Join(err, tx.Notify(endTopic, run.String()))
}

// rows are the placeholders of n rows of so many columns.
func rows(n, columns int) string {
	var b strings.Builder
	for i := range n * columns {
		switch {
		case i == 0:
			b.WriteString("(")
		case i%columns == 0:
			b.WriteString("), (")
		default:
			b.WriteString(", ")
		}
		b.WriteString("$" + strconv.Itoa(i+1))
	}
	return b.String() + ")"
}

// passage is the end of a step and the beginning of the next one, if any,
// with what the first has changed in the master, if anything. The step's own
// context may have ended when that is recorded: also gets another.
type passage struct {
	ended, begun string
	at           time.Time
	also         func(context.Context, *masterdb.Tx) error
}

// passageError is why what a step has changed in the master could not be
// recorded.
type passageError struct {
	error
	place int // in work.passed
	step  string
}

func (e *passageError) Unwrap() error { return e.error }

func (p passage) changes() (all []change) {
	if p.ended != "" {
		all = append(all, change{step: p.ended, state: Succeeded, at: p.at})
	}
	if p.begun != "" {
		all = append(all, change{step: p.begun, state: Running, at: p.at})
	}
	return all
}

// record brings the run's record up to date, to the end of what has passed and
// with these changes, runs fn unless that is nil, and tells who waits when the
// run has ended, all in one master transaction. It fails with errOvertaken
// when the run is no longer this execution's to write.
func (w *work) record(ctx context.Context, fn func(context.Context, *masterdb.Tx) error, changes ...change) error {
	var all []change
	for _, p := range w.passed {
		all = append(all, p.changes()...)
	}
	all = append(all, changes...)
	err := w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		log, err := w.move(ctx, tx, all)
		if err != nil {
			return err
		}
		for i, p := range w.passed {
			if p.also == nil {
				continue
			}
			if err := p.also(ctx, tx); err != nil {
				return &passageError{err, i, p.ended}
			}
		}
		if fn != nil {
			if err := fn(ctx, tx); err != nil {
				return err
			}
		}
		if err := insertEvents(ctx, tx, w.run.ID, log, all...); err != nil || log.State == Running {
			return err
		}
		return tx.Notify(endTopic, w.run.ID.String())
	})
	if err == nil {
		w.passed, w.recorded = nil, time.Now()
	}
	return err
}

// move brings the run's row to where it stands after the changes. It keeps
// everybody else from writing to the run before tx ends: an execution that was
// thought dead must not write over what another one has done since.
func (w *work) move(ctx context.Context, tx *masterdb.Tx, changes []change) (log eventLog, err error) {
	log.State = Running
	var fault *Fault
	var finished *time.Time
	var starts *int // nil: as many as before
	if slices.ContainsFunc(changes, func(c change) bool { return c.step != "" && c.state == Succeeded }) {
		starts = new(1) // this one
	}
	if last := changes[len(changes)-1]; last.step == "" {
		log.State, fault, finished, starts = last.state, last.fault, &tx.Now, new(0)
	}
	code, message := fault.columns()
	err = tx.Get(ctx, &log, `UPDATE provisioning_runs SET changes = changes + $4, step = CASE WHEN $5 = '' THEN step ELSE $5 END,
		state = $6, finished_at = $7, error_code = $8, error_message = $9, claimed_by = CASE WHEN $6 = 'running' THEN claimed_by END,
		unended_starts = coalesce($10, unended_starts)
		WHERE id = $1 AND attempt = $2 AND state = 'running' AND claimed_by = $3 RETURNING state, attempt, changes`,
		w.run.ID, w.run.Attempt, w.claimant, len(changes), begun(changes), string(log.State), finished, code, message, starts)
	if errors.Is(err, masterdb.ErrNotFound) {
		return log, errOvertaken
	}
	return log, err
}

// gather is how far the record of a run may be behind it. Steps often follow
// each other within milliseconds, and what is lost with the process is done
// again.
const gather = 100 * time.Millisecond

// done is the end of a step, with what it changes in the master, if anything.
// It may come to be recorded with the steps that follow; before one that can
// take long it is recorded at once, and so it is when the execution before this
// one died: what is recorded says that this one gets further.
func (w *work) done(ctx context.Context, step string, also func(context.Context, *masterdb.Tx) error) error {
	long := w.then == "migrate" && w.tenant.Engine != tenantdb.SQLite
	if w.then != "" && !long && w.crashes == 0 && time.Since(w.recorded) < gather {
		w.passed = append(w.passed, w.passage(step, also))
		return nil
	}
	return w.record(ctx, also, w.passage(step, nil).changes()...)
}

func (w *work) passage(step string, also func(context.Context, *masterdb.Tx) error) passage {
	return passage{step, w.then, w.db.Now(), also}
}

// requeue starts the next attempt of a failed run. Steps that succeeded keep
// their record: they are not done again.
func requeue(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, patience time.Duration) (attempt int, err error) {
	var log eventLog
	err = tx.Get(ctx, &log, `UPDATE provisioning_runs SET state = 'queued', attempt = attempt + 1, changes = changes + 1, finished_at = NULL,
		error_code = NULL, error_message = NULL, claimed_by = NULL, claimed_until = $2, unended_starts = 0 WHERE id = $1 RETURNING attempt, changes`,
		run, tx.Now.Add(patience))
	if err != nil {
		return 0, err
	}
	return log.Attempt, insertEvents(ctx, tx, run, log, change{state: Queued})
}
