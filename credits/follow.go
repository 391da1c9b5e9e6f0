package credits

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
)

// Follower is one kind of work that follows the changes of accounts, such as
// the copy in the store's own database.
type Follower struct {
	// Behind is the SQL that follows "FROM credit_balances b" and ends with the
	// condition under which there is work for an account: "JOIN … WHERE …".
	Behind string
	// Job is the work. It is idempotent and looks for itself what there is to do.
	Job func(stoa.StoreID) jobs.Args
}

// Feed has followers work a moment after accounts have changed, and never
// makes a change wait for it: a change only marks its account here, in memory.
// What a killed process had marked, Sweep finds.
type Feed struct {
	db        *masterdb.DB
	queue     *jobs.Queue
	log       *slog.Logger
	followers []Follower
	pause     time.Duration

	mu      sync.Mutex
	changed map[stoa.StoreID]bool
	wake    chan struct{} // holds one when there is a change
}

// feedPause is how long changes of an account are collected into one job.
const feedPause = time.Second

// NewFeed returns the feed of what l changes. Follow before the ledger is used.
func NewFeed(l *Ledger, queue *jobs.Queue, log *slog.Logger) *Feed {
	f := &Feed{
		db: l.db, queue: queue, log: log, pause: feedPause,
		changed: map[stoa.StoreID]bool{}, wake: make(chan struct{}, 1),
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
	default: // it is awake
	}
}

func (f *Feed) take() map[stoa.StoreID]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed := f.changed
	f.changed = map[stoa.StoreID]bool{}
	return changed
}

// Run enqueues the work for what changes in this process, until ctx ends. It
// looks at each account a second time: the job that was under way at the first
// look may have read what was before.
func (f *Feed) Run(ctx context.Context) {
	var again map[stoa.StoreID]bool
	for {
		if len(again) == 0 {
			select {
			case <-f.wake:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(f.pause):
		case <-ctx.Done():
			return
		}
		changed := f.take()
		due := make([]stoa.StoreID, 0, len(changed)+len(again))
		for store := range again {
			if !changed[store] {
				due = append(due, store)
			}
		}
		for store := range changed {
			due = append(due, store)
		}
		again = changed
		for part := range slices.Chunk(due, feedAtOnce) {
			if err := f.enqueue(ctx, part); err != nil && ctx.Err() == nil {
				f.log.WarnContext(ctx, "changes of credits are followed up later", "err", err)
			}
		}
	}
}

// feedAtOnce bounds how many accounts one query names or returns.
const feedAtOnce = 500

// enqueue adds the jobs for those of the accounts for which there is work.
func (f *Feed) enqueue(ctx context.Context, stores []stoa.StoreID) error {
	only, arg := ` AND b.store_id = ANY ($1::uuid[])`, any(raw(stores))
	if f.db.Engine == masterdb.SQLite {
		text, err := json.Marshal(stores)
		if err != nil {
			return err
		}
		only, arg = ` AND b.store_id IN (SELECT value FROM json_each($1))`, string(text)
	}
	for _, w := range f.followers {
		var behind []stoa.StoreID
		if err := f.db.Select(ctx, &behind, `SELECT b.store_id FROM credit_balances b `+w.Behind+only, arg); err != nil {
			return err
		}
		if err := f.add(ctx, w, behind); err != nil {
			return err
		}
	}
	return nil
}

// raw are ids as PostgreSQL takes an array of them.
func raw(stores []stoa.StoreID) [][16]byte {
	out := make([][16]byte, len(stores))
	for i, store := range stores {
		out[i] = store
	}
	return out
}

func (f *Feed) add(ctx context.Context, w Follower, stores []stoa.StoreID) error {
	if len(stores) == 0 {
		return nil
	}
	return f.db.Tx(ctx, func(tx *masterdb.Tx) error {
		for _, store := range stores {
			if err := f.queue.EnqueueOnce(ctx, tx, w.Job(store)); err != nil {
				return err
			}
		}
		return nil
	})
}

// SweepFeed is the job that enqueues the work for every account that has any.
type SweepFeed struct{}

// Kind implements jobs.Args.
func (SweepFeed) Kind() string { return "credits.sweep_feed" }

// SweepFeedEvery is how often: it bounds how late the work is that nobody has
// enqueued, such as for a change by a process that was killed.
const SweepFeedEvery = time.Minute

// Sweep runs the job.
func (f *Feed) Sweep(ctx context.Context, _ SweepFeed) error {
	for _, w := range f.followers {
		for after := (stoa.StoreID{}); ; {
			var behind []stoa.StoreID
			err := f.db.Select(ctx, &behind, `SELECT b.store_id FROM credit_balances b `+w.Behind+
				` AND b.store_id > $1 ORDER BY b.store_id LIMIT $2`, after, feedAtOnce)
			if err != nil {
				return err
			}
			if err := f.add(ctx, w, behind); err != nil {
				return err
			}
			if len(behind) < feedAtOnce {
				break
			}
			after = behind[len(behind)-1]
		}
	}
	return nil
}
