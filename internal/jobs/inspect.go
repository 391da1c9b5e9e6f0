package jobs

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// List lists jobs. It checks no permission. What it reads does not grow with the number of
// jobs. It fails with invalid_request.
func (q *Queue) List(ctx context.Context, f Filter) (Page, error) {
	var faults stoa.Invalid
	bounds := page.BySequence(f.Limit, f.Cursor, &faults)
	for _, state := range f.States {
		if !slices.Contains(States, state) {
			faults.Add("state", "must be one of %s", strings.Join(States, ", "))
		}
	}
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	ids, err := q.listIDs(ctx, f, bounds)
	if err != nil || len(ids) == 0 {
		return Page{}, err
	}
	ids, next := page.Cut(ids, bounds.Limit, page.EncodeSequence)
	rows, err := q.list(ctx, river.NewJobListParams().OrderBy(river.JobListOrderByID, river.SortOrderDesc).First(len(ids)).IDs(ids...))
	if err != nil {
		return Page{}, err
	}
	out := Page{Jobs: make([]Job, len(rows)), NextCursor: next}
	for i, row := range rows {
		out.Jobs[i] = newJob(row)
	}
	return out, nil
}

// maxParts is how many kinds one statement of listIDs selects. SQLite allows 500 parts.
const maxParts = 100

// listIDs returns the ids of a page. It reads a page of each state and kind, by listIndex.
func (q *Queue) listIDs(ctx context.Context, f Filter, bounds page.Bounds[int64]) (ids []int64, err error) {
	if len(f.States)+len(f.Kinds) == 0 {
		err = q.master.Select(ctx, &ids, `SELECT id FROM river_job WHERE id < $1 ORDER BY id DESC LIMIT $2`, bounds.Before, bounds.Rows())
		return ids, err
	}
	states, kinds := f.States, f.Kinds
	if len(states) == 0 {
		states = append([]string{"pending"}, States...)
	}
	if len(kinds) == 0 {
		if err := q.master.Select(ctx, &kinds, kindsSQL); err != nil {
			return nil, err
		}
	}
	for _, state := range states {
		for some := range slices.Chunk(kinds, maxParts) {
			args := []any{bounds.Before, bounds.Rows()}
			for _, kind := range some {
				args = append(args, kind)
			}
			var found []int64
			if err := q.master.Select(ctx, &found, listIDsSQL(q.master.Engine, state, len(some)), args...); err != nil {
				return nil, err
			}
			ids = append(ids, found...)
		}
	}
	slices.SortFunc(ids, func(a, b int64) int { return cmp.Compare(b, a) })
	ids = slices.Compact(ids) // a job may change its state between two statements
	return ids[:min(len(ids), bounds.Rows())], nil
}

// kindsSQL selects the kinds of all jobs. It reads one row of River's index for each.
const kindsSQL = `WITH RECURSIVE k (kind) AS (
		SELECT min(kind) FROM river_job
		UNION ALL SELECT (SELECT min(j.kind) FROM river_job j WHERE j.kind > k.kind) FROM k WHERE k.kind IS NOT NULL
	) SELECT kind FROM k WHERE kind IS NOT NULL`

// listIDsSQL selects the newest jobs of each of n kinds, $3 and so on, in a state. Were the
// kind compared with =, PostgreSQL would take the order by id for that of the primary key,
// and read all newer jobs of other kinds. SQLite compares a pair by its first column only.
func listIDsSQL(engine masterdb.Engine, state string, n int) string {
	one := `SELECT id FROM (SELECT id FROM river_job WHERE state = '%[1]s' AND kind = $%[2]d AND id < $1 ORDER BY id DESC LIMIT $2) c`
	if engine == masterdb.Postgres {
		one = `SELECT id FROM (SELECT id FROM river_job WHERE state = '%[1]s' AND (kind, id) < ($%[2]d, $1) AND kind >= $%[2]d ORDER BY kind DESC, id DESC LIMIT $2) c`
	}
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf(one, state, i+3)
	}
	return strings.Join(parts, " UNION ALL ")
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
	span := tx.BeginUnseen(ctx, "UPDATE", jobTable, 1)
	if q.pg != nil {
		row, err = inPostgres(q.pg, ctx, tx.Postgres(), id)
	} else {
		row, err = inSQLite(q.lite, ctx, tx.SQLite(), id)
	}
	if errors.Is(err, rivertype.ErrNotFound) {
		span.End(nil)
		return Job{}, stoa.Errorf(stoa.NotFound, "There is no such job any more.")
	}
	span.End(err)
	if err != nil {
		return Job{}, err
	}
	if err := q.notifyTx(ctx, tx, row.Queue); err != nil {
		return Job{}, err
	}
	return newJob(row), nil
}
