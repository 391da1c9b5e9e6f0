package provisioning

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// platform contains what the replicas of one test share.
type platform struct {
	ring    *keyring.Ring
	dataDir string
	server  *credential.Server // nil means that managed databases are embedded

	supabase *credential.SupabaseRules // nil means those of tenantdbtest
}

// fixture is one replica: a service with its dependencies.
type fixture struct {
	platform
	*Service
	logged *logBuffer
}

// setup creates a replica on db that may connect to this machine. Its queue accepts jobs
// and runs none until start.
func setup(t *testing.T, db *masterdb.DB) fixture {
	t.Helper()
	return setupWith(t, db, newPlatform(t), jobs.Options{}, dial.Loopback)
}

func newPlatform(t *testing.T) platform {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	return platform{ring: ring, dataDir: t.TempDir()}
}

func setupWith(t *testing.T, db *masterdb.DB, shared platform, opts jobs.Options, allow []netip.Prefix) fixture {
	t.Helper()
	logged := &logBuffer{}
	log := slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelDebug}))
	queue, err := jobs.New(db, log, opts)
	testkit.Must(t, err)
	rules := tenantdbtest.SupabaseRules()
	if shared.supabase != nil {
		rules = *shared.supabase
	}
	tenants := tenantdb.NewManager(db, shared.ring, tenantdb.Options{
		DataDir: shared.dataDir, Dialer: dial.Dialer{Allow: allow}, Supabase: rules,
		Managed: shared.server,
	})
	t.Cleanup(func() { testkit.Must(t, tenants.Close(context.Background())) })
	registry := stores.New(db, credits.New(db), tenants, queue, hostnames.New(db, "shops.test", log), log)
	// Transient faults are retried soon, and leases last longer than any test.
	quick := Options{Lease: 5 * time.Minute, Pauses: []time.Duration{time.Millisecond, 2 * time.Millisecond}}
	b := fixture{shared, New(db, registry, tenants, queue, log, quick), logged}
	jobs.Handle(queue, Timeout, b.Provision)
	jobs.Handle(queue, FinishResetTimeout, b.FinishReset)
	jobs.Handle(queue, stores.DeleteStoreTimeout, registry.FinishDeletion)
	return b
}

// withRules returns a replica with other rules for Supabase's servers than those of
// tenantdbtest.
func withRules(t *testing.T, db *masterdb.DB, rules credential.SupabaseRules) fixture {
	t.Helper()
	shared := newPlatform(t)
	shared.supabase = &rules
	return setupWith(t, db, shared, jobs.Options{}, dial.Loopback)
}

// start runs the queue's jobs until the test ends, and enables runs in this process.
func (b fixture) start(t *testing.T) fixture {
	t.Helper()
	b.startInProcess(t)
	testkit.Must(t, b.queue.Start(t.Context()))
	t.Cleanup(func() { testkit.Must(t, b.queue.Stop(context.Background())) })
	return b
}

// partners returns the engines to try on a master: all of them, or in the short form every
// second one. Then each engine is tried on one master, and each master with some engine.
func partners(db *masterdb.DB, engines []credential.EngineName) []credential.EngineName {
	if !testing.Short() || len(masterdbtest.Engines()) == 1 || len(engines) == 1 {
		return engines
	}
	var list []credential.EngineName
	for i, engine := range engines {
		if (db.Engine == masterdb.SQLite) == (i%2 == 0) {
			list = append(list, engine)
		}
	}
	return list
}

// each runs test on every pair of a master and a tenant engine, in the short form on the
// pairs of partners, with a replica that executes jobs.
func each(t *testing.T, engines []credential.EngineName, test func(t *testing.T, b fixture, engine credential.EngineName)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db).start(t)
		for _, engine := range partners(db, engines) {
			t.Run(string(engine), func(t *testing.T) { test(t, b, engine) })
		}
	})
}

// servers returns the engines of merchants' databases that have a password and a network
// connection, which can fail.
func servers(t *testing.T) []credential.EngineName {
	t.Helper()
	engines := tenantdbtest.Engines()[1:]
	if len(engines) == 0 {
		t.Skip("needs a PostgreSQL or MySQL server")
	}
	return engines
}

func (b fixture) user(t *testing.T) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	b.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'Olive', 'Owner', $3, $3)`, p.UserID, p.UserID.String()+"@example.com", time.Now().UTC())
	return p
}

// member adds a user with that role to the store.
func (b fixture) member(t *testing.T, id stoa.StoreID, role authz.Role) authz.Principal {
	t.Helper()
	p := b.user(t)
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return authz.Grant(t.Context(), tx, id, p.UserID, role)
	}))
	return p
}

// store creates a store of a new user.
func (b fixture) store(t *testing.T) (authz.Principal, stores.Store) {
	t.Helper()
	p := b.user(t)
	s, err := b.registry.Create(t.Context(), p, stores.NewStore{Name: "Bakery"})
	testkit.Must(t, err)
	return p, s
}

// credentials returns the credentials of an empty database of that engine.
func credentials(t *testing.T, engine credential.EngineName) credential.Credentials {
	t.Helper()
	if engine == credential.SQLite {
		return credential.Credentials{Kind: credential.Managed}
	}
	return tenantdbtest.Create(t, engine)
}

// connect connects the store and waits for the run's end.
func (b fixture) connect(t *testing.T, p authz.Principal, id stoa.StoreID, c credential.Credentials) Run {
	t.Helper()
	run, err := b.Connect(t.Context(), p, id, c)
	testkit.Must(t, err)
	return b.wait(t, run)
}

// retry resumes the store's run and waits for its end.
func (b fixture) retry(t *testing.T, p authz.Principal, id stoa.StoreID) Run {
	t.Helper()
	run, err := b.Retry(t.Context(), p, id)
	testkit.Must(t, err)
	return b.wait(t, run)
}

func (b fixture) wait(t *testing.T, run Run) Run {
	t.Helper()
	run, err := b.Wait(t.Context(), run.ID, time.Minute)
	testkit.Must(t, err)
	if !run.Done() {
		t.Fatalf("the run is %s at %s after a minute", run.State, run.Step)
	}
	return run
}

// failed checks that the run ended at a step with that code, and that the store is
// pending_database.
func (b fixture) failed(t *testing.T, p authz.Principal, run Run, step string, code stoa.Code) {
	t.Helper()
	if run.State != Failed || run.Step != step || run.Fault == nil || run.Fault.Code != code {
		t.Fatalf("the run is %s at %s with %+v, want failed at %s with %s", run.State, run.Step, run.Fault, step, code)
	}
	latest, err := b.Latest(t.Context(), p, run.StoreID)
	testkit.Must(t, err)
	want := Succeeded
	for _, s := range latest.Steps {
		if s.Name == step {
			if s.State != Failed || s.FinishedAt == nil || s.Fault == nil || *s.Fault != *run.Fault {
				t.Errorf("step %+v, fault %+v", s, s.Fault)
			}
			want = Pending
		} else if s.State != want || (s.StartedAt == nil) != (want == Pending) || s.Fault != nil {
			t.Errorf("step %+v, want %s", s, want)
		}
	}
	if got := b.status(t, run.StoreID); got != stores.PendingDatabase {
		t.Errorf("the store is %s", got)
	}
}

// succeeded checks that the run did all its steps and that the store is active.
func (b fixture) succeeded(t *testing.T, p authz.Principal, run Run) stores.Store {
	t.Helper()
	if run.State != Succeeded || run.Fault != nil || run.FinishedAt == nil {
		t.Fatalf("the run is %s at %s with %+v", run.State, run.Step, run.Fault)
	}
	for _, s := range run.Steps {
		if s.State != Succeeded || s.Fault != nil || s.FinishedAt == nil {
			t.Errorf("step %+v, fault %+v", s, s.Fault)
		}
	}
	store, err := b.registry.Get(t.Context(), p, run.StoreID)
	testkit.Must(t, err)
	if store.Status != stores.Active || store.Profile == nil || len(store.Hostnames) != 1 || store.Database.Status != tenantdb.StatusOK {
		t.Fatalf("the store is %+v", store)
	}
	site, err := b.registry.Resolve(t.Context(), store.Hostnames[0].Hostname)
	testkit.Must(t, err)
	if site.StoreID != store.ID {
		t.Errorf("its hostname leads to %+v", site)
	}
	return store
}

func (b fixture) status(t *testing.T, id stoa.StoreID) stores.Status {
	t.Helper()
	var s stores.Status
	testkit.Must(t, b.db.Get(t.Context(), &s, `SELECT status FROM stores WHERE id = $1`, id))
	return s
}

// job returns the job of the run's current attempt.
func job(run Run) Provision { return Provision{RunID: run.ID, Attempt: run.Attempt} }

// expireLease expires the lease of a run, as happens when its process has ended.
func (b fixture) expireLease(t *testing.T, id stoa.RunID) {
	t.Helper()
	b.exec(t, `UPDATE provisioning_runs SET claimed_until = $2 WHERE id = $1`, id, time.Now().UTC().Add(-time.Minute))
}

// exec runs a statement in the master.
func (b fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

func (b fixture) count(t *testing.T, what string) int {
	t.Helper()
	var n int
	testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM `+what))
	return n
}

// takeHostname gives the hostname of s to another store, so that the run fails at the
// step hostname, on every engine. repair reverts that.
func (b fixture) takeHostname(t *testing.T, s stores.Store) (repair func()) {
	t.Helper()
	_, other := b.store(t)
	b.exec(t, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, created_at)
		SELECT $1, id, true, true, created_at FROM stores WHERE id = $2`, s.Slug+".shops.test", other.ID)
	return func() { b.exec(t, `DELETE FROM store_hostnames WHERE store_id = $1`, other.ID) }
}

// gate is a proxy in front of a database server. It holds the first connection and relays
// the others.
type gate struct {
	held chan struct{} // closed when the first connection arrives
	drop func()        // closes the first connection
}

// stand starts a gate in front of the server of c and changes c to it.
func stand(t *testing.T, c *credential.Credentials) *gate {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	target := net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	c.Host, c.Port = "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
	dropped := make(chan struct{})
	g := &gate{held: make(chan struct{}), drop: sync.OnceFunc(func() { close(dropped) })}
	t.Cleanup(g.drop)
	go func() {
		for first := true; ; first = false {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			if !first {
				go pass(conn, target)
				continue
			}
			close(g.held)
			go func() {
				<-dropped
				_ = conn.Close()
			}()
		}
	}()
	return g
}

func pass(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

// logBuffer collects what all replicas and their jobs log.
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

// atOnce runs fn n times concurrently and returns the results.
func atOnce[T any](n int, fn func(i int) (T, error)) ([]T, []error) {
	values, errs := make([]T, n), make([]error, n)
	var begin, done sync.WaitGroup
	begin.Add(1)
	for i := range n {
		done.Go(func() {
			begin.Wait()
			values[i], errs[i] = fn(i)
		})
	}
	begin.Done()
	done.Wait()
	return values, errs
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}
