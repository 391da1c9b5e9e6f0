package tenantdb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

// testManager is a manager with a master database that records the pools that
// it opens.
type testManager struct {
	*tenantdb.Manager
	master *masterdb.DB
	ring   *keyring.Ring
	dir    string
	owner  stoa.UserID

	mu     sync.Mutex
	pools  []*sql.DB
	onOpen func() error // called before a pool is opened
}

func setup(t testing.TB, opts tenantdb.Options) *testManager {
	t.Helper()
	return setupOn(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)), opts)
}

func setupOn(t testing.TB, master *masterdb.DB, opts tenantdb.Options) *testManager {
	t.Helper()
	opts.DataDir = t.TempDir()
	opts.Dialer.Allow = dial.Loopback
	h := &testManager{master: master, ring: newRing(t), dir: opts.DataDir, owner: stoa.NewID[stoa.UserID]()}
	h.Manager = tenantdb.NewManager(master, h.ring, opts)
	for _, engine := range []credential.EngineName{credential.SQLite, credential.PostgreSQL, credential.MySQL} {
		h.Wrap(engine, func(e tenantdb.Engine) tenantdb.Engine { return spy{e, h} })
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second) // the test's context is done by now
		defer cancel()
		if err := h.Close(ctx); err != nil {
			t.Error(err)
		}
		if n := h.open(); n != 0 {
			t.Errorf("%d pools are open after Close", n)
		}
	})
	h.tx(t, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, 'a@example.com', '', '', '', $2, $2)`, h.owner, tx.Now)
		return err
	})
	return h
}

// spy records every pool that an engine opens.
type spy struct {
	tenantdb.Engine
	h *testManager
}

func (s spy) Open(c credential.Credentials, dial dial.Func, state *tenantdb.SessionState) (*sql.DB, error) {
	s.h.mu.Lock()
	onOpen := s.h.onOpen
	s.h.mu.Unlock()
	if onOpen != nil {
		if err := onOpen(); err != nil {
			return nil, err
		}
	}
	db, err := s.Engine.Open(c, dial, state)
	if err == nil {
		s.h.mu.Lock()
		defer s.h.mu.Unlock()
		s.h.pools = append(s.h.pools, db)
	}
	return db, err
}

func (h *testManager) beforeOpen(f func() error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.onOpen = f
}

// opened returns the number of all pools that were ever opened; open returns
// the number of those that are not closed.
func (h *testManager) opened() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.pools)
}

func (h *testManager) open() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, db := range h.pools {
		if isOpen(db) {
			n++
		}
	}
	return n
}

// isOpen reports whether a pool is open. It uses a context that is done,
// because a closed pool reports that it is closed before it checks the context.
func isOpen(db *sql.DB) bool {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return errors.Is(db.PingContext(ctx), context.Canceled)
}

func (h *testManager) tx(t testing.TB, fn func(*masterdb.Tx) error) {
	t.Helper()
	if err := h.master.Tx(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

// store registers a store without a database.
func (h *testManager) store(t testing.TB) stoa.StoreID {
	t.Helper()
	id := stoa.NewID[stoa.StoreID]()
	h.tx(t, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'a store', 'active', $3, $4, $4)`, id, "s"+strings.ReplaceAll(id.String(), "-", ""), h.owner, tx.Now)
		return err
	})
	return id
}

func (h *testManager) save(t testing.TB, store stoa.StoreID, c credential.Credentials) {
	t.Helper()
	h.tx(t, func(tx *masterdb.Tx) error { return h.Save(t.Context(), tx, store, c) })
}

// embedded registers a store with an embedded database.
func (h *testManager) embedded(t testing.TB) stoa.StoreID {
	t.Helper()
	store := h.store(t)
	h.save(t, store, credential.ManagedSQLite(store))
	return store
}

// lease acquires a lease or fails the test.
func (h *testManager) lease(t testing.TB, store stoa.StoreID) tenantdb.Lease {
	t.Helper()
	l, err := h.Acquire(t.Context(), store)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func works(t testing.TB, l tenantdb.Lease) {
	t.Helper()
	var one int
	if err := l.Get(t.Context(), &one, `SELECT 1`); err != nil || one != 1 {
		t.Errorf("a leased database does not work: %v", err)
	}
}

func checkUnavailable(t testing.TB, err error) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != stoa.TenantUnavailable || e.RetryAfter <= 0 {
		t.Errorf("got %v, want tenant_unavailable with a time to wait", err)
	}
}

// gate makes openers wait. entered receives one value for each opener that has
// arrived; pass lets all of them continue.
func (h *testManager) gate() (entered <-chan struct{}, pass func()) {
	in, through := make(chan struct{}, 100), make(chan struct{})
	h.beforeOpen(func() error {
		in <- struct{}{}
		<-through
		return nil
	})
	return in, func() { close(through) }
}

type acquired struct {
	tenantdb.Lease
	err error
}

// come starts n callers and waits until they hold the store's pool or wait for
// it.
func (h *testManager) come(t testing.TB, n int, ctx context.Context, store stoa.StoreID) <-chan acquired {
	t.Helper()
	before, results := h.Leases(store), make(chan acquired, n)
	for range n {
		go func() {
			l, err := h.Acquire(ctx, store)
			results <- acquired{l, err}
		}()
	}
	testkit.Eventually(t, testkit.Timeout, "all calls have a lease", func() bool { return h.Leases(store) == before+n })
	return results
}

// link is a connection to a server that can be interrupted.
type link struct {
	target string
	port   int
	l      net.Listener
	mu     sync.Mutex
	conns  []net.Conn
}

func newLink(t *testing.T, c credential.Credentials) *link {
	t.Helper()
	k := &link{target: net.JoinHostPort(c.Host, strconv.Itoa(c.Port))}
	k.repair(t)
	t.Cleanup(k.cut)
	return k
}

func (k *link) repair(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", k.port))
	testkit.Must(t, err)
	k.l, k.port = l, l.Addr().(*net.TCPAddr).Port
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp4", k.target)
			if err != nil {
				_ = from.Close()
				continue
			}
			k.mu.Lock()
			k.conns = append(k.conns, from, to)
			k.mu.Unlock()
			for _, pair := range [][2]net.Conn{{from, to}, {to, from}} {
				go func() {
					_, _ = io.Copy(pair[0], pair[1])
					_ = pair[0].Close()
				}()
			}
		}
	}()
}

func (k *link) cut() {
	_ = k.l.Close()
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, c := range k.conns {
		_ = c.Close()
	}
	k.conns = nil
}
