package webhooks_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// TestPublishersAtOnce runs four publishers that are all told of the same changes, beside
// accounts with more transactions than one publication of rows takes. It checks that positions
// have no gaps, and that each transaction and recorded event is published once, in its order:
// transactions as ranges, as rows, and as ranges after some have been rows.
func TestPublishersAtOnce(t *testing.T) {
	t.Parallel()
	for _, form := range []string{"ranges", "rows", "rows, then ranges"} {
		t.Run(form, func(t *testing.T) {
			t.Parallel()
			masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) { publishAtOnce(t, db, form) })
		})
	}
}

func publishAtOnce(t *testing.T, db *masterdb.DB, form string) {
	useRanges := func(ranges bool) {
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE event_stream SET ranges = $1`, ranges)
			return err
		}))
	}
	useRanges(form == "ranges")
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
	if form == "rows, then ranges" {
		useRanges(true)
	}
	writing.Wait()
	p.published(t)
	const spends = 3*(backlog+1) + writers*each
	testkit.Eventually(t, 30*time.Second, "all transactions are published", func() bool { return p.eventsLike(t, "credits.") >= spends })
	if n := p.eventsLike(t, "store.suspended"); n != writers*each {
		t.Errorf("%d recorded events", n)
	}
	p.checkStream(t, spends+writers*each)

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

// eventsLike returns the number of published events whose types begin so.
func (p *platform) eventsLike(t *testing.T, prefix string) (n int) {
	t.Helper()
	for _, e := range p.stream(t) {
		if strings.HasPrefix(string(e.Type), prefix) {
			n++
		}
	}
	return n
}

// stream returns all published events.
func (p *platform) stream(t *testing.T) []events.Event {
	t.Helper()
	all, err := webhooks.StreamRange{UpTo: math.MaxInt64, Limit: math.MaxInt32}.Read(t.Context(), p.DB, p.DB.Engine)
	testkit.Must(t, err)
	return all
}

// checkStream checks that there are that many events, that their positions have no gaps, and
// that the transactions of each account are events in their order.
func (p *platform) checkStream(t *testing.T, want int) {
	t.Helper()
	var s struct{ Stream, Behind int64 }
	testkit.Must(t, p.DB.Get(t.Context(), &s, `SELECT position AS stream, (SELECT count(*) FROM credit_balances b
		LEFT JOIN published_credits p ON p.store_id = b.store_id WHERE coalesce(p.seq, 0) <> b.seq) AS behind FROM event_stream`))
	all := p.stream(t)
	if len(all) != want || s.Stream != int64(want) || s.Behind != 0 {
		t.Errorf("%d events, and %+v; want %d events", len(all), s, want)
	}
	next := map[stoa.StoreID]int{}
	for i, e := range all {
		if e.Position != int64(i+1) {
			t.Fatalf("event %d has the position %d", i+1, e.Position)
		}
		if !strings.HasPrefix(string(e.Type), "credits.") {
			continue
		}
		var data struct {
			Sequence int `json:",string"`
		}
		testkit.Must(t, json.Unmarshal([]byte(e.Data), &data))
		if next[*e.StoreID]++; data.Sequence != next[*e.StoreID] {
			t.Fatalf("transaction %d of an account is published as number %d", data.Sequence, next[*e.StoreID])
		}
	}
}
