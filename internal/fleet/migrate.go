package fleet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// MigrateOptions select the stores to migrate and limit the run.
type MigrateOptions struct {
	To          int64          // the last built-in migration, as in tenantdb.MigrateOptions; 0 means all, and the operator's custom migrations
	Concurrency int            // stores at a time; default 8
	Canary      Share          // stores that are migrated first; the others follow only if none of these fails
	MaxFailures Share          // of all stores; no further store is started once more have failed
	Stores      []stoa.StoreID // only these; none means all that lag
	Timeout     time.Duration  // of one store; default 2 min
	Grace       time.Duration  // for migrations in progress when the run is stopped; default 10 s
	DryRun      bool           // only reports which stores would be migrated
	onlyDue     bool           // excludes stores whose last failure is too recent
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

// State is the state of a store after a run.
type State string

// The states of a store after a run.
const (
	Pending     State = "pending"     // a dry run: it would be migrated
	Migrated    State = "migrated"    // its schema is the target
	Current     State = "current"     // another process has migrated it meanwhile
	Failed      State = "failed"      // the cause is recorded
	Interrupted State = "interrupted" // the run was stopped; the migration in progress is rolled back, or completed by the next run
)

// Result is the result of one store.
type Result struct {
	Store    Store
	State    State
	Schema   tenantdb.Schema // after the run, if it is known
	Code     stoa.Code       // of a failure
	Message  string
	Duration time.Duration
	Canary   bool
}

// Summary is the outcome of a run.
type Summary struct {
	Target      tenantdb.Schema `json:"target"`
	Lagging     int             `json:"lagging"`  // at the start of the run
	Migrated    int             `json:"migrated"` // including those that another process migrated meanwhile
	Failed      int             `json:"failed"`
	Interrupted int             `json:"interrupted"`
	Untouched   int             `json:"untouched"` // not started
	Stopped     string          `json:"stopped,omitempty"`
	Causes      []Cause         `json:"causes"`
	Seconds     float64         `json:"seconds"`
}

// OK reports whether every store that lagged is migrated.
func (s Summary) OK() bool { return s.Failed+s.Interrupted+s.Untouched == 0 }

// Observer follows a run. Its methods are called one at a time.
type Observer interface {
	Begin(stores int) // before the first store, with the number of stores to migrate
	Add(Result)       // after each store
}

// discard is the Observer of a run without an observer.
type discard struct{}

func (discard) Begin(int)  {}
func (discard) Add(Result) {}

// The reasons why a run stops early.
const (
	stoppedByCanary   = "a canary failed, so the others were not started"
	stoppedByFailures = "more stores failed than allowed"
	stoppedByCaller   = "the run was told to stop"
)

// Migrate migrates the stores that lag, according to the registry, to the newest schema.
// It connects to no other store. Each store's result is recorded when its migration ends.
// When ctx ends, no further store is started, and migrations in progress have
// MigrateOptions.Grace to end. Runs may be concurrent.
//
// The error is the reason why there was no run: invalid_request for invalid options, or a
// fault of the master database.
func (s *Service) Migrate(ctx context.Context, opts MigrateOptions, observer Observer) (Summary, error) {
	started := time.Now()
	r, err := s.plan(ctx, opts, observer)
	if err != nil {
		return r.summary, err
	}
	observer.Begin(len(r.todo))
	if r.opts.DryRun {
		for _, st := range r.todo {
			observer.Add(Result{Store: st, State: Pending, Schema: st.Schema})
		}
		return r.summary, nil
	}
	canaries := min(r.opts.Canary.Of(len(r.todo)), len(r.todo))
	r.migrateAll(ctx, r.todo[:canaries], true)
	if canaries > 0 && canaries < len(r.todo) {
		r.stopAfterCanary()
	}
	r.migrateAll(ctx, r.todo[canaries:], false)
	r.summary.Untouched = r.summary.Lagging - r.summary.Migrated - r.summary.Failed - r.summary.Interrupted
	r.summary.Seconds = time.Since(started).Seconds()
	return r.summary, nil
}

// run is a migration of the fleet.
type run struct {
	*Service
	opts     MigrateOptions
	observer Observer
	todo     []Store // in the order in which they are migrated
	limit    int     // failures that are allowed

	mu      sync.Mutex // guards summary, and orders calls of the observer
	summary Summary
}

// plan validates the options and selects the stores of a run.
func (s *Service) plan(ctx context.Context, opts MigrateOptions, observer Observer) (*run, error) {
	target := s.tenants.Expected()
	r := &run{Service: s, opts: opts.withDefaults(), observer: observer, summary: Summary{Target: target, Causes: []Cause{}}}
	if opts.To != 0 {
		if opts.To < 1 || opts.To > target.Version {
			return r, stoa.Errorf(stoa.InvalidRequest, "The version to migrate to must be between 1 and %d, the newest schema of this binary.", target.Version)
		}
		r.summary.Target = tenantdb.Schema{Version: opts.To}
	}
	lagging, err := s.lagging(ctx, r.summary.Target)
	if err != nil {
		return r, err
	}
	all, err := s.count(ctx, "")
	if err != nil {
		return r, err
	}
	now := s.db.Now()
	r.todo = inOrder(slices.DeleteFunc(lagging, func(st Store) bool {
		return len(opts.Stores) > 0 && !slices.Contains(opts.Stores, st.ID) || opts.onlyDue && !due(st, now)
	}))
	r.limit = opts.MaxFailures.Of(all)
	r.summary.Lagging = len(r.todo)
	return r, nil
}

// inOrder moves stores whose last migration failed to the end, and alternates the engines
// of the others, so that the canaries include each engine.
func inOrder(todo []Store) []Store {
	byEngine, failed := map[credential.EngineName][]Store{}, []Store{}
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
		for _, engine := range serversFirst() {
			if list := byEngine[engine]; len(list) > 0 {
				ordered, byEngine[engine], taken = append(ordered, list[0]), list[1:], true
			}
		}
	}
	return append(ordered, failed...)
}

// serversFirst lists all engines, the embedded ones last.
func serversFirst() []credential.EngineName {
	onServer := func(e credential.EngineName) bool { return !e.Embedded() }
	return slices.Concat(credential.Servers, slices.DeleteFunc(slices.Clone(credential.Engines), onServer))
}

// stopAfterCanary stops the run if a canary failed.
func (r *run) stopAfterCanary() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.summary.Failed > 0 && r.summary.Stopped == "" {
		r.summary.Stopped = stoppedByCanary
	}
}

// migrateAll migrates stores concurrently until all are done or the run stops.
func (r *run) migrateAll(ctx context.Context, todo []Store, canary bool) {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	release := context.AfterFunc(ctx, func() { time.AfterFunc(r.opts.Grace, cancel) })
	defer release()
	queue := make(chan Store)
	var workers sync.WaitGroup
	for range min(r.opts.Concurrency, len(todo)) {
		workers.Go(func() {
			for st := range queue {
				if r.stopped(ctx) { // the run stopped after this store was queued
					continue
				}
				result := r.migrateStore(work, st, r.summary.Target, r.opts)
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

// stopped reports whether no further store may be started.
func (r *run) stopped(ctx context.Context) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ctx.Err() != nil && r.summary.Stopped == "" {
		r.summary.Stopped = stoppedByCaller
	}
	return r.summary.Stopped != ""
}

// add counts a result and passes it to the observer.
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
	r.observer.Add(result)
}
