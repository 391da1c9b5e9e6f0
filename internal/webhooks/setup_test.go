package webhooks_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/webhooks"
)

// quick is a schedule for tests: a delivery is repeated twice at once.
var quick = webhooks.Schedule{
	Timeout: time.Second, Retries: []time.Duration{time.Millisecond, time.Millisecond}, Backoffs: []time.Duration{time.Millisecond},
	DisableAfter: time.Hour, Poll: 20 * time.Millisecond,
}

// platform is a store and the processes that tell of it.
type platform struct {
	creditstest.Account
	ring *keyring.Ring
	mail *mailtest.Server
}

func newPlatform(t *testing.T, db *masterdb.DB) *platform {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("k1"))
	testkit.Must(t, err)
	return &platform{creditstest.New(t, db), ring, mailtest.Start(t, mailtest.Options{})}
}

// options returns the options of a process.
func (p *platform) options(t *testing.T, schedule webhooks.Schedule) webhooks.Options {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	sender, err := mail.New(mail.Options{URL: keyring.NewSecret("smtp://" + p.mail.Address()), From: "Stoa <no-reply@shops.test>", Log: log})
	testkit.Must(t, err)
	return webhooks.Options{
		Process: "p" + stoa.NewID[stoa.RunID]().String(), Ring: p.ring, Dialer: dial.Dialer{Allow: dial.Loopback}, Mail: sender,
		URL: "https://shops.test", Limit: 10, Log: log, Schedule: schedule,
	}
}

// service returns the part of a process that answers calls, and sends nothing.
func (p *platform) service(t *testing.T) *webhooks.Service {
	t.Helper()
	queue, err := jobs.New(p.DB, slog.New(slog.DiscardHandler), jobs.Options{})
	testkit.Must(t, err)
	return webhooks.New(p.DB, p.Ledger, queue, p.options(t, quick))
}

// start starts a process until the test ends or stop is called.
func (p *platform) start(t *testing.T, opts webhooks.Options) (s *webhooks.Service, stop func()) {
	t.Helper()
	queue, err := jobs.New(p.DB, slog.New(slog.DiscardHandler), jobs.Options{Process: opts.Process})
	testkit.Must(t, err)
	s = webhooks.New(p.DB, p.Ledger, queue, opts)
	jobs.Handle(queue, time.Minute, s.MailDisabled)
	jobs.Handle(queue, time.Minute, s.Sweep)
	testkit.Must(t, queue.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
		testkit.Must(t, queue.Stop(context.Background()))
	})
	t.Cleanup(stop)
	return s, stop
}

// owner is the owner, by an API key with every scope: it needs no session.
func (p *platform) owner() authz.Principal {
	scopes := ""
	for _, scope := range authz.Scopes() {
		scopes += string(scope) + " "
	}
	return authz.Principal{UserID: p.Owner.UserID, Key: authz.Key{ID: stoa.NewID[stoa.KeyID](), StoreID: p.Store, Scopes: scopes}}
}

// received is a call that an endpoint has got.
type received struct {
	header http.Header
	body   []byte
	event  event
	at     time.Time
}

type event struct {
	ID      string            `json:"id"`
	Type    string            `json:"type"`
	StoreID string            `json:"storeId"`
	UserID  string            `json:"userId"`
	Data    map[string]string `json:"data"`
}

// endpoint is a server that gets events. It is safe for concurrent use.
type endpoint struct {
	*httptest.Server
	calls chan received
}

// startEndpoint starts a server. answer is called after the body is read; nil answers 204.
func startEndpoint(t *testing.T, answer http.HandlerFunc) *endpoint {
	t.Helper()
	e := &endpoint{calls: make(chan received, 100_000)}
	e.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		got := received{header: r.Header, body: body, at: time.Now()}
		if err := json.Unmarshal(body, &got.event); err != nil {
			t.Errorf("the body is no event: %v", err)
		}
		e.calls <- got
		if answer != nil {
			answer(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(e.Close)
	return e
}

// next returns the next call.
func (e *endpoint) next(t *testing.T) received {
	t.Helper()
	select {
	case r := <-e.calls:
		return r
	case <-time.After(30 * time.Second):
		t.Fatal("no call")
		return received{}
	}
}

// add adds an endpoint of the store for these types, and returns its secret.
func (p *platform) add(t *testing.T, s *webhooks.Service, url string, types ...string) (webhooks.Endpoint, string) {
	t.Helper()
	e, secret, err := s.Create(t.Context(), p.owner(), p.Store, webhooks.Change{URL: &url, Types: &types})
	testkit.Must(t, err)
	return e, secret.Reveal()
}
