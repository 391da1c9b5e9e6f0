package tenantdb

import (
	"container/list"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

// ErrClosed means that the manager is shutting down.
var ErrClosed = errors.New("tenantdb: manager is closed")

// Options bound what the manager keeps open.
type Options struct {
	DataDir       string        // where embedded databases live
	MaxOpen       int           // pools kept open at most, leased ones not counted out; default 1000
	IdleTimeout   time.Duration // a pool unused for so long is closed; default 5 min
	ConnsPerStore int           // connections of one pool at most; default 8, at least 2, which a migration needs
	IdleConns     int           // unused connections kept, shared out among the pools, two or more each; default 64
	OpenTimeout   time.Duration // to open a pool and reach the server; default 10 s
	Dialer        Dialer
	Supabase      SupabaseRules // which servers are Supabase's, and what signs their certificates
	sweepInterval time.Duration
}

// Manager opens tenant databases on demand, shares each among its callers
// and closes those that nobody uses. What is leased is never closed.
type Manager struct {
	master  *masterdb.DB
	ring    *keyring.Ring
	engines map[EngineName]Engine
	opts    Options

	mu     sync.Mutex
	pools  map[stoa.StoreID]*pool
	idle   *list.List // of *pool without leases, most recently used first
	closed bool
	drain  sync.WaitGroup // pools that are not closed yet
	stop   chan struct{}
}

// pool is one open (or opening) tenant database.
type pool struct {
	store stoa.StoreID
	ready chan struct{} // closed when db or err is set
	db    *DB
	err   error

	// Guarded by Manager.mu:
	leases   int
	retired  bool // no longer in the map: close when the last lease ends
	place    *list.Element
	lastUsed time.Time
}

// NewManager prepares a manager; it opens nothing yet.
func NewManager(master *masterdb.DB, ring *keyring.Ring, opts Options) *Manager {
	setDefault(&opts.MaxOpen, 1000)
	setDefault(&opts.IdleTimeout, 5*time.Minute)
	setDefault(&opts.ConnsPerStore, 8)
	opts.ConnsPerStore = max(opts.ConnsPerStore, 2)
	setDefault(&opts.OpenTimeout, 10*time.Second)
	setDefault(&opts.sweepInterval, 30*time.Second)
	setDefault(&opts.IdleConns, 64)
	m := &Manager{
		master: master, ring: ring, engines: NewEngines(opts), opts: opts,
		pools: map[stoa.StoreID]*pool{}, idle: list.New(), stop: make(chan struct{}),
	}
	go m.sweep()
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
		return Lease{}, err
	}
	if opener {
		// Not under ctx: the others wait for it too.
		go m.open(context.WithoutCancel(ctx), p)
	}
	select {
	case <-p.ready:
	default:
		select {
		case <-p.ready:
		case <-ctx.Done():
			m.release(p)
			return Lease{}, unavailable(ctx.Err())
		}
	}
	if p.err != nil {
		m.release(p)
		return Lease{}, p.err
	}
	return Lease{DB: p.db, release: sync.OnceFunc(func() { m.release(p) })}, nil
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
		p = &pool{store: store, ready: make(chan struct{})}
		m.pools[store] = p
		m.drain.Add(1)
		m.evictOver(m.opts.MaxOpen)
		opener = true
	}
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	p.leases++
	return p, opener, nil
}

func (m *Manager) release(p *pool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p.leases--
	if p.leases > 0 {
		return
	}
	p.lastUsed = time.Now()
	if p.retired {
		m.closePool(p)
		return
	}
	p.place = m.idle.PushFront(p)
	m.evictOver(m.opts.MaxOpen)
}

// open connects the pool and wakes all who wait for it. A failed pool leaves
// the map at once, so that the next caller tries afresh.
func (m *Manager) open(ctx context.Context, p *pool) {
	ctx, cancel := context.WithTimeout(ctx, m.opts.OpenTimeout)
	defer cancel()
	p.db, p.err = m.connect(ctx, p.store)
	if p.err != nil {
		m.mu.Lock()
		m.retire(p)
		m.mu.Unlock()
	}
	close(p.ready)
	m.shareIdle()
}

func (m *Manager) connect(ctx context.Context, store stoa.StoreID) (*DB, error) {
	c, err := m.Load(ctx, m.master, store)
	if err != nil {
		return nil, err
	}
	db, err := m.newDB(c, true)
	if err != nil {
		return nil, err
	}
	if err := db.Ping(ctx); err != nil {
		_ = db.sqlx.Close()
		return nil, err
	}
	return db, nil
}

// OpenUnleased opens a database that is not registered, or not yet trusted:
// for checking and provisioning. The caller closes it. Its errors name the
// cause with a database_… code.
func (m *Manager) OpenUnleased(c Credentials) (*DB, error) { return m.newDB(c, false) }

// Validate is Credentials.Validate under this manager's options.
func (m *Manager) Validate(c *Credentials) error { return c.validate(m.opts.Supabase) }

func (m *Manager) newDB(c Credentials, leased bool) (*DB, error) {
	db, err := newDB(m.engines, c, &m.opts.Dialer, leased)
	if err != nil {
		return nil, err
	}
	db.sqlx.SetMaxOpenConns(m.opts.ConnsPerStore)
	db.sqlx.SetConnMaxIdleTime(m.opts.IdleTimeout)
	return db, nil
}

// shareIdle tells every pool how many unused connections it may keep. To
// connect costs a hundred times what a query does: while few stores are open,
// a busy one should not have to do it over and over.
func (m *Manager) shareIdle() {
	m.mu.Lock()
	share := min(max(m.opts.IdleConns/max(len(m.pools), 1), 2), m.opts.ConnsPerStore)
	open := make([]*DB, 0, len(m.pools))
	for _, p := range m.pools {
		select {
		case <-p.ready:
			open = append(open, p.db)
		default: // the one who opens it comes here next
		}
	}
	m.mu.Unlock()
	for _, db := range open { // this may close connections, which a slow server may hold up
		db.sqlx.SetMaxIdleConns(share)
	}
}

// Forget retires the store's pool: leases that are out finish on it, the
// next Acquire opens a new one with the credentials of that moment.
func (m *Manager) Forget(store stoa.StoreID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[store]; p != nil {
		m.retire(p)
	}
}

// retire takes p out of the map and closes it when nobody holds it.
func (m *Manager) retire(p *pool) {
	if p.retired {
		return
	}
	p.retired = true
	delete(m.pools, p.store)
	if p.place != nil {
		m.idle.Remove(p.place)
		p.place = nil
	}
	if p.leases == 0 {
		m.closePool(p)
	}
}

// closePool closes without holding up the lock: a server may answer slowly.
func (m *Manager) closePool(p *pool) {
	go func() {
		defer m.drain.Done()
		<-p.ready
		if p.db != nil {
			_ = p.db.sqlx.Close()
		}
	}()
}

// evictOver closes the least recently used idle pools beyond limit. Leased
// ones stay, even if that leaves more than limit open.
func (m *Manager) evictOver(limit int) {
	for len(m.pools) > limit && m.idle.Len() > 0 {
		m.retire(m.idle.Back().Value.(*pool))
	}
}

// sweep closes pools that nobody has used for a while.
func (m *Manager) sweep() {
	ticker := time.NewTicker(m.opts.sweepInterval)
	defer ticker.Stop()
	for {
		select {
		case <-m.stop:
			return
		case <-ticker.C:
			m.evictIdleSince(time.Now().Add(-m.opts.IdleTimeout))
			m.shareIdle()
		}
	}
}

func (m *Manager) evictIdleSince(t time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for back := m.idle.Back(); back != nil && back.Value.(*pool).lastUsed.Before(t); back = m.idle.Back() {
		m.retire(back.Value.(*pool))
	}
}

// Close refuses new leases, waits until all are released and every
// connection is closed, or until ctx is done.
func (m *Manager) Close(ctx context.Context) error {
	m.mu.Lock()
	if !m.closed {
		m.closed = true
		close(m.stop)
		for _, p := range m.pools {
			m.retire(p)
		}
	}
	m.mu.Unlock()
	drained := make(chan struct{})
	go func() {
		m.drain.Wait()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Open reports how many pools are open or opening.
func (m *Manager) Open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pools)
}
