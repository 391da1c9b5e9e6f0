// Package feed runs jobs that follow the changes of credit accounts: copies in the
// stores' own databases, automatic recharges, mails about a low balance.
package feed

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Follower is one kind of work that follows the changes of accounts.
type Follower struct {
	// Pending is the SQL that follows "FROM credit_balances b" and ends with the
	// condition under which there is work for an account: "JOIN … WHERE …".
	Pending string
	// Job returns the job for an account. The job is idempotent and determines itself
	// what to do.
	Job func(stoa.StoreID) jobs.Args

	// Now does what the job does, and reports whether it has: otherwise the job is enqueued.
	// Nil: there is always a job. Quick is the SQL condition, on what Pending selects from, of
	// the accounts for which Now is likely to be done within a moment.
	Now   func(context.Context, stoa.StoreID) bool
	Quick string
}

// Feed does the work of its followers shortly after accounts have changed: at once, or by
// jobs. It never delays a change: a change only marks its account in memory. Sweep finds the
// accounts that a killed process had marked. A Feed is safe for concurrent use once all
// followers are added.
type Feed struct {
	db        *masterdb.DB
	queue     *jobs.Queue
	log       *slog.Logger
	followers []Follower
	pause     time.Duration

	mu      sync.Mutex
	changed map[stoa.StoreID]bool
	wake    chan struct{} // has one element when an account is marked

	notNow map[stoa.StoreID]time.Time // accounts that have jobs only until then; used by Run
}

const (
	// collectFor is the least time between two rounds: what changes meanwhile is followed
	// together. collectFirst is the least time from a change to its round.
	collectFor   = time.Second
	collectFirst = 100 * time.Millisecond

	nowAtOnce = 8               // calls of Follower.Now at a time
	nowFor    = 2 * time.Second // in one round; the others, and what then remains, become jobs
	notNowFor = time.Minute     // an account has jobs only, once Now was not done
)

// maxAccounts is the maximum number of accounts that one query names or returns.
const maxAccounts = 500

// New returns the feed of the accounts that l changes. The caller adds the
// followers before it uses l.
func New(db *masterdb.DB, l *credits.Ledger, queue *jobs.Queue, log *slog.Logger) *Feed {
	f := &Feed{
		db: db, queue: queue, log: log, pause: collectFor,
		changed: map[stoa.StoreID]bool{}, wake: make(chan struct{}, 1), notNow: map[stoa.StoreID]time.Time{},
	}
	l.OnChange(f.mark)
	return f
}

// Follow adds a follower.
func (f *Feed) Follow(w Follower) { f.followers = append(f.followers, w) }

func (f *Feed) mark(store stoa.StoreID) {
	f.mu.Lock()
	f.changed[store] = true
	f.mu.Unlock()
	select {
	case f.wake <- struct{}{}:
	default: // Run already has a wake-up pending
	}
}

func (f *Feed) takeChanged() map[stoa.StoreID]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.changed
	f.changed = map[stoa.StoreID]bool{}
	return changed
}

// Run follows the changes made by this process, until ctx ends. It checks an
// account a second time when the job was there already: it may have read the account before
// the change.
func (f *Feed) Run(ctx context.Context) {
	again := map[stoa.StoreID]bool{}
	var begun time.Time // the last round
	for {
		if len(again) == 0 {
			select {
			case <-f.wake:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(max(collectFirst, time.Until(begun.Add(f.pause)))):
		case <-ctx.Done():
			return
		}
		begun = time.Now()
		changed := f.takeChanged()
		due := slices.Collect(maps.Keys(changed))
		for store := range again {
			if !changed[store] {
				due = append(due, store)
			}
		}
		clear(again)
		for part := range slices.Chunk(due, maxAccounts) {
			behind, err := f.followPart(ctx, part)
			if err != nil && ctx.Err() == nil {
				f.log.WarnContext(ctx, "jobs after credit changes not enqueued; the next sweep enqueues them", "err", err)
			}
			for _, store := range behind {
				if changed[store] {
					again[store] = true
				}
			}
		}
	}
}

// pendingJob is work of a follower, by its index, for an account.
type pendingJob struct {
	Follower int
	StoreID  stoa.StoreID
	Quick    bool
}

// followPart does the pending work of those of the accounts that have any, or enqueues its jobs.
// It returns the accounts of which a job was there already.
func (f *Feed) followPart(ctx context.Context, stores []stoa.StoreID) (behind []stoa.StoreID, err error) {
	pending, err := f.pending(ctx, stores)
	if err != nil {
		return nil, err
	}
	var quick, others []pendingJob
	for _, p := range pending {
		if p.Quick && time.Now().After(f.notNow[p.StoreID]) {
			quick = append(quick, p)
		} else {
			others = append(others, p)
		}
	}
	if behind, err = f.enqueue(ctx, others); err != nil {
		return behind, err
	}
	more, err := f.enqueue(ctx, f.doNow(ctx, quick))
	return append(behind, more...), err
}

// doNow does work at once. It returns what is not done.
func (f *Feed) doNow(ctx context.Context, work []pendingJob) (left []pendingJob) {
	ctx, cancel := context.WithTimeout(ctx, nowFor)
	defer cancel()
	var running errgroup.Group
	running.SetLimit(nowAtOnce)
	tried, done := make([]bool, len(work)), make([]bool, len(work))
	for i, p := range work {
		running.Go(func() error {
			if tried[i] = ctx.Err() == nil; !tried[i] {
				return nil
			}
			err := stoa.CatchPanic(func() error {
				done[i] = f.followers[p.Follower].Now(ctx, p.StoreID)
				return nil
			})
			if err != nil {
				f.log.ErrorContext(ctx, "work after a credit change panicked; a job does it", "store", p.StoreID.String(), "err", err)
			}
			return nil
		})
	}
	_ = running.Wait() // no call fails
	maps.DeleteFunc(f.notNow, func(_ stoa.StoreID, until time.Time) bool { return time.Now().After(until) })
	for i, p := range work {
		if tried[i] && !done[i] {
			f.notNow[p.StoreID] = time.Now().Add(notNowFor)
		}
		if !done[i] {
			left = append(left, p)
		}
	}
	return left
}

// pending returns the work for those of the accounts that have any.
func (f *Feed) pending(ctx context.Context, stores []stoa.StoreID) (pending []pendingJob, err error) {
	only, arg := ` AND b.store_id = ANY ($1::uuid[])`, any(uuids(stores))
	if f.db.Engine == masterdb.SQLite {
		text, err := json.Marshal(stores)
		if err != nil {
			return nil, err
		}
		only, arg = ` AND b.store_id IN (SELECT value FROM json_each($1))`, string(text)
	}
	var queries []string
	for i, w := range f.followers {
		queries = append(queries, fmt.Sprintf(`SELECT %d AS follower, b.store_id, %s AS quick FROM credit_balances b %s%s`,
			i, cmp.Or(w.Quick, `FALSE`), w.Pending, only))
	}
	err = f.db.Select(ctx, &pending, strings.Join(queries, ` UNION ALL `), arg)
	return pending, err
}

// uuids returns ids as PostgreSQL takes an array of them.
func uuids(stores []stoa.StoreID) [][16]byte {
	out := make([][16]byte, len(stores))
	for i, store := range stores {
		out[i] = store
	}
	return out
}

// enqueue enqueues jobs in one transaction. It returns the accounts of which a job was there
// already.
func (f *Feed) enqueue(ctx context.Context, pending []pendingJob) (behind []stoa.StoreID, err error) {
	if len(pending) == 0 {
		return nil, nil
	}
	err = f.db.Tx(ctx, func(tx *masterdb.Tx) error {
		behind = nil
		for _, p := range pending {
			added, err := f.queue.EnqueueIfNone(ctx, tx, f.followers[p.Follower].Job(p.StoreID))
			if err != nil {
				return err
			}
			if !added {
				behind = append(behind, p.StoreID)
			}
		}
		return nil
	})
	return behind, err
}

// Sweep is the job that enqueues the jobs for every account with pending work.
type Sweep struct{}

// Kind implements jobs.Args.
func (Sweep) Kind() string { return "credits.sweep_feed" }

// SweepEvery is the interval of Sweep. It limits the delay of work that was not enqueued,
// such as after a change by a process that was killed.
const SweepEvery = time.Minute

// Sweep runs the job.
func (f *Feed) Sweep(ctx context.Context, _ Sweep) error {
	for i, w := range f.followers {
		for after := (stoa.StoreID{}); ; {
			var pending []pendingJob
			err := f.db.Select(ctx, &pending, fmt.Sprintf(`SELECT %d AS follower, b.store_id FROM credit_balances b %s`, i, w.Pending)+
				` AND b.store_id > $1 ORDER BY b.store_id LIMIT $2`, after, maxAccounts)
			if err != nil {
				return err
			}
			if _, err := f.enqueue(ctx, pending); err != nil {
				return err
			}
			if len(pending) < maxAccounts {
				break
			}
			after = pending[len(pending)-1].StoreID
		}
	}
	return nil
}
