package webhooks_test

import (
	"io"
	"mime/quotedprintable"
	"net/http"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/version"
	"github.com/stoahq/stoa/internal/webhooks"
)

// record records an action on the store, as the domains do.
func (p *platform) record(t *testing.T, action string) {
	t.Helper()
	testkit.Must(t, p.DB.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return audit.Record(t.Context(), tx, p.Owner, audit.Event{Action: action, Store: p.Store})
	}))
}

// published waits until every event is published.
func (p *platform) published(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, 30*time.Second, "all is published", func() bool {
		var n int
		testkit.Must(t, p.DB.Get(t.Context(), &n, `SELECT count(*) FROM events WHERE position IS NULL AND type <> 'webhook.test'`))
		return n == 0
	})
}

// TestEventsArrive checks that what happens arrives signed, in the order in which it happened,
// at the endpoints that want it, and that an event whose transaction is rolled back does not.
func TestEventsArrive(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, nil)
		_, secret := p.add(t, s, server.URL, "store.suspended", "credits.granted", "credits.spent")

		p.record(t, audit.StoreSuspended)
		p.record(t, audit.StoreResumed)
		first := server.next(t)
		if first.event.Type != "store.suspended" || first.event.StoreID != p.Store.String() || first.event.UserID != p.Owner.UserID.String() {
			t.Errorf("got %s", first.body)
		}
		verifier, err := standardwebhooks.NewWebhook(secret)
		testkit.Must(t, err)
		testkit.Must(t, verifier.Verify(first.body, first.header))
		if id := first.header.Get("webhook-id"); id != first.event.ID {
			t.Errorf("webhook-id is %s, the event's %s", id, first.event.ID)
		}

		p.Give(t, 100*credits.Credit)
		given := server.next(t)
		if given.event.Data["amount"] != "100" || given.event.Data["balanceAfter"] != "100" {
			t.Errorf("got %s", given.body)
		}
		rolledBack := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			testkit.Must(t, audit.Record(t.Context(), tx, p.Owner, audit.Event{Action: audit.StoreSuspended, Store: p.Store}))
			return http.ErrAbortHandler
		})
		if rolledBack == nil {
			t.Fatal("not rolled back")
		}
		p.record(t, audit.StoreSuspended)
		last := server.next(t)
		if last.event.Type != "store.suspended" {
			t.Errorf("got %s", last.body)
		}
		page, err := s.Events(t.Context(), p.owner(), p.Store, webhooks.EventFilter{})
		testkit.Must(t, err)
		if len(page.Events) != 4 || page.Events[0].ID.String() != last.event.ID {
			t.Errorf("%d events are listed", len(page.Events))
		}
	})
}

// TestFailingDeliveriesAreRepeated checks that an event that is refused is sent again, with
// the same id, until its endpoint accepts it or the attempts are used up.
func TestFailingDeliveriesAreRepeated(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		n := 0
		server := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) {
			if n++; n < 3 {
				w.WriteHeader(http.StatusInternalServerError)
			}
		})
		e, _ := p.add(t, s, server.URL)
		p.record(t, audit.StoreSuspended)
		ids := map[string]bool{}
		for range 3 {
			ids[server.next(t).header.Get("webhook-id")] = true
		}
		if len(ids) != 1 {
			t.Errorf("%d ids", len(ids))
		}
		p.waitForState(t, s, e.ID, webhooks.Succeeded, 3)

		always := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
		failing, _ := p.add(t, s, always.URL)
		p.record(t, audit.StoreResumed)
		p.waitForState(t, s, failing.ID, webhooks.Failed, 3)
	})
}

// waitForState waits until the endpoint's newest delivery has the state, after that many
// attempts.
func (p *platform) waitForState(t *testing.T, s *webhooks.Service, id stoa.WebhookID, state webhooks.DeliveryState, attempts int) {
	t.Helper()
	var last webhooks.Delivery
	testkit.Eventually(t, 30*time.Second, string(state), func() bool {
		page, err := s.Deliveries(t.Context(), p.owner(), p.Store, id, webhooks.DeliveryFilter{})
		testkit.Must(t, err)
		if len(page.Deliveries) > 0 {
			last = page.Deliveries[0]
		}
		return last.State == state
	}, &last)
	if attempts > 0 && last.Attempts != attempts {
		t.Errorf("%d attempts, want %d", last.Attempts, attempts)
	}
	_, made, _, err := s.Delivery(t.Context(), p.owner(), p.Store, id, last.ID)
	testkit.Must(t, err)
	if len(made) != last.Attempts {
		t.Errorf("%d of %d attempts are recorded", len(made), last.Attempts)
	}
}

// TestFormsActOnce checks that a form which is sent twice makes one endpoint, and changes its
// secret once.
func TestFormsActOnce(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		address := "https://example.com/webhooks"
		c := webhooks.Change{ID: stoa.NewID[stoa.WebhookID](), URL: &address}
		e, first, err := s.Create(t.Context(), p.owner(), p.Store, c)
		testkit.Must(t, err)
		if e.ID != c.ID {
			t.Errorf("the endpoint is %s, want %s", e.ID, c.ID)
		}
		if _, _, err := s.Create(t.Context(), p.owner(), p.Store, c); stoa.CodeOf(err) != stoa.IdempotencyConflict {
			t.Errorf("sent again: %v", err)
		}
		list, err := s.List(t.Context(), p.owner(), p.Store)
		testkit.Must(t, err)
		if len(list) != 1 {
			t.Errorf("%d endpoints", len(list))
		}
		rotated, second, err := s.RotateSecret(t.Context(), p.owner(), p.Store, e.ID, version.Match{e.ETag()})
		testkit.Must(t, err)
		if second.Reveal() == first.Reveal() || rotated.OldUntil == nil {
			t.Error("the secret is the old one")
		}
		for name, match := range map[string]version.Match{"sent again": {e.ETag()}, "no version": {}} {
			if _, _, err := s.RotateSecret(t.Context(), p.owner(), p.Store, e.ID, match); stoa.CodeOf(err) != stoa.EditConflict {
				t.Errorf("%s: %v", name, err)
			}
		}
		_, _, err = s.RotateSecret(t.Context(), p.owner(), p.Store, e.ID, nil)
		testkit.Must(t, err)
	})
}

// TestDisabledEndpointIsTold checks that the owners are sent the address of the page of an
// endpoint that the platform has disabled.
func TestDisabledEndpointIsTold(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		p := newPlatform(t, db)
		s, _ := p.start(t, p.options(t, quick))
		server := startEndpoint(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) })
		e, _ := p.add(t, s, server.URL)
		p.record(t, audit.StoreSuspended)
		testkit.Eventually(t, 30*time.Second, "a mail", func() bool { return len(p.mail.Mails()) > 0 })
		body, err := io.ReadAll(quotedprintable.NewReader(p.mail.Mails()[0].Message(t).Body))
		testkit.Must(t, err)
		var slug string
		testkit.Must(t, db.Get(t.Context(), &slug, `SELECT slug FROM stores WHERE id = $1`, p.Store))
		if want := "\nhttps://shops.test/stores/" + slug + "/webhooks/" + e.ID.String(); !strings.Contains(strings.ReplaceAll(string(body), "\r", ""), want+"\n") || !strings.Contains(string(body), "410") {
			t.Errorf("the mail lacks %s:\n%s", want, body)
		}
	})
}
