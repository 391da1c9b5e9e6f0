package stores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
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
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// replica is one replica: a registry with its dependencies.
type replica struct {
	*Registry
	dataDir string
	logged  *atomic.Int64 // the number of log lines
}

// setup creates a replica on db. Its queue accepts jobs and runs none.
func setup(t *testing.T, db *masterdb.DB) replica {
	t.Helper()
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	b := replica{dataDir: t.TempDir(), logged: new(atomic.Int64)}
	log := slog.New(slog.NewTextHandler(lines{b.logged}, nil))
	queue, err := jobs.New(db, log, jobs.Options{})
	testkit.Must(t, err)
	tenants := tenantdb.NewManager(db, ring, tenantdb.Options{DataDir: b.dataDir, Dialer: dial.Dialer{Allow: dial.Loopback}})
	b.Registry = New(db, credits.New(db), tenants, queue, hostnames.New(db, "shops.test", log), log)
	jobs.Handle(queue, SyncIdentityTimeout, b.SyncIdentity)
	jobs.Handle(queue, DeleteStoreTimeout, b.FinishDeletion)
	t.Cleanup(func() {
		testkit.Must(t, tenants.Close(context.Background()))
	})
	return b
}

// lines counts log lines.
type lines struct{ n *atomic.Int64 }

func (l lines) Write(p []byte) (int, error) {
	l.n.Add(1)
	return len(p), nil
}

// eachTenant runs test on every pair of a master and a tenant engine.
func eachTenant(t *testing.T, test func(t *testing.T, b replica, engine credential.EngineName)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for _, engine := range tenantdbtest.Engines() {
			t.Run(string(engine), func(t *testing.T) {
				test(t, setup(t, db), engine)
			})
		}
	})
}

// start runs the queue's jobs until the test ends.
func (b replica) start(t *testing.T) {
	t.Helper()
	testkit.Must(t, b.queue.Start(t.Context()))
	t.Cleanup(func() {
		testkit.Must(t, b.queue.Stop(context.Background()))
	})
}

// settle waits until no job is waiting or to be retried.
func (b replica) settle(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "the jobs are done", func() bool {
		stats, err := jobs.ReadStats(t.Context(), b.db)
		testkit.Must(t, err)
		return stats.Waiting+stats.Retrying == 0
	})
}

func (b replica) user(t *testing.T) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	b.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, p.UserID, p.UserID.String()+"@example.com", time.Now().UTC())
	return p
}

// member adds a user with that role to the store.
func (b replica) member(t *testing.T, id stoa.StoreID, role authz.Role) authz.Principal {
	t.Helper()
	p := b.user(t)
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return authz.Grant(t.Context(), tx, id, p.UserID, role)
	}))
	return p
}

// renameMaster changes name and slug in the master only.
func (b replica) renameMaster(t *testing.T, id stoa.StoreID, patch storedata.ProfilePatch) error {
	t.Helper()
	_, err := b.rename(t.Context(), authz.Principal{}, id, patch)
	return err
}

func (b replica) create(t *testing.T, p authz.Principal, name string) Store {
	t.Helper()
	s, err := b.Create(t.Context(), p, NewStore{Name: name})
	testkit.Must(t, err)
	return s
}

// exec runs a statement in the master.
func (b replica) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

func (b replica) count(t *testing.T, what string) int {
	t.Helper()
	var n int
	testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM `+what))
	return n
}

// setStatus sets a store's state, from any state.
func (b replica) setStatus(t *testing.T, id stoa.StoreID, s Status) {
	t.Helper()
	b.change(t, id, `UPDATE stores SET status = $2 WHERE id = $1`, id, string(s))
}

// change runs a statement in the master that changes the store's state or hostnames, and
// notifies the change.
func (b replica) change(t *testing.T, id stoa.StoreID, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(t.Context(), query, args...); err != nil {
			return err
		}
		return hostnames.NotifyChange(tx, id)
	}))
}

// tenant is the database of an active store. It can be made unreachable.
type tenant struct {
	credential.Credentials
	down, up func()
}

// open creates an active store of p with an empty database of that engine.
func (b replica) open(t *testing.T, p authz.Principal, engine credential.EngineName, name string) (Store, tenant) {
	t.Helper()
	s := b.create(t, p, name)
	tn := b.tenant(t, engine, s.ID)
	b.connect(t, s, tn.Credentials)
	s, err := b.Get(t.Context(), p, s.ID)
	testkit.Must(t, err)
	return s, tn
}

// connect does the essential steps of provisioning.
func (b replica) connect(t *testing.T, s Store, c credential.Credentials) {
	t.Helper()
	ctx := t.Context()
	db, err := b.tenants.OpenUnleased(c)
	testkit.Must(t, err)
	_, err = db.Migrate(ctx)
	testkit.Must(t, err)
	testkit.Must(t, storedata.CreateStore(ctx, db, storedata.Profile{ID: s.ID, ProfileValues: storedata.ProfileValues{Name: s.Name, Slug: s.Slug}}))
	testkit.Must(t, db.Close())
	testkit.Must(t, b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := b.BeginProvisioning(ctx, tx, s.ID); err != nil {
			return err
		}
		if err := b.tenants.Save(ctx, tx, s.ID, c); err != nil {
			return err
		}
		if err := tenantdb.RecordHealth(ctx, tx, s.ID, nil); err != nil {
			return err
		}
		return b.Activate(ctx, tx, s.ID)
	}))
	testkit.Must(t, b.mapHostname(ctx, s.ID))
}

// mapHostname calls MapHostname in its own transaction.
func (b replica) mapHostname(ctx context.Context, id stoa.StoreID) error {
	return b.db.Tx(ctx, func(tx *masterdb.Tx) error { return b.MapHostname(ctx, tx, id) })
}

func (b replica) tenant(t *testing.T, engine credential.EngineName, id stoa.StoreID) tenant {
	t.Helper()
	if engine == credential.SQLite {
		return b.embedded(t, id)
	}
	c := tenantdbtest.Create(t, engine)
	wire := newWire(t, net.JoinHostPort(c.Host, strconv.Itoa(c.Port)))
	c.Host, c.Port = "127.0.0.1", wire.port
	return tenant{c, wire.cut, wire.repair}
}

// embedded returns a database that is made unreachable by a folder in place of its file.
// That works only while the registry has no pool open for it.
func (b replica) embedded(t *testing.T, id stoa.StoreID) tenant {
	path := filepath.Join(b.dataDir, "stores", id.String()[34:], id.String()+".db")
	return tenant{
		credential.ManagedSQLite(id),
		func() {
			testkit.Must(t, os.Rename(path, path+".away"))
			testkit.Must(t, os.Mkdir(path, 0o700))
		},
		func() {
			testkit.Must(t, os.Remove(path))
			testkit.Must(t, os.Rename(path+".away", path))
		},
	}
}

// fileInUse reports whether the embedded database is open: SQLite deletes its write-ahead
// log with the last connection.
func (b replica) fileInUse(t *testing.T, id stoa.StoreID) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(b.dataDir, "stores", id.String()[34:], id.String()+".db-wal"))
	return err == nil
}

// wire is a connection to a server that can be interrupted and restored.
type wire struct {
	port   int
	target string

	mu    sync.Mutex
	isCut bool
	conns []net.Conn
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	w := &wire{port: listener.Addr().(*net.TCPAddr).Port, target: target}
	t.Cleanup(func() {
		_ = listener.Close()
		w.cut()
	})
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go w.carry(conn)
		}
	}()
	return w
}

func (w *wire) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", w.target)
	if err != nil {
		return
	}
	defer server.Close()
	w.mu.Lock()
	if w.isCut {
		w.mu.Unlock()
		return
	}
	w.conns = append(w.conns, client, server)
	w.mu.Unlock()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	_, _ = io.Copy(client, server)
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = true
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

func (w *wire) repair() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.isCut = false
}

// profile reads the profile from the tenant database directly.
func (b replica) profile(t *testing.T, id stoa.StoreID) storedata.Profile {
	t.Helper()
	lease, err := b.tenants.Acquire(t.Context(), id)
	testkit.Must(t, err)
	defer lease.Release()
	p, err := storedata.ReadProfile(t.Context(), lease.DB, id)
	testkit.Must(t, err)
	return p
}

// atOnce runs fn n times concurrently and returns the results.
func atOnce[T any](n int, fn func(i int) (T, error)) ([]T, []error) {
	values, errs := make([]T, n), make([]error, n)
	var gate, done sync.WaitGroup
	gate.Add(1)
	for i := range n {
		done.Go(func() {
			gate.Wait()
			values[i], errs[i] = fn(i)
		})
	}
	gate.Done()
	done.Wait()
	return values, errs
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

// wantQuota fails the test unless err is quota_exceeded with that quota.
func wantQuota(t testing.TB, err error, want stoa.Quota) {
	t.Helper()
	wantCode(t, err, stoa.QuotaExceeded)
	var e *stoa.Error
	if !errors.As(err, &e) || e.Quota == nil || *e.Quota != want {
		t.Fatalf("%v has the quota %+v, want %+v", err, e.Quota, want)
	}
}

// fields returns the names of the fields in the faults of err.
func fields(err error) string {
	var e *stoa.Error
	if !errors.As(err, &e) {
		return ""
	}
	var names []string
	for _, f := range e.Fields {
		names = append(names, f.Field)
	}
	return fmt.Sprint(names)
}

func ptr[T any](v T) *T { return &v }
