package feed_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// followed is the job of a follower for an account.
type followed struct {
	StoreID stoa.StoreID `json:"storeId"`
}

func (followed) Kind() string { return "test.followed" }

// TestWorkIsDoneNowOrByAJob checks which accounts have jobs: those for which Now does nothing,
// from then on without a call, those that wait too long behind others, and those that are not
// quick. An account whose work is done has none.
func TestWorkIsDoneNowOrByAJob(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		ledger, log := credits.New(db), slog.New(slog.DiscardHandler)
		queue, err := jobs.New(db, log, jobs.Options{})
		testkit.Must(t, err)
		jobs.Handle(queue, time.Minute, func(context.Context, followed) error { return nil }) // the queue is not started
		open := func() creditstest.Account {
			account := creditstest.New(t, db)
			account.Ledger = ledger
			return account
		}
		done, undone, notQuick, panics := open(), open(), open(), open()
		var slow []creditstest.Account
		for range 12 { // more than are called at a time
			slow = append(slow, open())
		}
		var mu sync.Mutex
		calls := map[stoa.StoreID]int{}
		called := func(a creditstest.Account) int {
			mu.Lock()
			defer mu.Unlock()
			return calls[a.Store]
		}
		changes := feed.New(db, ledger, queue, log)
		changes.Follow(feed.Follower{
			Pending: `WHERE b.version > 0`, Quick: `b.store_id <> '` + notQuick.Store.String() + `'`,
			Job: func(store stoa.StoreID) jobs.Args { return followed{store} },
			Now: func(ctx context.Context, store stoa.StoreID) bool {
				mu.Lock()
				calls[store]++
				mu.Unlock()
				switch store {
				case done.Store, undone.Store:
				case panics.Store: // as a driver may, because of what the store's server sends
					panic("a strange answer")
				default:
					<-ctx.Done()
				}
				return store == done.Store
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { changes.Run(ctx) })
		defer running.Wait()
		defer cancel()
		jobsOf := func(accounts ...creditstest.Account) (n int) {
			for _, a := range accounts {
				var found int
				testkit.Must(t, db.Get(t.Context(), &found, `SELECT count(*) FROM river_job WHERE kind = 'test.followed' AND CAST(args AS text) LIKE $1`, "%"+a.Store.String()+"%"))
				n += found
			}
			return n
		}

		done.Give(t, 1)
		undone.Give(t, 1)
		notQuick.Give(t, 1)
		panics.Give(t, 1)
		testkit.Eventually(t, 30*time.Second, "three have jobs, and one is done", func() bool {
			return jobsOf(undone) == 1 && jobsOf(notQuick) == 1 && jobsOf(panics) == 1 && called(done) == 1
		})
		for _, a := range slow {
			a.Give(t, 1)
		}
		undone.Give(t, 1)
		testkit.Eventually(t, 30*time.Second, "the slow ones have jobs", func() bool { return jobsOf(slow...) == len(slow) })
		done.Give(t, 1)
		testkit.Eventually(t, 30*time.Second, "the other is done again", func() bool { return called(done) == 2 })
		if called(undone) != 1 || called(notQuick) != 0 || jobsOf(done) != 0 || jobsOf(undone) != 1 {
			t.Errorf("called %d times for the one that is not done, %d for the one that is not quick; %d jobs of the one that is done, %d of the one that is not",
				called(undone), called(notQuick), jobsOf(done), jobsOf(undone))
		}
	})
}
