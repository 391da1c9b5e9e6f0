package fleet

import (
	"context"
	"time"

	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// Migrations is the job that migrates the stores that lag behind the schema
// it names. The replica that queues it has those migrations; one that has
// not leaves it to others.
type Migrations struct {
	Schema int64 `json:"schema"`
	Own    int64 `json:"own"`
}

// Kind implements jobs.Args.
func (Migrations) Kind() string { return "fleet.migrations" }

const (
	// Timeout bounds one execution of the job; what is left waits for the next.
	Timeout = 30 * time.Minute
	// Interval is how often the fleet is looked at for stores that lag still,
	// or again: such as one whose server was away.
	Interval = 10 * time.Minute
	// leaveTime is how long a replica leaves a job to others that it cannot do.
	leaveTime = 30 * time.Second
	// jobConcurrency leaves a server to its shoppers.
	jobConcurrency = 4
)

// Job is the job for what this process brings.
func (s *Service) Job() Migrations {
	target := s.tenants.Expected()
	return Migrations{target.Version, target.Own}
}

// Start queues the migration of the stores that lag, if any do and it is not
// held back. The same job closes stores to HTTP APIs: see closeAll.
func (s *Service) Start(ctx context.Context, queue *jobs.Queue) error {
	if s.hold {
		return nil
	}
	todo, err := s.lagging(ctx, s.tenants.Expected())
	if err != nil {
		return err
	}
	open, err := s.unproven(ctx)
	if err != nil || len(todo)+len(open) == 0 {
		return err
	}
	s.log.InfoContext(ctx, "stores to be migrated", "stores", len(todo), "to_be_closed", len(open))
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return queue.EnqueueOnce(ctx, tx, s.Job()) })
}

// Run is the job's handler. Stores that failed are tried again after a while
// that grows with each failure.
func (s *Service) Run(ctx context.Context, job Migrations) error {
	target := s.tenants.Expected()
	if s.hold || behind(target, tenantdb.Schema{Version: job.Schema, Own: job.Own}) {
		return jobs.Snooze(leaveTime)
	}
	if err := s.closeAll(ctx); err != nil {
		return err
	}
	sum, err := s.Migrate(ctx, MigrateOptions{
		Concurrency: jobConcurrency, Canary: Share{N: 1}, MaxFailures: Share{N: 10, Percent: true},
		skip: func(st Store) bool { return !due(st, s.db.Now()) },
	}, func(int) {}, func(Result) {})
	if err != nil || sum.Lagging == 0 {
		return err
	}
	s.log.InfoContext(ctx, "stores migrated", "schema", sum.Target.Version, "own", sum.Target.Own, "migrated", sum.Migrated,
		"failed", sum.Failed, "untouched", sum.Untouched, "stopped", sum.Stopped)
	return ctx.Err() // stopping: the queue runs the job again after the next start
}

// due reports whether it is time to try a store that failed before: 5 minutes
// after the first time, twice as long after each further one, up to a day.
func due(st Store, now time.Time) bool {
	if st.Code == "" || st.At == nil {
		return true
	}
	pause := 5 * time.Minute << min(max(st.Attempts-1, 0), 9)
	return now.Sub(*st.At) >= min(pause, 24*time.Hour)
}
