package jobs

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"github.com/stoahq/stoa/internal/masterdb"
)

// insertTopic is River's topic for queues that have new jobs. On SQLite River
// keeps notifications in a table, which every process reads every 50 ms.
const insertTopic = "river_insert"

const (
	// fetchPoll is the interval at which River looks for jobs without a
	// notification: a safety net.
	fetchPoll = 15 * time.Second
	// wakeHorizon is how far ahead a process remembers when a job becomes due.
	// fetchPoll finds a later one, and those of a process that ended.
	wakeHorizon = 10 * time.Minute
	// wakeDelay covers the error of a clock measurement: a fetch that comes too
	// early finds nothing.
	wakeDelay   = 20 * time.Millisecond
	wakeTimeout = 5 * time.Second
	// pingInterval is the interval at which River's listening connection is
	// checked. TCP keep-alive detects a lost peer sooner.
	pingInterval = 30 * time.Second
)

// notifyTx makes every process look for jobs in the queues when tx commits. Of several
// insertions within FetchCooldown, River sends a notification for the first only, which may
// arrive before the others' transactions commit. PostgreSQL delivers equal notifications of
// one transaction once.
func (q *Queue) notifyTx(ctx context.Context, tx *masterdb.Tx, queues ...string) error {
	if q.pg == nil {
		return notify(ctx, q.executor(tx), queues...)
	}
	// This is what River's driver sends, but nobody waits for it.
	return tx.ExecLater(ctx, `SELECT pg_notify(current_schema() || '.' || $1::text, payload) FROM unnest($2::text[]) payload`, insertTopic, payloadsOf(queues))
}

func notify(ctx context.Context, db riverdriver.Executor, queues ...string) error {
	return db.NotifyMany(ctx, &riverdriver.NotifyManyParams{Topic: insertTopic, Payload: payloadsOf(queues)})
}

func payloadsOf(queues []string) []string {
	payloads := make([]string, len(queues))
	for i, queue := range queues {
		payloads[i] = fmt.Sprintf(`{"queue": %q}`, queue)
	}
	return payloads
}

// wake is a moment, in steps of wakeDelay, at which a queue is notified.
type wake struct {
	queue string
	step  int64
}

// wakeAt makes every process look for jobs in the queue at a time by the master's clock, if
// that is within wakeHorizon. River sends no notification for a job that becomes due within
// its scheduler's interval. Jobs of one queue that become due within wakeDelay share a
// timer and a notification, so that thousands of retries cost few statements. It reports
// whether it has set a timer.
func (q *Queue) wakeAt(queue string, at time.Time) bool {
	at = at.Add(q.master.Skew() + wakeDelay)
	delay := max(time.Until(at), 0)
	if delay > wakeHorizon {
		return false
	}
	w := wake{queue, time.Now().Add(delay).UnixNano()/int64(wakeDelay) + 1}
	if _, waits := q.wakes.LoadOrStore(w, nil); waits {
		return false
	}
	time.AfterFunc(time.Until(time.Unix(0, w.step*int64(wakeDelay))), func() {
		q.wakes.Delete(w) // before the notification: a job that comes now needs another one
		ctx, cancel := context.WithTimeout(context.Background(), wakeTimeout)
		defer cancel()
		_ = notify(ctx, q.driverExecutor(), queue) // fetchPoll finds the job as well
	})
	return true
}

// wakeForRetries calls wakeAt for every job of this process that is to run
// again, until the client has stopped. Call it before the client starts.
func (q *Queue) wakeForRetries() {
	kinds := []river.EventKind{river.EventKindJobFailed, river.EventKindJobInterrupted, river.EventKindJobSnoozed}
	var events <-chan *river.Event
	if q.pg != nil {
		events, _ = q.pg.Subscribe(kinds...)
	} else {
		events, _ = q.lite.Subscribe(kinds...)
	}
	go func() {
		for e := range events {
			if e.Job.FinalizedAt == nil {
				q.wakeAt(e.Job.Queue, e.Job.ScheduledAt)
			}
		}
	}()
}

// postgresDriver is River's driver with a listener that sends fewer pings.
type postgresDriver struct {
	*riverpgxv5.Driver
	sessions *riverpgxv5.Driver
}

var _ riverdriver.Driver[pgx.Tx] = postgresDriver{}

// GetListener implements riverdriver.Driver.
func (d postgresDriver) GetListener(params *riverdriver.GetListenenerParams) riverdriver.Listener {
	return &listener{Listener: d.sessions.GetListener(params)}
}

// UnwrapExecutor implements riverdriver.Driver.
func (d postgresDriver) UnwrapExecutor(tx pgx.Tx) riverdriver.ExecutorTx {
	return quietExecutor{d.Driver.UnwrapExecutor(tx)}
}

// quietExecutor sends no notification of new jobs in a transaction: notifyTx does, with all of
// them.
type quietExecutor struct{ riverdriver.ExecutorTx }

// NotifyMany implements riverdriver.Executor.
func (e quietExecutor) NotifyMany(ctx context.Context, params *riverdriver.NotifyManyParams) error {
	if params.Topic == insertTopic {
		return nil
	}
	return e.ExecutorTx.NotifyMany(ctx, params)
}

// listener is used by one goroutine of River's notifier.
type listener struct {
	riverdriver.Listener
	pinged time.Time
}

// Ping implements riverdriver.Listener. River calls it every 5 s.
func (l *listener) Ping(ctx context.Context) error {
	if time.Since(l.pinged) < pingInterval {
		return nil
	}
	l.pinged = time.Now()
	return l.Listener.Ping(ctx)
}
