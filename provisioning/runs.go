// Package provisioning turns a store and credentials into a working store,
// step by step. Each run and each of its steps is recorded in the master
// database as it goes.
package provisioning

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

// State is the state of a run or of a step.
type State string

// The states. A step is pending where a run is queued.
const (
	Queued    State = "queued"
	Pending   State = "pending"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
)

// Run is one attempt to give a store its database.
type Run struct {
	ID         stoa.RunID
	StoreID    stoa.StoreID
	State      State
	Step       string // the step under way, or the one that failed
	Attempt    int
	Fault      *Fault `db:"-"`
	Steps      []Step `db:"-"`
	CreatedAt  time.Time
	StartedAt  *time.Time
	FinishedAt *time.Time
}

// Done reports whether the run has ended, well or not.
func (r Run) Done() bool { return r.State == Succeeded || r.State == Failed }

// did reports whether a step is behind the run.
func (r Run) did(step string) bool {
	return slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Name == step && s.State == Succeeded })
}

// Step is one step of a run.
type Step struct {
	Name       string
	State      State
	Fault      *Fault `db:"-"`
	StartedAt  *time.Time
	FinishedAt *time.Time
}

// Fault is why a step failed, fit for the store's owner.
type Fault struct {
	Code    stoa.Code
	Message string
}

// Err returns the fault as the error that the API would give.
func (f *Fault) Err() error {
	if f == nil {
		return nil
	}
	return &stoa.Error{Code: f.Code, Message: f.Message}
}

func newFault(code, message *string) *Fault {
	if code == nil || message == nil {
		return nil
	}
	return &Fault{Code: stoa.Code(*code), Message: *message}
}

// faultOf keeps the message of an error that is meant for people and hides
// every other one.
func faultOf(err error) *Fault {
	var e *stoa.Error
	if errors.As(err, &e) {
		return &Fault{Code: e.Code, Message: e.Message}
	}
	return &Fault{Code: stoa.Internal, Message: "Something went wrong on our side. Try again; if it persists, tell the operator the run's id."}
}

// Latest returns the store's last run with its steps, or not_found when
// there never was one.
func (s *Service) Latest(ctx context.Context, p access.Principal, store stoa.StoreID) (Run, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.ReadStore); err != nil {
		return Run{}, err
	}
	run, err := latest(ctx, s.db, store)
	if err != nil {
		return Run{}, err
	}
	return withSteps(ctx, s.db, run)
}

// read returns a run with its steps.
func (s *Service) read(ctx context.Context, id stoa.RunID) (Run, error) {
	run, err := readRun(ctx, s.db, `id = $1`, id)
	if err != nil {
		return Run{}, err
	}
	return withSteps(ctx, s.db, run)
}

func latest(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Run, error) {
	// The id breaks the tie of two runs in one microsecond.
	return readRun(ctx, q, `store_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1`, store)
}

func readRun(ctx context.Context, q masterdb.Querier, where string, arg any) (Run, error) {
	var row struct {
		Run
		ErrorCode    *string
		ErrorMessage *string
	}
	err := q.Get(ctx, &row, `SELECT id, store_id, state, step, attempt, error_code, error_message, created_at, started_at, finished_at
		FROM provisioning_runs WHERE `+where, arg)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Run{}, stoa.Errorf(stoa.NotFound, "No database was ever connected to this store.")
	}
	row.Fault = newFault(row.ErrorCode, row.ErrorMessage)
	return row.Run, err
}

// withSteps fills in the steps. They are read after the run: of one that has
// ended, they are all there.
func withSteps(ctx context.Context, q masterdb.Querier, run Run) (Run, error) {
	var rows []struct {
		Step
		ErrorCode    *string
		ErrorMessage *string
	}
	err := q.Select(ctx, &rows, `SELECT name, state, error_code, error_message, started_at, finished_at
		FROM provisioning_steps WHERE run_id = $1 ORDER BY position`, run.ID)
	run.Steps = make([]Step, len(rows))
	for i, row := range rows {
		run.Steps[i] = row.Step
		run.Steps[i].Fault = newFault(row.ErrorCode, row.ErrorMessage)
	}
	return run, err
}

// insertRun records a run with all its steps pending.
func insertRun(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (stoa.RunID, error) {
	id := stoa.NewID[stoa.RunID]()
	_, err := tx.Exec(ctx, `INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at) VALUES ($1, $2, 'queued', 1, $3)`,
		id, store, tx.Now)
	for i, step := range steps {
		if err != nil {
			return id, err
		}
		_, err = tx.Exec(ctx, `INSERT INTO provisioning_steps (run_id, position, name, state) VALUES ($1, $2, $3, 'pending')`,
			id, i+1, step.name)
	}
	return id, err
}

// errOvertaken means that there is nothing to do: the run has ended, or it
// goes on in an attempt after the job's.
var errOvertaken = errors.New("provisioning: the run is not this job's")

// claim marks the job's run as under way and returns it. It may be under way
// already, left behind by an execution that was interrupted.
func claim(ctx context.Context, tx *masterdb.Tx, job Provision) (Run, error) {
	n, err := tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'running', started_at = coalesce(started_at, $3)
		WHERE id = $1 AND attempt = $2 AND state IN ('queued', 'running')`, job.RunID, job.Attempt, tx.Now)
	if err != nil {
		return Run{}, err
	}
	if n == 0 {
		return Run{}, errOvertaken
	}
	run, err := readRun(ctx, tx, `id = $1`, job.RunID)
	if err != nil {
		return Run{}, err
	}
	return withSteps(ctx, tx, run)
}

// hold keeps everybody else from ending the run before tx does. The queue
// may deliver a job twice: an execution that was thought dead must not write
// over what the other one has done since.
func hold(ctx context.Context, tx *masterdb.Tx, run Run) error {
	var attempt int
	err := tx.Get(ctx, &attempt, `SELECT attempt FROM provisioning_runs WHERE id = $1 AND attempt = $2 AND state = 'running'`+tx.ForUpdate(),
		run.ID, run.Attempt)
	if errors.Is(err, masterdb.ErrNotFound) {
		return errOvertaken
	}
	return err
}

// startStep and finishStep leave a step alone that has succeeded: another
// execution of the same job may have done it meanwhile.
func startStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'running', started_at = $3, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, tx.Now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_runs SET step = $2 WHERE id = $1`, run, name)
	return err
}

func finishStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'succeeded', finished_at = $3
		WHERE run_id = $1 AND name = $2 AND state <> 'succeeded'`, run, name, tx.Now)
	return err
}

func failStep(ctx context.Context, tx *masterdb.Tx, run stoa.RunID, name string, f *Fault) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'failed', finished_at = $3, error_code = $4, error_message = $5
		WHERE run_id = $1 AND name = $2`, run, name, tx.Now, string(f.Code), f.Message)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'failed', finished_at = $2, error_code = $3, error_message = $4
		WHERE id = $1`, run, tx.Now, string(f.Code), f.Message)
	return err
}

func finishRun(ctx context.Context, tx *masterdb.Tx, run stoa.RunID) error {
	_, err := tx.Exec(ctx, `UPDATE provisioning_runs SET state = 'succeeded', finished_at = $2 WHERE id = $1`, run, tx.Now)
	return err
}

// requeue starts the next attempt of a failed run. Steps that succeeded keep
// their record: they are not done again.
func requeue(ctx context.Context, tx *masterdb.Tx, run stoa.RunID) (attempt int, err error) {
	err = tx.Get(ctx, &attempt, `UPDATE provisioning_runs SET state = 'queued', attempt = attempt + 1, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE id = $1 RETURNING attempt`, run)
	if err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `UPDATE provisioning_steps SET state = 'pending', started_at = NULL, finished_at = NULL,
		error_code = NULL, error_message = NULL WHERE run_id = $1 AND state <> 'succeeded'`, run)
	return attempt, err
}
