package tenantdb

import (
	"container/list"
	"context"
	"database/sql"
	"maps"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// What the tests of this package reach that nobody else may.

var (
	Unseal  = credential.Unseal
	AtLeast = atLeast

	NumericType = numericType

	TopServers = topServers
	LostRace   = lostRace
)

// Wrap puts wrap around one of the manager's engines.
func (m *Manager) Wrap(name credential.EngineName, wrap func(Engine) Engine) {
	m.engines[name] = wrap(m.engines[name])
}

// Leases is how many callers hold the store's pool or wait for it.
func (m *Manager) Leases(store stoa.StoreID) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[store]; p != nil {
		return p.leases
	}
	return 0
}

// Has reports whether the store's pool is open or opening.
func (m *Manager) Has(store stoa.StoreID) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pools[store] != nil
}

func (m *Manager) EvictIdleSince(t time.Time) { m.evictIdleSince(t) }

// OpenWith opens c by a way of the test's own.
func OpenWith(engines map[credential.EngineName]Engine, c credential.Credentials, dial dial.Func) (*DB, error) {
	return newDB(engines, c, dial, nil)
}

// LackMySQLSetting has connections set a variable that no server has, until it
// is called off.
func LackMySQLSetting() (off func()) {
	mysqlSettings["no_such_variable"] = "1"
	return func() { delete(mysqlSettings, "no_such_variable") }
}

// SQL is the pool below db.
func (db *DB) SQL() *sql.DB { return db.sqlx.DB }

// ConcurrencyLimiter is the limiter of a store, without the store.
type ConcurrencyLimiter struct{ l *concurrencyLimiter }

// ReadyIn is a connectionState.
type ReadyIn func() time.Duration

func (f ReadyIn) readyIn(int) time.Duration { return f() }

func NewConcurrencyLimiter(limit int, conns ReadyIn) ConcurrencyLimiter {
	l := newConcurrencyLimiter(limit)
	l.protect(conns)
	return ConcurrencyLimiter{l}
}

func (c ConcurrencyLimiter) Acquire(ctx context.Context) error { return c.l.acquire(ctx) }
func (c ConcurrencyLimiter) Release()                          { c.l.release() }
func (c ConcurrencyLimiter) Shrink()                           { c.l.shrink() }
func (c ConcurrencyLimiter) ConnectionBegun()                  { c.l.connectionBegun() }

func (c ConcurrencyLimiter) Slots() int {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.l.slots
}

func (c ConcurrencyLimiter) Waiting() int {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.l.queue.Len()
}

var (
	ErrQueueFull     = errQueueFull
	ErrOpen          = errOpen
	ErrAnswerTooLong = errAnswerTooLong
	ErrNoConnection  = errNoConnection
	ErrHashing       = errHashing
)

const (
	GrowAfter     = growAfter
	QueuePerConn  = queuePerConn
	SafetyNet     = safetyNet
	MaxAnswer     = maxAnswer
	MaxAsideBytes = maxAsideBytes
	MaxIterations = maxIterations
	HashingWait   = hashingWait
	TripAfter     = tripAfter
)

// Connections is how many connections the manager counts to c's server, and
// how many callers wait for one.
func (m *Manager) Connections(c credential.Credentials) (open, waiting int) {
	m.conns.mu.Lock()
	defer m.conns.mu.Unlock()
	if s := m.conns.servers[serverOf(c)]; s != nil {
		return s.open, s.queue.Len()
	}
	return 0, 0
}

// Breakers is how many breakers the manager remembers.
func (m *Manager) Breakers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.breakers)
}

func (m *Manager) Tidy() { m.tidy() }

// ReconcileBy is Reconcile with so many stores in one query.
func (m *Manager) ReconcileBy(ctx context.Context, size int) error { return m.reconcile(ctx, size) }

// ConnectionLimiter limits connections to each server, without the stores.
type ConnectionLimiter struct{ l *connectionLimiter }

func NewConnectionLimiter(limit int, reclaim func(server string) bool) ConnectionLimiter {
	return ConnectionLimiter{newConnectionLimiter(limit, reclaim)}
}

func (c ConnectionLimiter) Acquire(ctx context.Context, server string) error {
	return c.l.acquire(ctx, server)
}
func (c ConnectionLimiter) Release(server string) { c.l.release(server) }
func (c ConnectionLimiter) Idle(server string)    { c.l.idle(server) }
func (c ConnectionLimiter) SpareFiles(do func())  { c.l.spareFiles = do }
func (c ConnectionLimiter) Waiting() int          { return int(c.l.waiting.Load()) }

func (c ConnectionLimiter) Dial(ctx context.Context, server string, next dial.Func) (net.Conn, error) {
	return c.l.dial(server, account{}, next)(ctx, "tcp", server)
}

// AskAsAPI reads tables as the roles of an HTTP API.
func AskAsAPI(ctx context.Context, db *DB, tables []string) error { return db.askAsAPI(ctx, tables) }

// Hashings holds one for each password that is hashed at the moment.
var Hashings = hashings

// HashingSlot is a connection's right to hash, without the connection.
type HashingSlot struct{ s *hashingSlot }

func NewHashingSlot(ctx context.Context, all chan struct{}) HashingSlot {
	return HashingSlot{&hashingSlot{all: all, ctx: ctx}}
}

func (s HashingSlot) Take() error { return s.s.take() }
func (s HashingSlot) Release()    { s.s.release() }

// ScreenedPool is a pool of the driver's own for c, where nobody recovers, and
// UnscreenedPool one where nothing is checked.
func ScreenedPool(c credential.Credentials, dial dial.Func) *sql.DB {
	return driverPool(c, dial, stdlib.OptionBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
		screenConnection(cfg)
		return nil
	}))
}

func UnscreenedPool(c credential.Credentials, dial dial.Func) *sql.DB { return driverPool(c, dial) }

func driverPool(c credential.Credentials, dial dial.Func, options ...stdlib.OptionOpenDB) *sql.DB {
	cfg, err := postgresEngine{}.config(c, dial)
	if err != nil {
		panic(err) // its credentials are a test's
	}
	return stdlib.OpenDB(*cfg, append(options, stdlib.OptionAfterConnect(registerTypes))...)
}

// SessionState is what the connections of one database share.
type SessionState = sessionState

// Startup lists the parameters of a first connection.
func (s *sessionState) Startup() (all []string) {
	for name, value := range s.startupParameters(pinAtStartup) {
		all = append(all, name+"="+value)
	}
	return all
}

// FoundPooler is what stands before db's server as far as is known.
func (db *DB) FoundPooler() credential.Pooler { return db.pinned.poolerOf(db.credentials) }

// LockMigration takes the migration lock as Migrate does.
func (db *DB) LockMigration(ctx context.Context) (context.Context, func(), error) {
	return db.lockMigration(ctx, &session{DB: db.sqlx.DB, migrator: db.engine.migrator(db.credentials, db.pinned), lockWait: time.Minute})
}

// FaultKeys are the errors of a server's that have a meaning: SQLSTATEs or the
// beginnings of some, and MySQL's numbers.
func FaultKeys(engine credential.EngineName) (keys []string) {
	if engine == credential.MySQL {
		for number := range mysqlFaults {
			keys = append(keys, strconv.Itoa(int(number)))
		}
		return keys
	}
	return slices.Collect(maps.Keys(postgresFaults))
}

// Looks bounds how many stores are looked at for a connection to spare.
const Looks = looks

// Spares is a manager's choice of the store that gives up a connection, without
// the connections.
type Spares struct{ m *Manager }

// NewSpares has so many stores on each server, all of which use db.
func NewSpares(db *DB, stores map[string]int) Spares {
	m := &Manager{idle: list.New(), pools: map[stoa.StoreID]*pool{}, servers: map[string]*serverPools{}}
	for server, n := range stores {
		for range n {
			p := &pool{store: stoa.NewID[stoa.StoreID](), server: server, db: db}
			m.pools[p.store] = p
			p.place = m.idle.PushFront(p)
			m.index(p)
		}
	}
	return Spares{m}
}

// Next returns the store that gives up a connection on server, the zero id for
// none, and how many were looked at.
func (s Spares) Next(server string) (stoa.StoreID, uint64) {
	before := s.m.looked
	p := s.m.spare(server)
	if p == nil {
		return stoa.StoreID{}, s.m.looked - before
	}
	return p.store, s.m.looked - before
}

// Servers is how many servers are kept in mind.
func (s Spares) Servers() int { return len(s.m.servers) }
