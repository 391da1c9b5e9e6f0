package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/limits"
	"github.com/stoahq/stoa/masterdb"
)

// ErrClosed means that the manager is shutting down.
var ErrClosed = errors.New("tenantdb: manager is closed")

// Options bound what the manager keeps open and how long it waits.
type Options struct {
	DataDir          string        // where embedded databases live
	MaxOpen          int           // stores kept at hand at most, leased ones not counted out; default 2000
	MaxEmbedded      int           // embedded databases open at most, leased ones too; default 200
	ConnsPerServer   int           // connections to one database server at most; default 90, which leaves some of a stock server's 100
	ConnsPerStore    int           // connections of one store at most; default 8, at least 2, which a migration needs
	ConnsPerEmbedded int           // of one embedded store; default ConnsPerStore
	IdleTimeout      time.Duration // a store or a connection unused for so long is closed; default 5 min
	OpenTimeout      time.Duration // to reach a store's server for the first time; default 10 s
	WaitTimeout      time.Duration // for another caller of the same store to finish; default 5 s
	StatementTimeout time.Duration // for a statement or a whole transaction of a lease; default 10 s
	Cooldown         time.Duration // how long a database that fails is left alone; default 5 s
	ServeStale       time.Duration // maximum age of cached credentials, which are used while the master is unreachable; default 1 h
	Dialer           Dialer
	Own              *OwnMigrations     // the operator's migrations; nil without any
	Supabase         SupabaseRules      // which servers are Supabase's, and what signs their certificates
	Managed          *Server            // where managed databases are made; nil: embedded, in DataDir
	Memory           *limits.ByteBudget // of answers that are read or sent; nil: without bounds
	Log              *slog.Logger       // of panics; default slog.Default()
	sweepInterval    time.Duration
	spareFiles       func() // closes databases that nobody uses, when the process can open no more files
}

// Manager opens tenant databases on demand, shares each among its callers
// and closes those that nobody uses. What is leased is never closed.
type Manager struct {
	master  *masterdb.DB
	ring    *keyring.Ring
	engines map[EngineName]Engine
	opts    Options
	conns   *connectionLimiter
	files   *connectionLimiter // of embedded databases: each counts until it is closed

	mu       sync.Mutex
	pools    map[stoa.StoreID]*pool
	idle     *list.List // of *pool without leases, most recently used first
	servers  map[string]*serverPools
	breakers map[stoa.StoreID]*breaker
	closed   bool
	changes  uint64 // of credentials, as notified

	evicted  uint64 // pools closed to make room
	stale    uint64 // pools whose credentials had changed unheard
	draining int    // pools that are retired and not closed yet
	counts   counts
	looked   uint64 // pools that were asked for a connection to spare

	drain sync.WaitGroup     // pools that are not closed yet
	stop  context.CancelFunc // ends the sweep

	missed chan struct{} // credentials may have changed unheard

	credentials credentialCache

	reclaimed atomic.Uint64 // times that a store gave up its idle connections for another
}

// pool is one open (or opening) tenant database.
type pool struct {
	store    stoa.StoreID
	bulkhead *bulkhead
	ready    chan struct{} // closed when db or err is set
	db       *DB
	err      error

	// Guarded by Manager.mu:
	version  int64  // of its credentials; 0 until they are loaded
	server   string // where its connections lead; empty while it opens and for an embedded one
	embedded bool   // it counts as one of Manager.files
	drained  bool   // its idle connections were closed and it has not been leased since
	leases   int
	retired  bool // no longer in the map: close when the last lease ends
	place    *list.Element
	set      *poolSet // of its server, and where it is there; see Manager.index
	at       int
	lastUsed time.Time
	use      float64 // see usedAt
}

// NewManager prepares a manager; it opens nothing yet.
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
		pools: map[stoa.StoreID]*pool{}, servers: map[string]*serverPools{}, breakers: map[stoa.StoreID]*breaker{}, stop: stop,
		counts: newCounts(), missed: make(chan struct{}, 1), credentials: newCredentialCache(opts.ServeStale),
	}
	m.conns = newConnectionLimiter(opts.ConnsPerServer, m.reclaim)
	m.conns.spareFiles = opts.spareFiles
	m.files = newConnectionLimiter(opts.MaxEmbedded, m.reclaimFile)
	m.subscribe()
	go m.sweep(ctx)
	return m
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Lease is the right to use a store's database until Release.
type Lease struct {
	*DB
	release func()
}

// Acquire leases the store's database, opening it if need be. However many
// callers come at once, one of them opens and the others wait for it. It
// fails with tenant_unavailable when the database cannot be reached and with
// store_pending_database when the store has none.
func (m *Manager) Acquire(ctx context.Context, store stoa.StoreID) (Lease, error) {
	p, opener, err := m.lease(store)
	if err != nil {
		m.counts.refused.Add(1)
		return Lease{}, err
	}
	if opener {
		// Not under ctx: the others wait for it too.
		go m.open(context.WithoutCancel(ctx), p)
	}
	if !opener && p.isReady() {
		m.counts.warm.Add(1)
	} else if err := m.await(ctx, p); err != nil {
		m.release(p)
		return Lease{}, err
	}
	if p.err != nil {
		m.release(p)
		return Lease{}, p.err
	}
	return Lease{DB: p.db, release: sync.OnceFunc(func() { m.release(p) })}, nil
}

// isReady reports whether p is open. One that failed to open leaves the map
// before it is ready.
func (p *pool) isReady() bool {
	select {
	case <-p.ready:
		return p.err == nil
	default:
		return false
	}
}

// await waits until p is open, or has failed to.
func (m *Manager) await(ctx context.Context, p *pool) error {
	begin := time.Now()
	defer func() { m.counts.opening.Observe(time.Since(begin).Seconds()) }()
	select {
	case <-p.ready:
	case <-ctx.Done():
		m.counts.failed.Add(1)
		return unavailable(ctx.Err())
	}
	if p.err != nil {
		m.counts.failed.Add(1)
	} else {
		m.counts.cold.Add(1)
	}
	return nil
}

// Release ends the lease. A second call does nothing: it would end the lease
// of somebody else.
func (l Lease) Release() { l.release() }

// lease counts the caller in. The one who finds no pool becomes its opener.
func (m *Manager) lease(store stoa.StoreID) (p *pool, opener bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil, false, unavailable(ErrClosed)
	}
	p = m.pools[store]
	if p == nil {
		if b := m.breakers[store]; b != nil && b.isOpen() {
			return nil, false, b.refusal()
		}
		p = &pool{store: store, bulkhead: m.newBulkhead(store), ready: make(chan struct{})}
		m.pools[store] = p
		m.drain.Add(1)
		m.evictOver()
		opener = true
	} else if p.bulkhead.breaker.isOpen() {
		return nil, false, p.bulkhead.breaker.refusal()
	}
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	p.drained = false
	p.leases++
	m.index(p)
	return p, opener, nil
}

// newBulkhead gives a store's new pool the breaker of its last one.
func (m *Manager) newBulkhead(store stoa.StoreID) *bulkhead {
	b := m.breakers[store]
	if b == nil {
		b = newBreaker(m.opts.Cooldown)
		m.breakers[store] = b
	}
	return &bulkhead{
		breaker: b, limiter: newConcurrencyLimiter(m.opts.ConnsPerStore), wait: m.opts.WaitTimeout, statement: m.opts.StatementTimeout,
		waited: m.counts.waiting, account: account{m.opts.Memory, limits.ID("answers", store)},
	}
}

func (m *Manager) release(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.leases--
	if p.leases > 0 {
		return
	}
	now := time.Now()
	p.use, p.lastUsed = p.usedAt(now)+1, now
	if p.retired {
		m.closePool(p)
		return
	}
	p.place = m.idle.PushFront(p)
	m.index(p)
	m.evictOver()
	m.notifyIdle(p)
}

// open connects the pool and wakes all who wait for it. A failed pool leaves
// the map at once, so that the next caller tries afresh.
func (m *Manager) open(ctx context.Context, p *pool) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.opts.OpenTimeout, errSlow)
	defer cancel()
	var r Registered
	err := stoa.CatchPanic(func() (err error) { // a driver's, at what the server sends
		r, err = m.readyToOpen(ctx, p)
		if err == nil {
			p.db, err = m.connect(ctx, p.store, r.Credentials, p.bulkhead)
		}
		return err
	})
	var panicked *stoa.Panic
	if errors.As(err, &panicked) {
		err = unavailable(err)
	}
	p.err = err
	m.mu.Lock()
	p.version = r.Version
	if p.err != nil {
		m.retire(p)
	} else if !p.embedded {
		p.server = serverOf(r.Credentials)
		m.index(p)
	}
	m.notifyIdle(p)
	m.mu.Unlock()
	close(p.ready)
}

// readyToOpen reads what the pool is to connect to, and waits until it may.
func (m *Manager) readyToOpen(ctx context.Context, p *pool) (Registered, error) {
	r, err := m.readCached(ctx, p.store)
	if err == nil {
		err = r.readable()
	}
	if code := stoa.CodeOf(err); code == stoa.DatabaseCredentialsLost || code == stoa.PlatformUnavailable {
		err = unavailable(err) // the cause is not for shoppers
	}
	if err == nil && r.Credentials.Engine == SQLite {
		err = m.takeFile(ctx, p)
	}
	return r, err
}

// connect opens c and sees that its server answers, with settings that Stoa can
// work with, and where the store is.
func (m *Manager) connect(ctx context.Context, store stoa.StoreID, c Credentials, b *bulkhead) (_ *DB, err error) {
	done, err := b.breaker.allow()
	if err != nil {
		return nil, err
	}
	outcome := errInterrupted // of a panic
	defer func() { done(outcome) }()
	db, err := m.newDB(c, b)
	if err == nil {
		db.protectPool()
		b.conns, b.server = m.conns, serverOf(c)
		if db.Engine == SQLite {
			b.limiter.setLimit(m.opts.ConnsPerEmbedded)
		}
		err = db.pinOrClose(ctx, store)
	}
	if outcome = healthSignal(ctx, err); err != nil {
		return nil, err
	}
	return db, nil
}

// OpenUnleased opens a database that is not registered, or not yet trusted:
// for checking and provisioning. The caller closes it. Its errors name the
// cause with a database_… code.
func (m *Manager) OpenUnleased(c Credentials) (*DB, error) { return m.newDB(c, nil) }

// Validate is Credentials.Validate under this manager's options.
func (m *Manager) Validate(c *Credentials) error { return c.validate(m.opts.Supabase) }

func (m *Manager) newDB(c Credentials, b *bulkhead) (*DB, error) {
	c = m.present(c)
	d := new(dialTracker)
	a := account{m.opts.Memory, limits.Of("answers-of-server", serverOf(c))}
	if b != nil {
		a = b.account
	}
	db, err := newDB(m.engines, c, d.track(m.conns.dial(serverOf(c), a, m.opts.Dialer.For(c))), b)
	if err != nil {
		return nil, err
	}
	db.own, db.dials, db.account, db.log = m.opts.Own, d, a, m.opts.Log
	m.limit(db)
	return db, nil
}

// limit: how many are in use is the gate's business, how many there are the
// budget's.
func (m *Manager) limit(db *DB) {
	conns := m.opts.ConnsPerStore
	if db.Engine == SQLite {
		conns = m.opts.ConnsPerEmbedded
	}
	db.sqlx.SetMaxOpenConns(conns)
	db.sqlx.SetMaxIdleConns(conns)
	db.sqlx.SetConnMaxIdleTime(m.opts.IdleTimeout)
}

// serverOf names the database server that c leads to. Behind one host of
// Supabase's poolers each project has a server of its own.
func serverOf(c Credentials) string {
	server := net.JoinHostPort(strings.ToLower(c.Host), strconv.Itoa(c.Port))
	if c.Kind == KindSupabase && c.Pooler != NoPooler {
		server += "/" + c.User[strings.LastIndex(c.User, ".")+1:]
	}
	return server
}

// Forget retires the store's pool: leases that are out finish on it, the
// next Acquire opens a new one with the credentials of that moment. What is
// known of the database's failures is forgotten too: it was about the
// credentials of before.
func (m *Manager) Forget(store stoa.StoreID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.forget(store)
}

func (m *Manager) forget(store stoa.StoreID) {
	m.changes++
	m.credentials.rows.Invalidate(store)
	if p := m.pools[store]; p != nil {
		m.retire(p)
	}
	delete(m.breakers, store)
}

// retire takes p out of the map and closes it when nobody holds it.
func (m *Manager) retire(p *pool) {
	if p.retired {
		return
	}
	p.retired = true
	m.draining++
	delete(m.pools, p.store)
	if p.bulkhead.breaker.isCalm() {
		delete(m.breakers, p.store)
	}
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	m.index(p)
	if p.leases == 0 {
		m.closePool(p)
	}
}

// closePool closes without holding up the lock: a server may answer slowly.
func (m *Manager) closePool(p *pool) {
	if p.embedded {
		m.files.markClosing(embeddedFiles)
	}
	closing := p.embedded
	go func() {
		defer m.drain.Done()
		<-p.ready
		if p.db != nil {
			_ = stoa.CatchPanic(p.db.sqlx.Close) // the rest is to be given back in any case
		}
		if closing {
			m.files.markClosed(embeddedFiles)
		} else if p.embedded {
			m.files.release(embeddedFiles) // it was still being opened
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		m.draining--
	}()
}

// Close refuses new leases, waits until all are released and every
// connection is closed, or until ctx is done. Then it fails if there are leases
// left; a connection that its server has not ended yet ends with the process.
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
		m.conns.waitClosed()
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

// Open reports how many pools are open or opening.
func (m *Manager) Open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pools)
}
