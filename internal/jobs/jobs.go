// Package jobs is the durable job queue: River on both master engines. A job is enqueued in
// the transaction that makes it necessary, so that neither exists without the other. A job
// may run more than once, so every handler must be idempotent.
package jobs

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"
	"github.com/riverqueue/river/riverdriver/riversqlite"
	"github.com/riverqueue/river/rivertype"
	"go.opentelemetry.io/otel/trace"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tracing"
)

// Args are the arguments of one kind of job. They are stored in plain text: they may
// contain ids, and must not contain secrets.
type Args = river.JobArgs

// AtTenant, embedded in the arguments of a job, puts it into the queue of jobs that
// wait for tenant databases, which may take long.
type AtTenant struct{}

// InsertOpts implements river.JobArgsWithInsertOpts.
func (AtTenant) InsertOpts() river.InsertOpts { return river.InsertOpts{Queue: tenantQueue} }

// AtNewTenant is AtTenant for databases that are not verified yet. Every user can name a
// server that hangs; such a server delays other new databases only.
type AtNewTenant struct{}

// InsertOpts implements river.JobArgsWithInsertOpts.
func (AtNewTenant) InsertOpts() river.InsertOpts { return river.InsertOpts{Queue: newTenantQueue} }

const (
	tenantQueue    = "tenants"
	newTenantQueue = "new_tenants"
)

// Cancel marks err as final: the job is not retried.
func Cancel(err error) error { return river.JobCancel(err) }

// Snooze returns the error with which a handler makes its job run again after d. It
// does not count as a failure.
func Snooze(d time.Duration) error { return river.JobSnooze(d) }

// Queue enqueues and runs jobs.
type Queue struct {
	pg      *river.Client[pgx.Tx]
	lite    *river.Client[*sql.Tx]
	workers *river.Workers
	kinds   []string // that have a handler

	stopping *atomic.Bool
	master   *masterdb.DB
	running  running
	log      *slog.Logger
	metrics  metrics
	tracer   *tracing.Tracer
	wakes    sync.Map // of wake: the timers that are set
	ended    sync.Map // of trace.SpanContext by the id of the job: recorded attempts whose outcome is not stored yet

	stopFetching context.CancelFunc // nil until Start
}

// Options tune a Queue.
type Options struct {
	// Workers is the number of jobs that run at once in this process, in each of the
	// three queues. Default 10.
	Workers int
	// Drain is how long jobs may continue after StopFetching before they are
	// cancelled. Default 10 s.
	Drain time.Duration
	// Process is the name of this process for Release, of at most 100 bytes. Default:
	// a name that River generates.
	Process string
	// Tracer makes the spans of jobs. Nil: they have none.
	Tracer *tracing.Tracer
}

// New returns the queue on db. Register handlers with Handle before Start.
func New(db *masterdb.DB, log *slog.Logger, opts Options) (*Queue, error) {
	if opts.Workers == 0 {
		opts.Workers = 10
	}
	if opts.Drain == 0 {
		opts.Drain = 10 * time.Second
	}
	q := &Queue{workers: river.NewWorkers(), stopping: new(atomic.Bool), master: db, log: log, metrics: newMetrics(), tracer: opts.Tracer}
	cfg := &river.Config{
		ID:      opts.Process,
		Logger:  slog.New(atLeastWarn{log.With("component", "jobs").Handler(), db, q.stopping}),
		Workers: q.workers,
		Queues: map[string]river.QueueConfig{
			river.QueueDefault: {MaxWorkers: opts.Workers}, tenantQueue: {MaxWorkers: opts.Workers}, newTenantQueue: {MaxWorkers: opts.Workers},
		},
		SoftStopTimeout:   opts.Drain,
		FetchCooldown:     10 * time.Millisecond,
		FetchPollInterval: fetchPoll,
		// For jobs of a process whose end was not detected, see Release. River never
		// rescues a job before its own timeout.
		RescueStuckJobsAfter: 10 * time.Minute,
	}
	useMasterClock(cfg, db)
	var err error
	if db.Engine == masterdb.Postgres {
		if !mayReindex(db) {
			cfg.ReindexerIndexNames = []string{}
		}
		q.pg, err = river.NewClient(traced[pgx.Tx](q, postgresDriver{riverpgxv5.New(db.Pool()), riverpgxv5.New(db.Sessions())}), cfg)
	} else {
		q.lite, err = river.NewClient(traced[*sql.Tx](q, riversqlite.New(db.Writer())), cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("job queue: %w", err)
	}
	return q, nil
}

// mayReindex reports whether this connection's role owns the queue's tables. River
// rebuilds their indexes every day, which only the owner may.
func mayReindex(db *masterdb.DB) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var owner bool
	err := db.Get(ctx, &owner, `SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = to_regclass('river_job')`)
	return err != nil || owner // after an error River logs what fails
}

// atLeastWarn drops records of River: those below the level warn, errors of queries
// that a stop has cancelled, and errors while the master is unreachable, which is
// logged once elsewhere.
type atLeastWarn struct {
	slog.Handler
	master   *masterdb.DB
	stopping *atomic.Bool
}

// Handle implements slog.Handler. River logs an error as text.
func (h atLeastWarn) Handle(ctx context.Context, r slog.Record) error {
	cancelled := false
	r.Attrs(func(a slog.Attr) bool {
		cancelled = cancelled || a.Key == "error" && a.Value.String() == context.Canceled.Error()
		return true
	})
	if cancelled && h.stopping.Load() || h.master.IsUnreachable() {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

func (h atLeastWarn) Enabled(ctx context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn && h.Handler.Enabled(ctx, level)
}
func (h atLeastWarn) WithAttrs(attrs []slog.Attr) slog.Handler {
	return atLeastWarn{h.Handler.WithAttrs(attrs), h.master, h.stopping}
}
func (h atLeastWarn) WithGroup(name string) slog.Handler {
	return atLeastWarn{h.Handler.WithGroup(name), h.master, h.stopping}
}

// Handle registers the function that runs jobs of kind A. Each attempt ends within
// timeout. After an error the job is retried with a growing delay, unless the error
// is wrapped with Cancel. Call Handle before Start.
func Handle[A Args](q *Queue, timeout time.Duration, work func(context.Context, A) error) {
	var none A
	river.AddWorker(q.workers, &worker[A]{queue: q, work: work, timeout: timeout, store: storeField(reflect.TypeFor[A]())})
	q.kinds = append(q.kinds, none.Kind())
}

type worker[A Args] struct {
	river.WorkerDefaults[A]
	queue   *Queue
	work    func(context.Context, A) error
	timeout time.Duration
	store   []int // index of the field of A that names the store; nil: none
}

// Work implements river.Worker. A fetch in progress when the queue begins to stop may still
// deliver jobs. Work puts them back at once, for another process.
func (w *worker[A]) Work(ctx context.Context, job *river.Job[A]) (err error) {
	if w.queue.stopping.Load() {
		return Snooze(0)
	}
	defer w.queue.running.add(job.Kind)()
	store := w.storeOf(job.Args)
	if w.queue.tracer != nil {
		var span trace.Span
		ctx, span = w.queue.begin(ctx, job.JobRow, store)
		defer func() { w.queue.end(span, job.ID, err) }()
	}
	defer w.queue.finished(ctx, job.JobRow, store, time.Now(), &err)
	return w.work(ctx, job.Args)
}

// RetryWithin is implemented by Args whose job must not wait long for its next
// attempt. It returns the longest delay; without it the delay grows to days.
type RetryWithin interface{ RetryWithin() time.Duration }

// NextRetry implements river.Worker. The zero time selects River's policy: the
// fourth power of the number of failures, in seconds.
func (w *worker[A]) NextRetry(job *river.Job[A]) time.Time {
	args, ok := any(job.Args).(RetryWithin)
	if !ok {
		return time.Time{}
	}
	delay := time.Duration(math.Pow(float64(job.Attempt), 4)) * time.Second
	return w.queue.master.Now().Add(min(delay, args.RetryWithin()))
}

func (w *worker[A]) Timeout(*river.Job[A]) time.Duration { return w.timeout }

// Every adds a job with args when the queue starts and then at each interval, once
// for all replicas, unless an unfinished one with these args exists. Call it before
// Start.
func Every(q *Queue, interval time.Duration, args Args) {
	job := river.NewPeriodicJob(river.PeriodicInterval(interval), func() (river.JobArgs, *river.InsertOpts) {
		return args, &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished}}
	}, &river.PeriodicJobOpts{RunOnStart: true})
	if q.pg != nil {
		q.pg.PeriodicJobs().Add(job)
	} else {
		q.lite.PeriodicJobs().Add(job)
	}
}

// unfinished lists the states of a job that has not ended.
var unfinished = []rivertype.JobState{
	rivertype.JobStateAvailable, rivertype.JobStatePending, rivertype.JobStateRetryable, rivertype.JobStateRunning, rivertype.JobStateScheduled,
}

// Enqueue adds a job in tx. It runs soon after tx commits, and never if it does not.
func (q *Queue) Enqueue(ctx context.Context, tx *masterdb.Tx, args Args) error {
	_, err := q.insert(ctx, tx, args, nil)
	return err
}

// EnqueueOnce is Enqueue, unless an unfinished job with these args exists.
func (q *Queue) EnqueueOnce(ctx context.Context, tx *masterdb.Tx, args Args) error {
	_, err := q.EnqueueIfNone(ctx, tx, args)
	return err
}

// EnqueueIfNone is EnqueueOnce. It reports whether it has added a job.
func (q *Queue) EnqueueIfNone(ctx context.Context, tx *masterdb.Tx, args Args) (added bool, err error) {
	return q.insert(ctx, tx, args, &river.InsertOpts{UniqueOpts: river.UniqueOpts{ByArgs: true, ByState: unfinished}})
}

// EnqueueAt is Enqueue for a job that must not run before at, by the master's clock
// (tx.Now, DB.Now).
func (q *Queue) EnqueueAt(ctx context.Context, tx *masterdb.Tx, at time.Time, args Args) error {
	_, err := q.insert(ctx, tx, args, &river.InsertOpts{ScheduledAt: at})
	return err
}

func (q *Queue) insert(ctx context.Context, tx *masterdb.Tx, args Args, opts *river.InsertOpts) (added bool, err error) {
	var inserted *rivertype.JobInsertResult
	opts = q.withParent(ctx, opts)
	span := tx.BeginUnseen(ctx, "INSERT", jobTable, 1)
	if q.pg != nil {
		inserted, err = q.pg.InsertTx(ctx, tx.Postgres(), args, opts)
	} else {
		inserted, err = q.lite.InsertTx(ctx, tx.SQLite(), args, opts)
	}
	span.End(err)
	if err == nil {
		err = q.notifyTx(ctx, tx, inserted.Job.Queue)
	}
	if err != nil {
		return false, fmt.Errorf("enqueue %s: %w", args.Kind(), err)
	}
	if inserted.Job.State == rivertype.JobStateScheduled {
		tx.AfterCommit(func() { q.wakeAt(inserted.Job.Queue, inserted.Job.ScheduledAt) })
	}
	return !inserted.UniqueSkippedAsDuplicate, nil
}

// Stats counts the jobs that need attention, of each state at most MaxCounted.
type Stats struct {
	Waiting   int64 // ready or running
	Retrying  int64 // failed at least once, will be retried
	Discarded int64 // failed for the last time
	More      bool  // there are more than were counted
}

// ReadStats counts jobs by state. What it reads does not grow with the number of jobs.
func ReadStats(ctx context.Context, db masterdb.Querier) (Stats, error) {
	counts, err := Counts(ctx, db)
	if err != nil {
		return Stats{}, err
	}
	var s Stats
	add := func(n *int64, states ...string) {
		var more bool
		*n, more = Total(counts, states...)
		s.More = s.More || more
	}
	add(&s.Waiting, "available", "pending", "running", "scheduled")
	add(&s.Retrying, "retryable")
	add(&s.Discarded, "discarded")
	return s, nil
}

// IsSnoozed reports whether err was made by Snooze.
func IsSnoozed(err error) bool {
	var snoozed *rivertype.JobSnoozeError
	return errors.As(err, &snoozed)
}

// IsCancelled reports whether err was made by Cancel.
func IsCancelled(err error) bool {
	var cancelled *rivertype.JobCancelError
	return errors.As(err, &cancelled)
}
