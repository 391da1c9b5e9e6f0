package jobs

import (
	"context"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa/internal/masterdb"
)

// useMasterClock makes River schedule jobs by the master's clock. River asks the
// database which jobs are due, but takes the time at which a job becomes due, the
// look-ahead of its scheduler and the time of the next attempt from this machine's
// clock.
func useMasterClock(cfg *river.Config, db *masterdb.DB) {
	if db.Engine != masterdb.Postgres {
		return // the master's clock is this machine's
	}
	cfg.Test.Time = masterClock{db}
	cfg.Middleware = append(cfg.Middleware, &dueByServer{})
	// River finds stuck jobs by this machine's clock. If that is ahead, jobs seem to
	// have run for longer than they have.
	cfg.RescueStuckJobsAfter += max(0, -db.Correction())
}

// masterClock implements rivertype.TimeGenerator.
type masterClock struct{ db *masterdb.DB }

// Now implements rivertype.TimeGenerator. The interface requires a time with a monotonic
// reading.
func (c masterClock) Now() time.Time { return time.Now().Add(c.db.Correction()) }

// NowOrNil implements rivertype.TimeGenerator. After nil River uses now() in SQL.
func (masterClock) NowOrNil() *time.Time { return nil }

// dueByServer makes the server set the times of jobs that are due at once.
type dueByServer struct{ river.MiddlewareDefaults }

// InsertMany implements rivertype.JobInsertMiddleware. River's driver uses its own
// clock for a time that is not given, and the SQL of its INSERT uses now() for the
// zero time.
func (*dueByServer) InsertMany(ctx context.Context, jobs []*rivertype.JobInsertParams, insert func(context.Context) ([]*rivertype.JobInsertResult, error)) ([]*rivertype.JobInsertResult, error) {
	for _, job := range jobs {
		job.CreatedAt = new(time.Time)
		if job.State == rivertype.JobStateAvailable {
			job.ScheduledAt = new(time.Time)
		}
	}
	return insert(ctx)
}
