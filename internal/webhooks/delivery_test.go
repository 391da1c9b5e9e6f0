package webhooks_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/version"
	"github.com/stoahq/stoa/internal/webhooks"
)

// TestSecretsRotate checks that for a day after a rotation deliveries verify with either
// secret, and then with the new one only.
func TestSecretsRotate(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, nil)
		e, old := p.add(t, s, server.URL)
		verifies := func(r received, secret string) bool {
			t.Helper()
			w, err := standardwebhooks.NewWebhook(secret)
			testkit.Must(t, err)
			return w.Verify(r.body, r.header) == nil
		}
		p.record(t, audit.StoreSuspended)
		if first := server.next(t); !verifies(first, old) || verifies(first, "whsec_"+strings.Repeat("A", 44)) {
			t.Error("the first secret does not sign")
		}
		_, secret, err := s.RotateSecret(t.Context(), p.owner(), p.Store, e.ID, nil)
		testkit.Must(t, err)
		p.record(t, audit.StoreSuspended)
		if both := server.next(t); !verifies(both, old) || !verifies(both, secret.Reveal()) {
			t.Errorf("after the rotation one secret does not sign: %s", both.header.Get("webhook-signature"))
		}
		p.Exec(t, `UPDATE webhook_endpoints SET old_until = created_at WHERE id = $1`, e.ID)
		p.record(t, audit.StoreSuspended)
		if last := server.next(t); verifies(last, old) || !verifies(last, secret.Reveal()) {
			t.Error("the old secret still signs")
		}
	})
}

// TestReplay checks that a range is sent again with the ids of before, beside new events, and
// that a second replay waits for the first.
func TestReplay(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, nil)
		e, _ := p.add(t, s, server.URL, "store.suspended")
		begin := db.Now()
		sent := map[string]int{}
		const n = 25
		for range n {
			p.record(t, audit.StoreSuspended)
			p.record(t, audit.StoreResumed)
		}
		for range n {
			sent[server.next(t).event.ID]++
		}
		p.published(t)
		count, err := s.Replay(t.Context(), p.owner(), p.Store, e.ID, webhooks.Range{From: begin})
		testkit.Must(t, err)
		if count != 2*n {
			t.Errorf("the range has %d events", count)
		}
		for range n {
			sent[server.next(t).event.ID]++
		}
		for id, times := range sent {
			if times != 2 {
				t.Errorf("%s was sent %d times", id, times)
			}
		}
		for name, r := range map[string]webhooks.Range{
			"too long ago": {From: begin.Add(-31 * 24 * time.Hour)}, "in the future": {From: begin.Add(time.Hour)}, "empty": {From: begin, To: &begin},
		} {
			if _, err := s.Replay(t.Context(), p.owner(), p.Store, e.ID, r); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestReplicasShareTheWork checks that two processes deliver everything that both write, each
// event once, and that a process that ends loses nothing.
func TestReplicasShareTheWork(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, stop := p.start(t, p.options(t, quick))
		p.start(t, p.options(t, quick))
		servers := []*endpoint{startEndpoint(t, nil), startEndpoint(t, nil), startEndpoint(t, nil)}
		for _, server := range servers {
			p.add(t, s, server.URL, "credits.granted", "credits.spent")
		}
		p.Give(t, 1000*credits.Credit)
		const n = 60
		var writers sync.WaitGroup
		for w := range 3 {
			writers.Go(func() {
				for i := range n / 3 {
					_, err := p.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, Description: fmt.Sprintf("%d.%d", w, i)})
					if err != nil {
						t.Error(err)
					}
					if w == 0 && i == n/6 {
						go stop()
					}
				}
			})
		}
		writers.Wait()
		for i, server := range servers {
			sequences := map[string]int{}
			for len(sequences) < n+1 {
				sequences[server.next(t).event.Data["sequence"]]++
			}
			for sequence, times := range sequences {
				if times > 2 { // a process that ends may have sent without a record
					t.Errorf("endpoint %d got transaction %s %d times", i, sequence, times)
				}
			}
		}
	})
}

// TestManyEventsWait checks that an endpoint gets everything that has waited for it, in the
// time that it needs, and that what waits makes no row for it.
func TestManyEventsWait(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, nil)
		e, _ := p.add(t, s, server.URL)
		off, on := false, true
		_, err := s.Update(t.Context(), p.owner(), p.Store, e.ID, webhooks.Change{Enabled: &off})
		testkit.Must(t, err)
		const n = 2000
		for range n / 100 {
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
				for range 100 {
					if err := audit.Record(t.Context(), tx, p.Owner, audit.Event{Action: audit.StoreSuspended, Store: p.Store}); err != nil {
						return err
					}
				}
				return nil
			}))
		}
		p.published(t)
		var rows int
		testkit.Must(t, db.Get(t.Context(), &rows, `SELECT count(*) FROM webhook_deliveries`))
		if rows > 0 {
			t.Errorf("%d rows wait", rows)
		}
		_, err = s.Update(t.Context(), p.owner(), p.Store, e.ID, webhooks.Change{Enabled: &on})
		testkit.Must(t, err)
		seen := map[string]bool{}
		for len(seen) < n {
			seen[server.next(t).event.ID] = true
		}
	})
}

// TestEventsAreOrderedForReaders checks that a reader who goes on from a cursor, while several
// writers commit in any order, misses no event and sees none twice.
func TestEventsAreOrderedForReaders(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		p.start(t, p.options(t, quick))
		const writers, each = 4, 25
		for range writers {
			go func() {
				for range each {
					err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
						return audit.Record(t.Context(), tx, p.Owner, audit.Event{Action: audit.StoreSuspended, Store: p.Store})
					})
					if err != nil && t.Context().Err() == nil {
						t.Error(err)
					}
				}
			}()
		}
		seen, cursor := map[stoa.EventID]bool{}, ""
		testkit.Eventually(t, 30*time.Second, "all are read", func() bool {
			page, err := s.Events(t.Context(), p.owner(), p.Store, webhooks.EventFilter{OldestFirst: true, Cursor: cursor, Limit: 7})
			testkit.Must(t, err)
			for _, e := range page.Events {
				if seen[e.ID] {
					t.Errorf("%s is listed twice", e.ID)
				}
				seen[e.ID] = true
			}
			cursor = *page.NextCursor
			return len(seen) == writers*each
		})
	})
}

// TestEndpointsAreChecked checks what a new endpoint may be.
func TestEndpointsAreChecked(t *testing.T) {
	t.Parallel()
	p := newPlatform(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	s := p.service(t)
	for _, url := range []string{
		"", "example.com", "/hooks", "ftp://example.com", "https://", "https://user:password@example.com/", "https://example.com/#x", "https://example.com:99999/", "https://example.com:0/", "javascript:alert(1)",
		"https://exa mple.com", "https://example.com/" + strings.Repeat("x", 2000), "https://:443/", "http:example.com", "\x00", "https://\xff.com",
	} {
		if _, _, err := s.Create(t.Context(), p.owner(), p.Store, webhooks.Change{URL: &url}); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("%q: %v", url, err)
		}
	}
	good := "https://example.com/hooks?key=1"
	for name, c := range map[string]webhooks.Change{
		"unknown type": {URL: &good, Types: &[]string{"store.exploded"}}, "control characters": {URL: &good, Description: new("a\nb")},
		"long description": {URL: &good, Description: new(strings.Repeat("x", 201))},
	} {
		if _, _, err := s.Create(t.Context(), p.owner(), p.Store, c); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("%s: %v", name, err)
		}
	}
	for range 10 {
		p.add(t, s, good)
	}
	if _, _, err := s.Create(t.Context(), p.owner(), p.Store, webhooks.Change{URL: &good}); stoa.CodeOf(err) != stoa.QuotaExceeded {
		t.Errorf("one more than the quota: %v", err)
	}
	list, err := s.List(t.Context(), p.owner(), p.Store)
	testkit.Must(t, err)
	if _, err := s.Update(t.Context(), p.owner(), p.Store, list[0].ID, webhooks.Change{Description: new("A"), Match: version.Match{"none"}}); stoa.CodeOf(err) != stoa.EditConflict {
		t.Errorf("a change of another version: %v", err)
	}
	other := p.Member(t, "owner")
	other.Key.StoreID = stoa.NewID[stoa.StoreID]()
	if _, err := s.Get(t.Context(), other, other.Key.StoreID, list[0].ID); stoa.CodeOf(err) != stoa.StoreNotFound {
		t.Errorf("of another store: %v", err)
	}
}

// TestTransactionsAreSentAgain repeats, resends and replays events that are no rows of their own:
// transactions of the ledger, published as one range. All times an event has the same content.
func TestTransactionsAreSentAgain(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const n = 5
		p := newPlatform(t, db)
		account := p.Account
		account.Ledger = credits.New(db) // which the publisher does not follow
		s, _ := p.start(t, p.options(t, quick))
		var calls atomic.Int64
		server := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			if calls.Add(1) == 1 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		e, _ := p.add(t, s, server.URL, string(events.CreditsSpent))
		begin := db.Now()
		account.Give(t, credits.Credit)
		for range n {
			_, err := account.Spend(t.Context(), credits.SpendRequest{Amount: 1})
			testkit.Must(t, err)
		}
		testkit.Must(t, s.Sweep(t.Context(), webhooks.Sweep{}))

		bodies, times := map[string]string{}, map[string]int{}
		receive := func(calls int) {
			for range calls {
				got := server.next(t)
				if was := bodies[got.event.ID]; was != "" && was != string(got.body) {
					t.Errorf("%s was sent as %s and as %s", got.event.ID, was, got.body)
				}
				bodies[got.event.ID], times[got.event.ID] = string(got.body), times[got.event.ID]+1
			}
		}
		receive(n + 1) // the first is repeated
		p.waitForState(t, s, e.ID, webhooks.Succeeded, 0)
		page, err := s.Deliveries(t.Context(), p.owner(), p.Store, e.ID, webhooks.DeliveryFilter{})
		testkit.Must(t, err)
		last := page.Deliveries[0]
		_, _, shown, err := s.Delivery(t.Context(), p.owner(), p.Store, e.ID, last.ID)
		testkit.Must(t, err)
		body, err := shown.JSON()
		testkit.Must(t, err)
		if string(body) != bodies[last.EventID.String()] {
			t.Errorf("the delivery shows %s, and %s was sent", body, bodies[last.EventID.String()])
		}
		_, err = s.Resend(t.Context(), p.owner(), p.Store, e.ID, last.ID)
		testkit.Must(t, err)
		receive(1)
		count, err := s.Replay(t.Context(), p.owner(), p.Store, e.ID, webhooks.Range{From: begin})
		testkit.Must(t, err)
		if count != n+1 { // and what has given the credits
			t.Errorf("the range has %d events", count)
		}
		receive(n)
		if len(times) != n {
			t.Errorf("%d events were sent: %v", len(times), times)
		}
		for id, n := range times {
			if n < 2 {
				t.Errorf("%s was not replayed", id)
			}
		}
	})
}
