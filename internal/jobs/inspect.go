package jobs

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// Job is a job as operators see it. It has no arguments: they are ids.
type Job struct {
	ID          int64
	Kind        string
	Queue       string
	State       string
	Attempt     int
	MaxAttempts int
	CreatedAt   time.Time
	ScheduledAt time.Time  // when the job is due, or was
	FinishedAt  *time.Time // nil: it has not ended
	Error       string     // of the last attempt, "" without one
	ErrorAt     *time.Time
}

// MayRetry reports whether the job can be made to run at once.
func (j Job) MayRetry() bool { return j.State != "available" && j.State != "running" }

// MayCancel reports whether the job can be cancelled.
func (j Job) MayCancel() bool { return j.FinishedAt == nil }

// States are the states of a job that Filter selects.
var States = []string{"available", "running", "scheduled", "retryable", "discarded", "cancelled", "completed"}

// Filter selects jobs. A zero field selects all.
type Filter struct {
	Kinds  []string
	States []string
	Limit  int    // 1 to page.MaxLimit; 0 is page.DefaultLimit
	Cursor string // NextCursor of the page before
}

// Page is a page of jobs, newest first.
type Page struct {
	Jobs       []Job
	NextCursor *string // nil on the last page
}

// maxError is how many characters of an error are shown.
const maxError = 500

// List lists jobs. It checks no permission. It fails with invalid_request.
func (q *Queue) List(ctx context.Context, f Filter) (Page, error) {
	var faults stoa.Invalid
	bounds := page.BySequence(f.Limit, f.Cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	params := river.NewJobListParams().OrderBy(river.JobListOrderByID, river.SortOrderDesc).First(bounds.Rows()).
		Where("id < @before", river.NamedArgs{"before": bounds.Before})
	if len(f.Kinds) > 0 {
		params = params.Kinds(f.Kinds...)
	}
	if len(f.States) > 0 {
		states := make([]rivertype.JobState, len(f.States))
		for i, s := range f.States {
			states[i] = rivertype.JobState(s)
		}
		params = params.States(states...)
	}
	rows, err := q.list(ctx, params)
	if err != nil {
		return Page{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(j *rivertype.JobRow) string { return page.EncodeSequence(j.ID) })
	out := Page{Jobs: make([]Job, len(rows)), NextCursor: next}
	for i, row := range rows {
		out.Jobs[i] = newJob(row)
	}
	return out, nil
}

func (q *Queue) list(ctx context.Context, params *river.JobListParams) ([]*rivertype.JobRow, error) {
	var found *river.JobListResult
	var err error
	if q.pg != nil {
		found, err = q.pg.JobList(ctx, params)
	} else {
		found, err = q.lite.JobList(ctx, params)
	}
	if err != nil {
		return nil, err
	}
	return found.Jobs, nil
}

func newJob(row *rivertype.JobRow) Job {
	j := Job{
		ID: row.ID, Kind: row.Kind, Queue: row.Queue, State: string(row.State), Attempt: row.Attempt, MaxAttempts: row.MaxAttempts,
		CreatedAt: row.CreatedAt, ScheduledAt: row.ScheduledAt, FinishedAt: row.FinalizedAt,
	}
	if n := len(row.Errors); n > 0 {
		last := row.Errors[n-1]
		text := []rune(last.Error)
		if len(text) > maxError {
			text = append(text[:maxError-1], '…')
		}
		j.Error, j.ErrorAt = string(text), &last.At
	}
	return j
}

// Retry makes a job run at once, also one that has ended, in tx. It checks no
// permission. It fails with not_found.
func (q *Queue) Retry(ctx context.Context, tx *masterdb.Tx, id int64) (Job, error) {
	return q.change(ctx, tx, id, (*river.Client[pgx.Tx]).JobRetryTx, (*river.Client[*sql.Tx]).JobRetryTx)
}

// Cancel cancels a job that has not ended, in tx. One that is running is told to stop. It
// checks no permission. It fails with not_found.
func (q *Queue) Cancel(ctx context.Context, tx *masterdb.Tx, id int64) (Job, error) {
	return q.change(ctx, tx, id, (*river.Client[pgx.Tx]).JobCancelTx, (*river.Client[*sql.Tx]).JobCancelTx)
}

func (q *Queue) change(ctx context.Context, tx *masterdb.Tx, id int64,
	inPostgres func(*river.Client[pgx.Tx], context.Context, pgx.Tx, int64) (*rivertype.JobRow, error),
	inSQLite func(*river.Client[*sql.Tx], context.Context, *sql.Tx, int64) (*rivertype.JobRow, error),
) (Job, error) {
	var row *rivertype.JobRow
	var err error
	if q.pg != nil {
		row, err = inPostgres(q.pg, ctx, tx.Postgres(), id)
	} else {
		row, err = inSQLite(q.lite, ctx, tx.SQLite(), id)
	}
	if errors.Is(err, rivertype.ErrNotFound) {
		return Job{}, stoa.Errorf(stoa.NotFound, "There is no such job any more.")
	}
	if err != nil {
		return Job{}, err
	}
	if err := q.notifyTx(ctx, tx, row.Queue); err != nil {
		return Job{}, err
	}
	return newJob(row), nil
}
