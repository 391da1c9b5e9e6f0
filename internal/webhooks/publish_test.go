package webhooks_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// TestPublishersAtOnce runs four publishers that are all told of the same changes, beside
// accounts with more transactions than one publication takes. It checks that positions have no
// gaps, and that each transaction and recorded event is published once, in its order.
func TestPublishersAtOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const writers, each, backlog = 4, 60, 1200
		p := newPlatform(t, db)
		behind := []creditstest.Account{p.Account, creditstest.New(t, db), creditstest.New(t, db)}
		for _, account := range behind { // by ledgers that no publisher follows
			account.Ledger = credits.New(db)
			account.Give(t, credits.Credit*10_000)
			var running sync.WaitGroup
			for range backlog {
				running.Go(func() {
					if _, err := account.Spend(t.Context(), credits.SpendRequest{Amount: 1}); err != nil {
						t.Error(err)
					}
				})
			}
			running.Wait()
		}
		for range 4 {
			opts := p.options(t, quick)
			opts.Log = slog.New(slog.NewTextHandler(failure{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
			s, _ := p.start(t, opts)
			testkit.Must(t, s.Sweep(t.Context(), webhooks.Sweep{}))
		}
		var writing sync.WaitGroup
		for range writers {
			writing.Go(func() {
				for range each {
					_, err := p.Spend(t.Context(), credits.SpendRequest{Amount: 1})
					if err == nil {
						err = p.recordOne(t.Context(), audit.StoreSuspended)
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		p.published(t)
		const spends = 3*(backlog+1) + writers*each
		until(t, "all transactions are published", func() bool { return p.eventsLike(t, "credits.%") >= spends })
		if n := p.eventsLike(t, "store.suspended"); n != writers*each {
			t.Errorf("%d recorded events", n)
		}
		p.checkStream(t, spends+writers*each)
	})
}

// failure is a log whose records fail the test.
type failure struct{ t *testing.T }

func (f failure) Write(record []byte) (int, error) {
	f.t.Errorf("logged: %s", record)
	return len(record), nil
}

// TestFullPublicationIsSent publishes as much as fits into one publication, to an endpoint. The
// next publication finds nothing, and the process does not look by itself.
func TestFullPublicationIsSent(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const full = 500
		p := newPlatform(t, db)
		account := p.Account
		account.Ledger = credits.New(db) // which the publisher does not follow
		account.Give(t, credits.Credit*1000)
		for range full - 1 {
			_, err := account.Spend(t.Context(), credits.SpendRequest{Amount: 1})
			testkit.Must(t, err)
		}
		schedule := quick
		schedule.Poll = time.Hour
		s, _ := p.start(t, p.options(t, schedule))
		server := startEndpoint(t, nil)
		p.add(t, s, server.URL)
		testkit.Must(t, s.Sweep(t.Context(), webhooks.Sweep{}))
		server.next(t)
	})
}

func (p *platform) recordOne(ctx context.Context, action string) error {
	return p.DB.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p.Owner, audit.Event{Action: action, Store: p.Store})
	})
}

func (p *platform) eventsLike(t *testing.T, types string) (n int) {
	t.Helper()
	testkit.Must(t, p.DB.Get(t.Context(), &n, `SELECT count(*) FROM events WHERE type LIKE $1`, types))
	return n
}

// checkStream checks that there are that many events, that their positions have no gaps, and
// that the transactions of each account are events in their order.
func (p *platform) checkStream(t *testing.T, events int) {
	t.Helper()
	var s struct{ Events, Last, Stream, Behind int64 }
	testkit.Must(t, p.DB.Get(t.Context(), &s, `SELECT count(*) AS events, max(position) AS last, (SELECT position FROM event_stream) AS stream,
		(SELECT count(*) FROM credit_balances b LEFT JOIN published_credits p ON p.store_id = b.store_id WHERE coalesce(p.seq, 0) <> b.seq) AS behind FROM events`))
	if s.Events != int64(events) || s.Last != s.Events || s.Stream != s.Last || s.Behind != 0 {
		t.Errorf("%+v, want %d events", s, events)
	}
	var order []struct {
		StoreID stoa.StoreID
		Seq     int64
	}
	testkit.Must(t, p.DB.Select(t.Context(), &order, `SELECT t.store_id, t.seq FROM events e JOIN credit_transactions t ON t.id = e.id ORDER BY e.position`))
	next := map[stoa.StoreID]int64{}
	for _, at := range order {
		if next[at.StoreID]++; at.Seq != next[at.StoreID] {
			t.Fatalf("transaction %d of an account is published as number %d", at.Seq, next[at.StoreID])
		}
	}
}
