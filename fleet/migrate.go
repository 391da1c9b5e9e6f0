package fleet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/tenantdb"
)

// MigrateOptions say which stores are migrated, how far and how carefully.
type MigrateOptions struct {
	To          int64          // the last built-in migration, as in tenantdb.MigrateOptions; 0 means all and the operator's own
	Concurrency int            // stores at a time; default 8
	Canary      Share          // so many go first, and the rest only if all of them went well
	MaxFailures Share          // of all stores; once more than these have failed no other is begun
	Stores      []stoa.StoreID // only these; none means all that lag
	Timeout     time.Duration  // for one store; default 2 min
	Grace       time.Duration  // for stores under way when the run is told to stop; default 10 s
	DryRun      bool           // only says which stores would be migrated
	skip        func(Store) bool
}

func (o MigrateOptions) withDefaults() MigrateOptions {
	if o.Concurrency == 0 {
		o.Concurrency = 8
	}
	if o.Timeout == 0 {
		o.Timeout = 2 * time.Minute
	}
	if o.Grace == 0 {
		o.Grace = 10 * time.Second
	}
	return o
}

// State is how a store came out of a run.
type State string

// The states of a store after a run.
const (
	Pending     State = "pending"     // a dry run would migrate it
	Migrated    State = "migrated"    // its schema is the one asked for
	Current     State = "current"     // somebody else has migrated it meanwhile
	Failed      State = "failed"      // as recorded, with the cause
	Interrupted State = "interrupted" // the run was stopped; what was under way is undone, or done by the next run
)

// Result is what became of one store.
type Result struct {
	Store    Store
	State    State
	Schema   tenantdb.Schema // after the run, where that is known
	Code     stoa.Code       // of a failure
	Message  string
	Duration time.Duration
	Canary   bool
}

// Summary is the outcome of a run.
type Summary struct {
	Target      tenantdb.Schema `json:"target"`
	Lagging     int             `json:"lagging"`  // when the run began
	Migrated    int             `json:"migrated"` // those that somebody else migrated meanwhile among them
	Failed      int             `json:"failed"`
	Interrupted int             `json:"interrupted"`
	Untouched   int             `json:"untouched"` // never begun
	Stopped     string          `json:"stopped,omitempty"`
	Causes      []Cause         `json:"causes"`
	Seconds     float64         `json:"seconds"`
}

// OK reports whether every store that lagged is migrated.
func (s Summary) OK() bool { return s.Failed+s.Interrupted+s.Untouched == 0 }

// Why a run stopped before its end.
const (
	stoppedByCanary   = "a canary failed, so the others were not begun"
	stoppedByFailures = "more stores failed than --max-failures allows"
	stoppedByCaller   = "the run was told to stop"
)

// Migrate brings the stores that lag, as the registry has it, to the newest
// schema. It connects to no other store. What became of each is recorded as
// it ends and told to report, one call at a time, after begin was told how
// many there are. When ctx ends no store is begun any more, and those under
// way have a while to end. Runs may go on at the same time.
//
// The error is for what kept the run from being made: invalid_request for
// options that cannot be, or a fault of the master database.
func (s *Service) Migrate(ctx context.Context, opts MigrateOptions, begin func(total int), report func(Result)) (Summary, error) {
	opts = opts.withDefaults()
	target := s.tenants.Expected()
	sum := Summary{Target: target, Causes: []Cause{}}
	if opts.To != 0 {
		if opts.To < 1 || opts.To > target.Version {
			return sum, stoa.Errorf(stoa.InvalidRequest, "The version to migrate to must be between 1 and %d, the newest schema of this binary.", target.Version)
		}
		sum.Target = tenantdb.Schema{Version: opts.To}
	}
	todo, err := s.lagging(ctx, sum.Target)
	if err != nil {
		return sum, err
	}
	all, err := s.count(ctx)
	if err != nil {
		return sum, err
	}
	todo = slices.DeleteFunc(todo, func(st Store) bool {
		return len(opts.Stores) > 0 && !slices.Contains(opts.Stores, st.ID) || opts.skip != nil && opts.skip(st)
	})
	todo = inOrder(todo)
	sum.Lagging = len(todo)
	begin(len(todo))
	r := &run{Service: s, opts: opts, summary: sum, report: report, limit: opts.MaxFailures.Of(all)}
	if opts.DryRun {
		for _, st := range todo {
			report(Result{Store: st, State: Pending, Schema: st.Schema})
		}
		return sum, nil
	}
	started := time.Now()
	r.all(ctx, todo)
	r.summary.Seconds = time.Since(started).Seconds()
	return r.summary, nil
}

// inOrder puts stores first whose last migration went well, and takes the
// engines by turns: among the first few, the canaries, are stores of each.
func inOrder(todo []Store) []Store {
	byEngine, failed := map[tenantdb.EngineName][]Store{}, []Store{}
	for _, st := range todo {
		if st.Code != "" {
			failed = append(failed, st)
		} else {
			byEngine[st.Engine] = append(byEngine[st.Engine], st)
		}
	}
	ordered := make([]Store, 0, len(todo))
	for taken := true; taken; {
		taken = false
		for _, engine := range []tenantdb.EngineName{tenantdb.PostgreSQL, tenantdb.MySQL, tenantdb.SQLite} {
			if list := byEngine[engine]; len(list) > 0 {
				ordered, byEngine[engine], taken = append(ordered, list[0]), list[1:], true
			}
		}
	}
	return append(ordered, failed...)
}

// run is a migration of the fleet under way.
type run struct {
	*Service
	opts   MigrateOptions
	report func(Result)
	limit  int // of failures

	mu      sync.Mutex
	summary Summary
}

func (r *run) all(ctx context.Context, todo []Store) {
	canaries := todo[:min(r.opts.Canary.Of(len(todo)), len(todo))]
	r.some(ctx, canaries, true)
	r.mu.Lock()
	if r.summary.Failed > 0 && len(canaries) > 0 && len(canaries) < len(todo) && r.summary.Stopped == "" {
		r.summary.Stopped = stoppedByCanary
	}
	r.mu.Unlock()
	r.some(ctx, todo[len(canaries):], false)
	r.summary.Untouched = r.summary.Lagging - r.summary.Migrated - r.summary.Failed - r.summary.Interrupted
}

// some migrates stores side by side, until all are done or the run stops.
func (r *run) some(ctx context.Context, todo []Store, canary bool) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	release := context.AfterFunc(ctx, func() { time.AfterFunc(r.opts.Grace, cancel) })
	defer release()
	queue := make(chan Store)
	var workers sync.WaitGroup
	for range min(r.opts.Concurrency, len(todo)) {
		workers.Go(func() {
			for st := range queue {
				if r.stopped(ctx) { // since this one was handed out
					continue
				}
				result := r.one(work, st, r.summary.Target, r.opts)
				result.Canary = canary
				r.add(result)
			}
		})
	}
	for _, st := range todo {
		if r.stopped(ctx) {
			break
		}
		select {
		case queue <- st:
		case <-ctx.Done():
		}
	}
	close(queue)
	workers.Wait()
}

// stopped reports whether no more stores are to be begun.
func (r *run) stopped(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil && r.summary.Stopped == "" {
		r.summary.Stopped = stoppedByCaller
	}
	return r.summary.Stopped != ""
}

// add counts a result and passes it on.
func (r *run) add(result Result) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch result.State {
	case Failed:
		r.summary.Failed++
		r.summary.Causes = addCause(r.summary.Causes, result.Code, result.Message, result.Store.Slug)
		if r.summary.Failed > r.limit && r.summary.Stopped == "" {
			r.summary.Stopped = stoppedByFailures
		}
	case Interrupted:
		r.summary.Interrupted++
	case Migrated, Current, Pending:
		r.summary.Migrated++
	}
	r.report(result)
}
