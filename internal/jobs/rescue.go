package jobs

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa/internal/masterdb"
)

// rescueBatch is the number of running jobs that are read at a time.
const rescueBatch = 1000

// maxRescuePause is the longest pause before a job that was interrupted several
// times runs again.
const maxRescuePause = time.Hour

// leadershipTopic is River's topic for the resignation of a leader.
const leadershipTopic = "river_leadership"

// Release makes available, in tx, the jobs that a process was running when it ended. If the
// process was River's leader, Release ends its leadership. process is its Options.Process.
// A job that is interrupted for the first time runs again at once. Each further time it
// waits longer, because the job may be what ends the processes. After its last attempt it
// is discarded. River's JobRescuer treats stuck jobs in the same way.
func (q *Queue) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	db := q.executor(tx)
	if err := resign(ctx, db, process); err != nil {
		return err
	}
	horizon := time.Now().Add(365 * 24 * time.Hour) // includes every running job, whichever clock recorded its start
	var after int64
	for {
		running, err := db.JobGetStuck(ctx, &riverdriver.JobGetStuckParams{AfterID: after, Max: rescueBatch, StuckHorizon: horizon})
		if err != nil || len(running) == 0 {
			return err
		}
		after = running[len(running)-1].ID
		rescue := riverdriver.JobRescueManyParams{StuckHorizon: horizon}
		for _, job := range running {
			if n := len(job.AttemptedBy); n > 0 && job.AttemptedBy[n-1] == process {
				if err := addRescued(&rescue, job, tx.Now); err != nil {
					return err
				}
			}
		}
		if len(rescue.ID) == 0 {
			continue
		}
		if _, err := db.JobRescueMany(ctx, &rescue); err != nil {
			return err
		}
		if err := q.notifyTx(ctx, tx, river.QueueDefault, tenantQueue, newTenantQueue); err != nil {
			return err
		}
	}
}

// addRescued adds the new state of a job whose process has ended.
func addRescued(to *riverdriver.JobRescueManyParams, job *rivertype.JobRow, now time.Time) error {
	var metadata struct {
		Rescues         int       `json:"river:rescue_count"`
		CancelAttempted time.Time `json:"cancel_attempted_at"`
	}
	if err := json.Unmarshal(job.Metadata, &metadata); err != nil {
		return err
	}
	failure, err := json.Marshal(rivertype.AttemptError{At: now, Attempt: job.Attempt, Error: "the process that ran the job ended"})
	if err != nil {
		return err
	}
	state, scheduled, finalized := rivertype.JobStateAvailable, job.ScheduledAt, (*time.Time)(nil)
	switch n := time.Duration(metadata.Rescues); {
	case !metadata.CancelAttempted.IsZero():
		state, finalized = rivertype.JobStateCancelled, &now
	case job.Attempt >= job.MaxAttempts:
		state, finalized = rivertype.JobStateDiscarded, &now
	case n > 0:
		pause := maxRescuePause
		if n < 10 {
			pause = min(pause, n*n*n*n*time.Second)
		}
		state, scheduled = rivertype.JobStateRetryable, now.Add(pause)
	}
	to.ID = append(to.ID, job.ID)
	to.Error = append(to.Error, failure)
	to.State = append(to.State, string(state))
	to.ScheduledAt = append(to.ScheduledAt, scheduled)
	to.FinalizedAt = append(to.FinalizedAt, finalized)
	return nil
}

// resign ends the leadership of a process that has ended.
func resign(ctx context.Context, db riverdriver.Executor, process string) error {
	leader, err := db.LeaderGetElectedLeader(ctx, &riverdriver.LeaderGetElectedLeaderParams{})
	if errors.Is(err, rivertype.ErrNotFound) {
		return nil
	}
	if err != nil || leader.LeaderID != process {
		return err
	}
	_, err = db.LeaderResign(ctx, &riverdriver.LeaderResignParams{LeaderID: process, ElectedAt: leader.ElectedAt, LeadershipTopic: leadershipTopic})
	return err
}

// executor runs River's own statements in tx.
func (q *Queue) executor(tx *masterdb.Tx) riverdriver.Executor {
	if q.pg != nil {
		return q.pg.Driver().UnwrapExecutor(tx.Postgres())
	}
	return q.lite.Driver().UnwrapExecutor(tx.SQLite())
}

// driverExecutor runs River's own statements outside a transaction.
func (q *Queue) driverExecutor() riverdriver.Executor {
	if q.pg != nil {
		return q.pg.Driver().GetExecutor()
	}
	return q.lite.Driver().GetExecutor()
}
