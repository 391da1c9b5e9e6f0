package provisioning

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// insertRun records a run with these steps, all pending. Its job has patience to
// begin; see Reconcile.
func insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, names []string, patience time.Duration) (Run, error) {
	run := Run{ID: stoa.NewID[stoa.RunID](), StoreID: store, State: Queued, Attempt: 1, CreatedAt: tx.Now}
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_runs (id, store_id, state, attempt, changes, created_at, claimed_until)
		VALUES ($1, $2, 'queued', 1, 1, $3, $4)`, run.ID, store, tx.Now, tx.Now.Add(patience))
	if err != nil {
		return run, err
	}
	var values []any
	for i, name := range names {
		run.Steps = append(run.Steps, Step{Name: name, State: Pending})
		values = append(values, run.ID, i+1, name, string(Pending))
	}
	_, err = tx.Exec(ctx, `INSERT INTO provisioning_steps (run_id, position, name, state) VALUES `+rows(len(names), 4), values...)
	if err != nil {
		return run, err
	}
	return run, insertEvents(ctx, tx, run.ID, eventLog{Attempt: 1, Changes: 1}, change{state: Queued})
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

// change is an event to be: of a step or, when that is empty, of the run. The
// time is that of the transaction unless it is given.
type change struct {
	step  string
	state State
	fault *Fault
	at    time.Time
}

// note adds changes to the run's events; a step that begins is the run's from
// now on. The caller has changed a row of the run's in tx, or holds it: that
// keeps their numbers in the order in which they become visible.
func note(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, changes ...change) error {
	if len(changes) == 0 {
		return nil
	}
	begun := ""
	for _, c := range changes {
		if c.step != "" && c.state == Running {
			begun = c.step
		}
	}
	var log eventLog
	err := tx.Get(ctx, &log, `UPDATE provisioning_runs SET changes = changes + $2, step = CASE WHEN $3 = '' THEN step ELSE $3 END
		WHERE id = $1 RETURNING attempt, changes`, run, len(changes), begun)
	if err != nil {
		return err
	}
	return insertEvents(ctx, tx, run, log, changes...)
}

// insertEvents writes the last of the changes that the run's log counts.
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
	return err
}

// passage is the end of a step and the beginning of the next one, if any,
// with what the first has changed in the master, if anything.
type passage struct {
	ended, begun string
	at           time.Time
	also         func(*masterdb.Tx) error
}

// advance records passages in their order.
func advance(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, passed ...passage) error {
	var all []change
	for _, p := range passed {
		if p.also != nil {
			if err := p.also(tx); err != nil {
				return err
			}
		}
		ended, err := endStep(ctx, tx, run, p.ended, p.at)
		if err != nil {
			return err
		}
		begun, err := beginStep(ctx, tx, run, p.begun, p.at)
		if err != nil {
			return err
		}
		all = slices.Concat(all, ended, begun)
	}
	return note(ctx, tx, run, all...)
}

// endStep and beginStep return what is to be noted: nothing of no step, nor of
// one that has succeeded, which they leave alone. Another execution of the
// same job may have done it meanwhile.
func endStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, at time.Time) ([]change, error) {
	if name == "" {
		return nil, nil
	}
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'succeeded', finished_at = $3, error_code = NULL, error_message = NULL
		WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, at)
	if err != nil || n == 0 {
		return nil, err
	}
	return []change{{step: name, state: Succeeded, at: at}}, nil
}

func beginStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, at time.Time) ([]change, error) {
	if name == "" {
		return nil, nil
	}
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'running', started_at = $3, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, at)
	if err != nil || n == 0 {
		return nil, err
	}
	return []change{{step: name, state: Running, at: at}}, nil
}

// record brings the run's record up to date, to the end of passed, and then
// runs fn unless that is nil, in one master transaction. It fails with
// errOvertaken when the run is no longer this job's to write.
func (w *work) record(ctx context.Context, fn func(*masterdb.Tx) error, passed ...passage) error {
	err := w.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := w.hold(ctx, tx); err != nil {
			return err
		}
		if err := advance(ctx, tx, w.run.ID, slices.Concat(w.passed, passed)...); err != nil || fn == nil {
			return err
		}
		return fn(tx)
	})
	if err == nil {
		w.passed, w.recorded = nil, time.Now()
	}
	return err
}

// gather is how far the record of a run may be behind it. Steps often follow
// each other within milliseconds, and what is lost with the process is done
// again.
const gather = 100 * time.Millisecond

// done is the end of a step, with what it changes in the master, if anything.
// It may come to be recorded with the steps that follow; before one that can
// take long it is recorded at once.
func (w *work) done(ctx context.Context, step string, also func(*masterdb.Tx) error) error {
	p := w.passage(step, also)
	long := w.then == "migrate" && w.tenant.Engine != tenantdb.SQLite
	if w.then != "" && !long && time.Since(w.recorded) < gather {
		w.passed = append(w.passed, p)
		return nil
	}
	return w.record(ctx, nil, p)
}

func (w *work) passage(step string, also func(*masterdb.Tx) error) passage {
	return passage{step, w.then, time.Now().UTC().Truncate(time.Microsecond), also}
}

// noteFault keeps why a step is tried again. The step is still running.
func noteFault(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET error_code = $3, error_message = $4
		WHERE run_id = $1 AND name = $2 AND state = 'running'`, run, name, string(f.Code), f.Message)
	if err != nil || n == 0 {
		return err
	}
	return note(ctx, tx, run, change{step: name, state: Running, fault: f})
}

// failStep ends the run, too.
func failStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'failed', finished_at = $3, error_code = $4, error_message = $5
		WHERE run_id = $1 AND name = $2`, run, name, tx.Now, string(f.Code), f.Message)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'failed', finished_at = $2, error_code = $3, error_message = $4,
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, run, tx.Now, string(f.Code), f.Message)
	if err != nil {
		return err
	}
	if err := note(ctx, tx, run, change{step: name, state: Failed, fault: f}, change{state: Failed, fault: f}); err != nil {
		return err
	}
	return tx.Notify(ctx, endTopic, run.String())
}

// finishRun ends the run with its last step.
func finishRun(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, last string) error {
	changes, err := endStep(ctx, tx, run, last, tx.Now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'succeeded', finished_at = $2,
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, run, tx.Now)
	if err != nil {
		return err
	}
	if err := note(ctx, tx, run, append(changes, change{state: Succeeded})...); err != nil {
		return err
	}
	return tx.Notify(ctx, endTopic, run.String())
}

// requeue starts the next attempt of a failed run. Steps that succeeded keep
// their record: they are not done again.
func requeue(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, patience time.Duration) (attempt int, err error) {
	err = tx.Get(ctx, &attempt, `UPDATE provisioning_runs SET state = 'queued', attempt = attempt + 1, finished_at = NULL,
		error_code = NULL, error_message = NULL, claimed_by = NULL, claimed_until = $2 WHERE id = $1 RETURNING attempt`, run, tx.Now.Add(patience))
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'pending', started_at = NULL, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE run_id = $1 AND state <> 'succeeded'`, run)
	if err != nil {
		return 0, err
	}
	return attempt, note(ctx, tx, run, change{state: Queued})
}
