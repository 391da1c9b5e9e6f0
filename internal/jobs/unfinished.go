package jobs

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Unfinished returns the arguments of every job of A's kind that has not ended: it is
// running, scheduled for later or waiting for a retry.
func Unfinished[A Args](ctx context.Context, db *masterdb.DB) ([]A, error) {
	return arguments[A](ctx, db, db.Engine == masterdb.Postgres, isUnfinished)
}

// isUnfinished names states one by one, so that an index finds them.
const isUnfinished = `state IN ('available', 'pending', 'retryable', 'running', 'scheduled')`

// Waiting returns the arguments of the jobs of A's kind that have not started.
// It leaves out running jobs, whose process may have ended, and jobs whose time has
// passed without becoming available: only River's leader makes them so, and an ended
// leader is replaced after a while.
func Waiting[A Args](ctx context.Context, tx *masterdb.Tx) ([]A, error) {
	return arguments[A](ctx, tx, tx.Postgres() != nil,
		`(state IN ('available', 'pending') OR state IN ('retryable', 'scheduled') AND scheduled_at > $2)`, tx.Now)
}

// WaitingSoon does what Waiting does, without the jobs that are to start later than in d.
func WaitingSoon[A Args](ctx context.Context, tx *masterdb.Tx, d time.Duration) ([]A, error) {
	return arguments[A](ctx, tx, tx.Postgres() != nil,
		`(state IN ('available', 'pending') OR state IN ('retryable', 'scheduled') AND scheduled_at > $2 AND scheduled_at <= $3)`, tx.Now, tx.Now.Add(d))
}

// arguments returns the arguments of the jobs of A's kind that meet a condition. The
// condition's parameters are numbered from $2 on.
func arguments[A Args](ctx context.Context, q masterdb.Querier, postgres bool, condition string, params ...any) ([]A, error) {
	var none A
	column := `json(args)` // SQLite keeps it in a binary form
	if postgres {
		column = `CAST(args AS text)`
	}
	var rows []string
	err := q.Select(ctx, &rows, `SELECT `+column+` FROM river_job WHERE kind = $1 AND `+condition, append([]any{none.Kind()}, params...)...)
	if err != nil {
		return nil, err
	}
	out := make([]A, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal([]byte(row), &out[i]); err != nil {
			return nil, fmt.Errorf("arguments of a job %s: %w", none.Kind(), err)
		}
	}
	return out, nil
}
