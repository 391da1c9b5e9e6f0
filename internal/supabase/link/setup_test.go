package link

import (
	"bytes"
	"context"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

const redirect = "http://localhost:3000/api/supabase/callback"

// fixture is one replica with a stand-in for Supabase.
type fixture struct {
	*Service
	sb     *supabasetest.Server
	logged *logBuffer
}

// each runs test on every master engine, with a stand-in that has the API only.
func each(t *testing.T, test func(t *testing.T, b fixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		test(t, newFixture(t, db, supabasetest.NewAPI(t, supabasetest.Options{})))
	})
}

// eachWhole runs test as each does, with databases and poolers.
func eachWhole(t *testing.T, test func(t *testing.T, b fixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		test(t, newFixture(t, db, supabasetest.New(t, supabasetest.Options{})))
	})
}

func newFixture(t *testing.T, db *masterdb.DB, sb *supabasetest.Server) fixture {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	logged := &logBuffer{}
	tenants := tenantdb.NewManager(db, ring, tenantdb.Options{
		DataDir: t.TempDir(), Supabase: sb.Rules(), Dialer: dial.Dialer{Allow: dial.Loopback},
	})
	t.Cleanup(func() { testkit.Must(t, tenants.Close(context.Background())) })
	b := fixture{sb: sb, logged: logged}
	b.Service = New(db, ring, tenants, Options{
		API: api(sb), Redirect: redirect, Poll: 10 * time.Millisecond, ReadyTimeout: 20 * time.Second,
		Log: slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	return b
}

func api(sb *supabasetest.Server) *supabase.Client {
	return supabase.New(supabase.Options{URL: sb.URL, ClientID: supabasetest.ClientID, ClientSecret: keyring.NewSecret(supabasetest.ClientSecret)})
}

// replica returns a second process on the same master, which is opened again as db.
func (b fixture) replica(db *masterdb.DB) fixture {
	opts := b.opts
	opts.API = api(b.sb)
	return fixture{New(db, b.ring, b.tenants, opts), b.sb, b.logged}
}

func (b fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// store creates a store with its owner.
func (b fixture) store(t *testing.T) (authz.Principal, stoa.StoreID) {
	t.Helper()
	p, id, now := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}, stoa.NewID[stoa.StoreID](), time.Now().UTC()
	b.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'Olive', 'Owner', $3, $3)`, p.UserID, p.UserID.String()+"@example.com", now)
	b.exec(t, `INSERT INTO stores (id, name, slug, status, created_by, created_at, updated_at) VALUES ($1, 'Bakery', $2, 'pending_database', $4, $3, $3)`,
		id, "s-"+id.String(), now, p.UserID)
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return authz.Grant(t.Context(), tx, id, p.UserID, authz.Owner) }))
	return p, id
}

// ask starts a consent that the owner approves at Supabase.
func (b fixture) ask(t *testing.T, p authz.Principal, store stoa.StoreID) Return {
	t.Helper()
	c, err := b.Authorize(t.Context(), p, store)
	testkit.Must(t, err)
	u, err := url.Parse(b.sb.Approve(t, c.URL))
	testkit.Must(t, err)
	return Return{State: keyring.NewSecret(u.Query().Get("state")), Code: keyring.NewSecret(u.Query().Get("code")), Browser: c.Browser}
}

// connected creates a store that is connected.
func (b fixture) connected(t *testing.T) (authz.Principal, stoa.StoreID) {
	t.Helper()
	p, store := b.store(t)
	testkit.Must(t, b.Finish(t.Context(), b.ask(t, p, store)))
	return p, store
}

// outdate sets the expiry of the store's access token, so that the token is not used.
func (b fixture) outdate(t *testing.T, store stoa.StoreID) {
	t.Helper()
	b.exec(t, `UPDATE supabase_connections SET expires_at = $2 WHERE store_id = $1`, store, time.Now().UTC().Add(-time.Second))
}

func (b fixture) wantState(t *testing.T, p authz.Principal, store stoa.StoreID, state State, reason Reason) {
	t.Helper()
	c, err := b.Connection(t.Context(), p, store)
	testkit.Must(t, err)
	if c.State != state || c.Reason != reason {
		t.Fatalf("the connection is %s %s, want %s %s", c.State, c.Reason, state, reason)
	}
}

const tokenCall = "POST /v1/oauth/token"

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// atOnce runs fn n times concurrently and returns the errors.
func atOnce(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	begin := make(chan struct{})
	var done sync.WaitGroup
	for i := range n {
		done.Go(func() {
			<-begin
			errs[i] = fn(i)
		})
	}
	close(begin)
	done.Wait()
	return errs
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}
