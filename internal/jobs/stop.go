package jobs

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// Start starts running jobs, until Stop. The jobs do not end with ctx.
func (q *Queue) Start(ctx context.Context) error {
	ctx, q.stopFetching = context.WithCancel(context.WithoutCancel(ctx))
	q.wakeForRetries()
	if q.pg != nil {
		return q.pg.Start(ctx)
	}
	return q.lite.Start(ctx)
}

// StopFetching prevents further jobs from starting in this process. Running jobs may
// continue for Options.Drain and are then cancelled. It returns at once; Stop waits.
func (q *Queue) StopFetching() {
	if q.stopFetching == nil {
		return // not started
	}
	q.stopping.Store(true)
	q.stopFetching()
}

// Stop calls StopFetching, cancels the jobs that still run after Options.Drain, and
// returns when all have ended. If ctx is done before, the error names the kinds of
// those that have not. A cancelled job runs again after the next start, or in another
// process.
func (q *Queue) Stop(ctx context.Context) error {
	if q.stopFetching == nil {
		return nil
	}
	q.StopFetching()
	stopped := q.stopped()
	tick := time.NewTicker(stopTick)
	defer tick.Stop()
	for {
		select {
		case <-stopped:
			return nil
		case <-tick.C:
			// River would keep querying an unreachable master. Jobs whose end it could not
			// record run again.
			if q.Running() == "" && q.master.IsUnreachable() {
				return nil
			}
		case <-ctx.Done():
			return q.unfinished(ctx.Err())
		}
	}
}

const stopTick = 100 * time.Millisecond

// unfinished returns an error that names what has not ended, or nil.
func (q *Queue) unfinished(cause error) error {
	select {
	case <-q.stopped():
		return nil
	default:
	}
	if under := q.Running(); under != "" {
		return fmt.Errorf("jobs under way: %s: %w", under, cause)
	}
	return fmt.Errorf("the job queue waits for the master database: %w", cause)
}

func (q *Queue) stopped() <-chan struct{} {
	if q.pg != nil {
		return q.pg.Stopped()
	}
	return q.lite.Stopped()
}

// Running returns the kinds of the jobs that run in this process with their numbers,
// such as "greet (2), other (1)", or "".
func (q *Queue) Running() string { return q.running.String() }

// running counts jobs by kind. It is safe for concurrent use.
type running struct {
	mu     sync.Mutex
	byKind map[string]int
}

// add counts one more job until done is called.
func (r *running) add(kind string) (done func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byKind == nil {
		r.byKind = map[string]int{}
	}
	r.byKind[kind]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.byKind[kind]--; r.byKind[kind] == 0 {
			delete(r.byKind, kind)
		}
	}
}

func (r *running) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var words []string
	for _, kind := range slices.Sorted(maps.Keys(r.byKind)) {
		words = append(words, fmt.Sprintf("%s (%d)", kind, r.byKind[kind]))
	}
	return strings.Join(words, ", ")
}
