package provisioning

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// insertRun records a run with all its steps pending. Its job has patience to
// begin; see Reconcile.
func insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, patience time.Duration) (stoa.RunID, error) {
	id := stoa.NewID[stoa.RunID]()
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at, claimed_until) VALUES ($1, $2, 'queued', 1, $3, $4)`,
		id, store, tx.Now, tx.Now.Add(patience))
	for i, step := range steps {
		if err != nil {
			return id, err
		}
		_, err = tx.Exec(ctx, `INSERT INTO provisioning_steps (run_id, position, name, state) VALUES ($1, $2, $3, 'pending')`,
			id, i+1, step.name)
	}
	if err != nil {
		return id, err
	}
	return id, noteRun(ctx, tx, id, Queued, nil)
}

// noteRun and noteStep add a change to the run's events. The caller has
// changed a row of the run's in tx, or holds it: that keeps their numbers in
// the order in which they become visible.
func noteRun(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, state State, f *Fault) error {
	return noteStep(ctx, tx, run, "", state, f)
}

func noteStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, step string, state State, f *Fault) error {
	if _, err := tx.Exec(ctx, `UPDATE provisioning_runs SET changes = changes + 1 WHERE id = $1`, run); err != nil {
		return err
	}
	code, message := f.columns()
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_events (run_id, seq, attempt, step, state, error_code, error_message, created_at)
		SELECT id, changes, attempt, $2, $3, $4, $5, $6 FROM provisioning_runs WHERE id = $1`,
		run, step, string(state), code, message, tx.Now)
	return err
}

// startStep and finishStep leave a step alone that has succeeded: another
// execution of the same job may have done it meanwhile.
func startStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string) error {
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'running', started_at = $3, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, tx.Now)
	if err != nil {
		return err
	}
	if _, err = tx.Exec(ctx, `UPDATE provisioning_runs SET step = $2 WHERE id = $1`, run, name); err != nil || n == 0 {
		return err
	}
	return noteStep(ctx, tx, run, name, Running, nil)
}

// noteFault keeps why a step is tried again. The step is still running.
func noteFault(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET error_code = $3, error_message = $4
		WHERE run_id = $1 AND name = $2 AND state = 'running'`, run, name, string(f.Code), f.Message)
	if err != nil || n == 0 {
		return err
	}
	return noteStep(ctx, tx, run, name, Running, f)
}

func finishStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string) error {
	n, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'succeeded', finished_at = $3, error_code = NULL, error_message = NULL
		WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, tx.Now)
	if err != nil || n == 0 {
		return err
	}
	return noteStep(ctx, tx, run, name, Succeeded, nil)
}

// failStep ends the run, too.
func failStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'failed', finished_at = $3, error_code = $4, error_message = $5
		WHERE run_id = $1 AND name = $2`, run, name, tx.Now, string(f.Code), f.Message)
	if err != nil {
		return err
	}
	if err := noteStep(ctx, tx, run, name, Failed, f); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'failed', finished_at = $2, error_code = $3, error_message = $4,
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, run, tx.Now, string(f.Code), f.Message)
	if err != nil {
		return err
	}
	return noteRun(ctx, tx, run, Failed, f)
}

func finishRun(ctx context.Context, tx *masterdb.Tx, run stoa.RunID) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'succeeded', finished_at = $2,
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, run, tx.Now)
	if err != nil {
		return err
	}
	return noteRun(ctx, tx, run, Succeeded, nil)
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
	return attempt, noteRun(ctx, tx, run, Queued, nil)
}
