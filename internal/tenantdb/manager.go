package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// ErrClosed means that the manager is shutting down.
var ErrClosed = errors.New("tenantdb: manager is closed")

// Manager opens tenant databases on demand, shares each one among its callers
// and closes unused ones. It never closes a leased database. It is safe for
// concurrent use.
type Manager struct {
	master  *masterdb.DB
	ring    *keyring.Ring
	engines map[credential.EngineName]Engine
	opts    Options
	conns   *limit.Connections
	files   *limit.Connections // limits open embedded databases

	mu       sync.Mutex
	pools    map[stoa.StoreID]*pool
	idle     *list.List // of *pool without leases, most recently used first
	servers  map[string]*serverPools
	breakers map[stoa.StoreID]*breaker
	closed   bool
	changes  uint64 // of credentials, as counted from notifications

	evicted  uint64               // pools closed to make room
	stale    uint64               // pools whose credentials had changed without a notification
	draining int                  // retired pools that are not closed yet
	retiring map[stoa.StoreID]int // the same, by store
	counts   counts
	looked   uint64 // pools examined for an idle connection

	drain sync.WaitGroup     // pools that are not closed yet
	stop  context.CancelFunc // ends sweep

	missed chan struct{} // signals that notifications may have been lost

	credentials credentialCache

	reclaimed atomic.Uint64 // how often a store's idle connections were closed for another store
}

// pool is one open (or opening) tenant database.
type pool struct {
	store    stoa.StoreID
	bulkhead *bulkhead
	ready    chan struct{} // closed when db or err is set
	db       *DB
	err      error

	// These fields are guarded by Manager.mu:
	version  int64  // of the credentials; 0 until they are loaded
	server   string // see serverOf; empty while the pool opens and for an embedded database
	embedded bool   // it is counted in Manager.files
	drained  bool   // no idle connection has been found since its last lease
	leases   int
	retired  bool // removed from the map; closed when the last lease ends
	place    *list.Element
	set      *poolSet // the set of its server that contains the pool; see Manager.index
	at       int
	lastUsed time.Time
	use      float64 // see usedAt
}

// NewManager returns a manager. It opens no database.
func NewManager(master *masterdb.DB, ring *keyring.Ring, opts Options) *Manager {
	setDefault(&opts.MaxOpen, 2000)
	setDefault(&opts.MaxEmbedded, 200)
	setDefault(&opts.ConnsPerServer, 90)
	opts.ConnsPerServer = max(opts.ConnsPerServer, 2)
	setDefault(&opts.ConnsPerStore, 8)
	opts.ConnsPerStore = max(opts.ConnsPerStore, 2)
	setDefault(&opts.ConnsPerEmbedded, opts.ConnsPerStore)
	setDefault(&opts.IdleTimeout, 5*time.Minute)
	setDefault(&opts.OpenTimeout, 10*time.Second)
	setDefault(&opts.WaitTimeout, 5*time.Second)
	setDefault(&opts.StatementTimeout, 10*time.Second)
	setDefault(&opts.Cooldown, 5*time.Second)
	setDefault(&opts.ServeStale, time.Hour)
	setDefault(&opts.sweepInterval, 30*time.Second)
	ctx, stop := context.WithCancel(context.Background())
	var m *Manager
	opts.spareFiles = func() { m.SpareFiles() }
	m = &Manager{
		master: master, ring: ring, engines: NewEngines(opts), opts: opts, idle: list.New(),
		pools: map[stoa.StoreID]*pool{}, servers: map[string]*serverPools{}, breakers: map[stoa.StoreID]*breaker{}, retiring: map[stoa.StoreID]int{}, stop: stop,
		counts: newCounts(), missed: make(chan struct{}, 1), credentials: newCredentialCache(opts.ServeStale),
	}
	m.conns = limit.NewConnections(opts.ConnsPerServer, m.reclaim)
	m.files = limit.NewConnections(opts.MaxEmbedded, m.reclaimFile)
	m.subscribe()
	go m.sweep(ctx)
	return m
}

// OpenUnleased opens a database that is not registered or not yet trusted, for
// checks and provisioning. The caller must close it. Errors have a database_…
// code.
func (m *Manager) OpenUnleased(c credential.Credentials) (*DB, error) { return m.newDB(c, nil) }

// Validate checks c in the same way as Credentials.Validate, with the manager's
// SupabaseRules.
func (m *Manager) Validate(c *credential.Credentials) error { return c.ValidateUnder(m.opts.Supabase) }

// Close refuses new leases and waits until all leases are released and every
// connection is closed, or until ctx is done. It returns ctx's error only if leases
// are left: a connection that its server has not closed yet ends with the process.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		m.stop()
		for _, p := range m.pools {
			m.retire(p)
		}
	}
	m.mu.Unlock()
	released, drained := make(chan struct{}), make(chan struct{})
	go func() {
		m.drain.Wait()
		close(released)
		m.conns.WaitClosed()
		close(drained)
	}()
	select {
	case <-released:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-drained:
	case <-ctx.Done():
	}
	return nil
}

// Open returns the number of pools that are open or opening.
func (m *Manager) Open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pools)
}
