package payments_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stripe/stripe-go/v86"
	"github.com/stripe/stripe-go/v86/webhook"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/testkit"
)

const secret = "whsec_test"

// shop is one store with its owner and a payments service whose queue does not run: tests
// apply events themselves, or call start.
type shop struct {
	*payments.Service
	db     *masterdb.DB
	ledger *credits.Ledger
	queue  *jobs.Queue
	store  stoa.StoreID
	owner  authz.Principal
	log    *syncBuffer
}

func sandbox() payments.Config {
	return payments.Config{Sandbox: true, WebhookSecret: keyring.NewSecret(secret), BaseURL: "http://localhost:3000/"}
}

func setup(t testing.TB, db *masterdb.DB, cfg payments.Config) shop {
	t.Helper()
	s := shop{db: db, ledger: credits.New(db), store: stoa.NewID[stoa.StoreID](), log: &syncBuffer{}}
	s.owner = authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	var err error
	s.queue, err = jobs.New(db, slog.New(slog.DiscardHandler), jobs.Options{})
	testkit.Must(t, err)
	cfg.Log = slog.New(slog.NewTextHandler(s.log, nil))
	s.Service, err = payments.New(db, s.ledger, s.queue, cfg)
	testkit.Must(t, err)
	jobs.Handle(s.queue, time.Minute, s.Apply)
	jobs.Handle(s.queue, time.Minute, s.Recharge)
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := insertUser(t.Context(), tx, s.owner.UserID); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`, s.store, s.store.String(), s.owner.UserID, tx.Now)
		if err != nil {
			return err
		}
		if err := authz.Grant(t.Context(), tx, s.store, s.owner.UserID, authz.Owner); err != nil {
			return err
		}
		return s.ledger.Open(t.Context(), tx, s.store)
	}))
	return s
}

func insertUser(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, id, id.String()+"@example.com", tx.Now)
	return err
}

// member adds a user with that role to the store.
func (s shop) member(t testing.TB, role authz.Role) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	testkit.Must(t, s.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := insertUser(t.Context(), tx, p.UserID); err != nil {
			return err
		}
		return authz.Grant(t.Context(), tx, s.store, p.UserID, role)
	}))
	return p
}

// start runs the queue until the end of the test.
func (s shop) start(t testing.TB) {
	t.Helper()
	testkit.Must(t, s.queue.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.queue.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

// buy creates a purchase of whole credits.
func (s shop) buy(t testing.TB, amount int) payments.Purchase {
	t.Helper()
	p, err := s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: credits.Amount(amount) * credits.Credit})
	testkit.Must(t, err)
	return p.Purchase
}

func (s shop) balance(t testing.TB) credits.Balance {
	t.Helper()
	b, err := s.ledger.Balance(t.Context(), s.owner, s.store)
	testkit.Must(t, err)
	return b
}

func (s shop) status(t testing.TB, p payments.Purchase) payments.Status {
	t.Helper()
	got, err := s.Get(t.Context(), s.owner, s.store, p.ID)
	testkit.Must(t, err)
	return got.Status
}

// transactions counts the ledger's rows of the store.
func (s shop) transactions(t testing.TB) int {
	t.Helper()
	page, err := s.ledger.Transactions(t.Context(), s.owner, s.store, credits.Filter{Limit: 100})
	testkit.Must(t, err)
	return len(page.Transactions)
}

// count runs a query that returns one number.
func (s shop) count(t testing.TB, query string, args ...any) int {
	t.Helper()
	var n int
	testkit.Must(t, s.db.Get(t.Context(), &n, query, args...))
	return n
}

// event is the event of p's payment. A test may change it before it is sent.
type event struct {
	id, typ string
	session map[string]any
}

func paid(p payments.Purchase, id, intent string) event {
	return event{id: id, typ: "checkout.session.completed", session: map[string]any{
		"id": *p.ProviderRef, "object": "checkout.session", "client_reference_id": p.ID.String(),
		"payment_status": "paid", "payment_intent": intent, "amount_total": p.AmountMinor, "currency": strings.ToLower(p.Currency),
	}}
}

func (e event) body() []byte {
	body, err := json.Marshal(map[string]any{
		"id": e.id, "object": "event", "type": e.typ, "api_version": stripe.APIVersion, "data": map[string]any{"object": e.session},
	})
	if err != nil {
		panic(err)
	}
	return body
}

func sign(body []byte, secret string, at time.Time) string {
	return webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: body, Secret: secret, Timestamp: at}).Header
}

// receive delivers e as Stripe would.
func (s shop) receive(t testing.TB, e event) {
	t.Helper()
	testkit.Must(t, s.Receive(t.Context(), e.body(), sign(e.body(), secret, time.Now())))
}

// applied reports whether the event is stored and applied.
func (s shop) applied(t testing.TB, id string) bool {
	t.Helper()
	return s.count(t, `SELECT count(*) FROM stripe_events WHERE id = $1 AND applied_at IS NOT NULL`, id) == 1
}

// concurrently runs fn(0) … fn(n-1) concurrently.
func concurrently(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// syncBuffer is a log that a test can read while jobs write to it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// take returns what was written since the last call.
func (b *syncBuffer) take() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	defer b.buf.Reset()
	return b.buf.String()
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}
