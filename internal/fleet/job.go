package fleet

import (
	"context"
	"time"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Migrations is the job that migrates the stores that lag behind a schema. The replica
// that queues it has the migrations of that schema. A replica without them leaves the job
// to others.
type Migrations struct {
	Schema int64 `json:"schema"`
	Own    int64 `json:"own"`
}

// Kind implements jobs.Args.
func (Migrations) Kind() string { return "fleet.migrations" }

const (
	// Timeout limits one execution of the job. The next one continues.
	Timeout = 30 * time.Minute
	// Interval is how often the job runs for stores that still lag or lag again, such as
	// one whose server was unreachable.
	Interval = 10 * time.Minute
	// snooze is how long a replica that cannot run a job leaves it to others.
	snooze = 30 * time.Second
	// jobConcurrency is low, so that the job does not slow down shoppers' requests.
	jobConcurrency = 4
)

// Job returns the job for the migrations of this process.
func (s *Service) Job() Migrations {
	target := s.tenants.Expected()
	return Migrations{Schema: target.Version, Own: target.Own}
}

// Paused reports whether only migrations that an operator starts with the command line
// run.
func (s *Service) Paused() bool { return s.paused }

// Start queues the migration of the stores that lag, if there are any and
// migrations are not paused. The same job closes stores to HTTP APIs: see closeAll.
func (s *Service) Start(ctx context.Context, queue *jobs.Queue) error {
	if s.paused {
		return nil
	}
	target := s.tenants.Expected()
	todo, err := s.exists(ctx, lags, target.Version, target.Own)
	if err == nil && !todo {
		todo, err = s.exists(ctx, unverified, s.db.Now().Add(-exposurePause))
	}
	if err != nil || !todo {
		return err
	}
	s.log.InfoContext(ctx, "some stores' databases are to be migrated, or to be closed to HTTP APIs")
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return queue.EnqueueOnce(ctx, tx, s.Job()) })
}

// Run runs the job. Stores that failed are retried after a pause that grows with
// each failure.
func (s *Service) Run(ctx context.Context, job Migrations) error {
	target := s.tenants.Expected()
	if s.paused || behind(target, tenantdb.Schema{Version: job.Schema, Own: job.Own}) {
		return jobs.Snooze(snooze)
	}
	if err := s.closeAll(ctx); err != nil {
		return err
	}
	sum, err := s.Migrate(ctx, MigrateOptions{
		Concurrency: jobConcurrency, Canary: Share{N: 1}, MaxFailures: Share{N: 10, Percent: true},
		onlyDue: true,
	}, discard{})
	if err != nil || sum.Lagging == 0 {
		return err
	}
	s.log.InfoContext(ctx, "stores migrated", "schema", sum.Target.Version, "own", sum.Target.Own, "migrated", sum.Migrated,
		"failed", sum.Failed, "untouched", sum.Untouched, "stopped", sum.Stopped)
	return ctx.Err() // the process is stopping: the queue runs the job again after the next start
}

// due reports whether it is time to retry a store that failed: 5 minutes after the
// first failure, twice as long after each further one, up to a day.
func due(st Store, now time.Time) bool {
	if st.Code == "" || st.At == nil {
		return true
	}
	pause := 5 * time.Minute << min(max(st.Attempts-1, 0), 9)
	return now.Sub(*st.At) >= min(pause, 24*time.Hour)
}
