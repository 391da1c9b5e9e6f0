package provisioning

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// insertRun records a run with all its steps pending. Its job has patience to
// begin; see Reconcile.
func insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, patience time.Duration) (Run, error) {
	run := Run{ID: stoa.NewID[stoa.RunID](), StoreID: store, State: Queued, Attempt: 1, CreatedAt: tx.Now}
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at, claimed_until) VALUES ($1, $2, 'queued', 1, $3, $4)`,
		run.ID, store, tx.Now, tx.Now.Add(patience))
	if err != nil {
		return run, err
	}
	var values []any
	for i, step := range steps {
		run.Steps = append(run.Steps, Step{Name: step.name, State: Pending})
		values = append(values, run.ID, i+1, step.name, string(Pending))
	}
	_, err = tx.Exec(ctx, `INSERT INTO provisioning_steps (run_id, position, name, state) VALUES `+rows(len(steps), 4), values...)
	if err != nil {
		return run, err
	}
	return run, note(ctx, tx, run.ID, change{state: Queued})
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

// change is an event to be: of a step or, when that is empty, of the run.
type change struct {
	step  string
	state State
	fault *Fault
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
	var now struct {
		Attempt int
		Changes int64
	}
	err := tx.Get(ctx, &now, `UPDATE provisioning_runs SET changes = changes + $2, step = CASE WHEN $3 = '' THEN step ELSE $3 END
		WHERE id = $1 RETURNING attempt, changes`, run, len(changes), begun)
	if err != nil {
		return err
	}
	var values []any
	for i, c := range changes {
		code, message := c.fault.columns()
		values = append(values, run, now.Changes-int64(len(changes)-1-i), now.Attempt, c.step, string(c.state), code, message, tx.Now)
	}
	_, err = tx.Exec(ctx, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, error_code, error_message, created_at)
		VALUES `+rows(len(changes), 8), values...)
	return err
}

// advance ends a step and begins the next one; either may be empty. A step
// that has succeeded is left alone: another execution of the same job may have
// done it meanwhile.
func advance(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, ended, begun string) error {
	var changes []change
	if ended != "" {
		n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'succeeded', finished_at = $3, error_code = NULL, error_message = NULL
			WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, ended, tx.Now)
		if err != nil {
			return err
		}
		if n > 0 {
			changes = append(changes, change{step: ended, state: Succeeded})
		}
	}
	if begun != "" {
		n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'running', started_at = $3, finished_at = NULL,
			error_code = NULL, error_message = NULL WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, begun, tx.Now)
		if err != nil {
			return err
		}
		if n > 0 {
			changes = append(changes, change{step: begun, state: Running})
		}
	}
	return note(ctx, tx, run, changes...)
}

// noteFault keeps why a step is tried again. The step is still running.
func noteFault(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET error_code = $3, error_message = $4
		WHERE run_id = $1 AND name = $2 AND state = 'running'`, run, name, string(f.Code), f.Message)
	if err != nil || n == 0 {
		return err
	}
	return note(ctx, tx, run, change{name, Running, f})
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
	if err := note(ctx, tx, run, change{name, Failed, f}, change{state: Failed, fault: f}); err != nil {
		return err
	}
	return tx.Notify(ctx, endTopic, run.String())
}

func finishRun(ctx context.Context, tx *masterdb.Tx, run stoa.RunID) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'succeeded', finished_at = $2,
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, run, tx.Now)
	if err != nil {
		return err
	}
	if err := note(ctx, tx, run, change{state: Succeeded}); err != nil {
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
