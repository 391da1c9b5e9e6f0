package provisioning

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// State is the state of a run or of a step.
type State string

// The states. In a queued run, steps are pending.
const (
	Queued    State = "queued"
	Pending   State = "pending"
	Running   State = "running"
	Succeeded State = "succeeded"
	Failed    State = "failed"
)

// Run is one provisioning of a store, in steps.
type Run struct {
	ID         stoa.RunID
	StoreID    stoa.StoreID
	State      State
	Step       string // the step that is running or has failed
	Attempt    int
	Fault      *Fault `db:"-"`
	Steps      []Step `db:"-"`
	CreatedAt  time.Time
	StartedAt  *time.Time
	FinishedAt *time.Time
	Warnings   []tenantdb.Warning `db:"-"` // for the owner of a usable database
	InProject  bool               // the database is in a Supabase project, where a role is created first
}

// Done reports whether the run has ended, with success or not.
func (r Run) Done() bool { return r.State == Succeeded || r.State == Failed }

// did reports whether the step has succeeded.
func (r Run) did(step string) bool {
	return slices.ContainsFunc(r.Steps, func(s Step) bool { return s.Name == step && s.State == Succeeded })
}

// steps returns the steps of the run, in order.
func (r Run) steps() []step {
	if r.InProject {
		return projectSteps
	}
	return steps
}

// pass sets the step to succeeded.
func (r Run) pass(step string) {
	for i := range r.Steps {
		if r.Steps[i].Name == step {
			r.Steps[i].State = Succeeded
		}
	}
}

// next returns the name of the first step from the i-th on that has not succeeded,
// or "".
func (r Run) next(i int) string {
	for _, s := range r.steps()[i:] {
		if !r.did(s.name) {
			return s.name
		}
	}
	return ""
}

// Step is one step of a run.
type Step struct {
	Name       string
	State      State
	Fault      *Fault `db:"-"` // why the step failed or, while it is running, why it is being repeated
	StartedAt  *time.Time
	FinishedAt *time.Time
}

// Fault is the reason why a step failed, as shown to the store's owner.
type Fault struct {
	Code    stoa.Code
	Message string
}

// Err returns the fault as an error, or nil.
func (f *Fault) Err() error {
	if f == nil {
		return nil
	}
	return &stoa.Error{Code: f.Code, Message: f.Message}
}

// NewFault returns the fault of two columns, or nil if one of them is NULL.
func NewFault(code, message *string) *Fault {
	if code == nil || message == nil {
		return nil
	}
	return &Fault{Code: stoa.Code(*code), Message: *message}
}

// columns returns the code and the message. It is the inverse of NewFault.
func (f *Fault) columns() (code, message *string) {
	if f == nil {
		return nil, nil
	}
	c := string(f.Code)
	return &c, &f.Message
}

// FaultOf returns the fault for an error. It keeps the message only of an error that is
// meant for people.
func FaultOf(err error) *Fault {
	var e *stoa.Error
	if errors.As(err, &e) {
		return &Fault{Code: e.Code, Message: stoa.Storable(e.Message)}
	}
	if fault := tenantdb.ServerFault(err); fault != nil {
		return &Fault{Code: fault.Code, Message: fault.Message}
	}
	return &Fault{Code: stoa.Internal, Message: "Something went wrong on our side. Try again; if it persists, tell the operator its id."}
}

// Latest returns the store's last run with its steps. It fails with not_found when the
// store has had no run.
func (s *Service) Latest(ctx context.Context, p authz.Principal, store stoa.StoreID) (Run, error) {
	var found LatestRun
	if _, err := authz.CheckWith(ctx, s.db, p, store, authz.ReadStore, found.Queries(store)...); err != nil {
		return Run{}, err
	}
	run, err := s.RunOf(ctx, &found)
	if err == nil && run == nil {
		err = errNoRun()
	}
	if err != nil {
		return Run{}, err
	}
	return *run, nil
}

// LatestRun is what Latest finds, for callers that send its queries together with others.
type LatestRun struct {
	rows   []runRow // none or one
	events []eventRow
}

// Queries returns the queries of Latest. Once they have been sent, RunOf has the result.
func (l *LatestRun) Queries(store stoa.StoreID) []masterdb.Query {
	return []masterdb.Query{
		masterdb.All(&l.rows, selectRun+latestOf, store),
		masterdb.All(&l.events, selectEvents+`run_id = (SELECT id FROM provisioning_runs WHERE `+latestOf+`) ORDER BY seq`, store),
	}
}

// RunOf returns the run that the queries have found, with its steps, or nil if there was none.
// It checks no permission: whoever sent the queries has.
func (s *Service) RunOf(ctx context.Context, found *LatestRun) (*Run, error) {
	if len(found.rows) == 0 {
		return nil, nil //nolint:nilnil // documented: there was none
	}
	run, err := found.rows[0].run()
	if err != nil {
		return nil, err
	}
	if len(found.events) > 0 && found.events[0].RunID != run.ID { // another run has begun between the two queries
		run, err = withSteps(ctx, s.db, run)
		return &run, err
	}
	run.Steps = stepsOf(run.steps(), eventsOf(found.events))
	return &run, nil
}

// CountFailed returns the number of runs that have failed since a time. The caller must be
// an operator of the platform.
func (s *Service) CountFailed(ctx context.Context, p authz.Principal, since time.Time) (n int, err error) {
	if err := authz.CheckOperator(ctx, s.db, p, authz.ReadStore); err != nil {
		return 0, err
	}
	err = s.db.Get(ctx, &n, `SELECT count(*) FROM provisioning_runs WHERE finished_at >= $1 AND state = 'failed'`, since)
	return n, err
}

// RunPage is one page of runs, newest first, without their steps.
type RunPage struct {
	Runs       []Run
	NextCursor *string
}

// Runs lists the store's runs. limit is 1 to page.MaxLimit, or 0 for
// page.DefaultLimit; cursor is NextCursor of the previous page. It fails with
// invalid_request.
func (s *Service) Runs(ctx context.Context, p authz.Principal, store stoa.StoreID, limit int, cursor string) (RunPage, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.RunID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return RunPage{}, err
	}
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return RunPage{}, err
	}
	var rows []runRow
	err := s.db.Select(ctx, &rows, selectRun+`store_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, store, bounds.Before, bounds.Rows())
	if err != nil {
		return RunPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(r runRow) string { return r.ID.String() })
	runs := make([]Run, len(rows))
	for i, row := range rows {
		if runs[i], err = row.run(); err != nil {
			return RunPage{}, err
		}
	}
	return RunPage{Runs: runs, NextCursor: next}, nil
}

// read returns a run with its steps.
func (s *Service) read(ctx context.Context, id stoa.RunID) (Run, error) {
	run, err := readRun(ctx, s.db, `id = $1`, id)
	if err != nil {
		return Run{}, err
	}
	return withSteps(ctx, s.db, run)
}

// latestOf selects the last run of the store $1. The id orders two runs that were created in
// the same microsecond.
const latestOf = `store_id = $1 ORDER BY created_at DESC, id DESC LIMIT 1`

func latest(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Run, error) {
	return readRun(ctx, q, latestOf, store)
}

const selectRun = `SELECT id, store_id, state, step, attempt, error_code, error_message, created_at, started_at, finished_at, in_project,
	warnings AS warning_list
	FROM provisioning_runs WHERE `

// runRow is a row of provisioning_runs.
type runRow struct {
	Run
	ErrorCode    *string
	ErrorMessage *string
	WarningList  string
}

func (row runRow) run() (Run, error) {
	row.Fault = NewFault(row.ErrorCode, row.ErrorMessage)
	err := json.Unmarshal([]byte(row.WarningList), &row.Warnings)
	return row.Run, err
}

func readRun(ctx context.Context, q masterdb.Querier, where string, arg any) (Run, error) {
	var row runRow
	err := q.Get(ctx, &row, selectRun+where, arg)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Run{}, errNoRun()
	}
	if err != nil {
		return Run{}, err
	}
	return row.run()
}

func errNoRun() error {
	return stoa.Errorf(stoa.NotFound, "No database was ever connected to this store.")
}

// withSteps adds the steps, which it derives from the run's events. It reads the events
// after the run, so that those of a run that has ended are complete.
func withSteps(ctx context.Context, q masterdb.Querier, run Run) (Run, error) {
	events, err := readEvents(ctx, q, Position{Run: run.ID}, math.MaxInt32)
	run.Steps = stepsOf(run.steps(), events)
	return run, err
}

// stepsOf returns the states of the steps after the events of a run. A step that has
// succeeded keeps that state. The next attempt resets the others.
func stepsOf(steps []step, events []Event) []Step {
	all := make([]Step, len(steps))
	for i, s := range steps {
		all[i] = Step{Name: s.name, State: Pending}
	}
	for _, e := range events {
		at := e.At
		for i := range all {
			switch s := &all[i]; {
			case s.State == Succeeded:
			case e.Step == "" && e.State == Queued:
				*s = Step{Name: s.Name, State: Pending}
			case e.Step != s.Name:
			case e.State == Running && e.Fault == nil:
				*s = Step{Name: s.Name, State: Running, StartedAt: &at}
			case e.State == Running:
				s.Fault = e.Fault
			default:
				s.State, s.Fault, s.FinishedAt = e.State, e.Fault, &at
			}
		}
	}
	return all
}
