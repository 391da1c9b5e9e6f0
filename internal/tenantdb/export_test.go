package tenantdb

import (
	"container/list"
	"context"
	"database/sql"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// These exports give the tests of this package access to its internals.

var (
	Unseal  = credential.Unseal
	AtLeast = atLeast

	NumericType = numericType

	TopServers = topServers
	LostRace   = lostRace
)

// Wrap replaces one of the manager's engines with the result of wrap.
func (m *Manager) Wrap(name credential.EngineName, wrap func(Engine) Engine) {
	m.engines[name] = wrap(m.engines[name])
}

// Leases returns how many callers hold the store's pool or wait for it.
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

// OpenWith opens c with the test's own dial function.
func OpenWith(engines map[credential.EngineName]Engine, c credential.Credentials, dial dial.Func) (*DB, error) {
	return newDB(engines, c, dial, nil)
}

// LackMySQLSetting makes connections set a variable that no server has, until
// off is called.
func LackMySQLSetting() (off func()) {
	mysqlSettings["no_such_variable"] = "1"
	return func() { delete(mysqlSettings, "no_such_variable") }
}

// SQL returns the pool of db.
func (db *DB) SQL() *sql.DB { return db.sqlx.DB }

var (
	ErrOpen = errOpen
)

const (
	TripAfter = tripAfter
)

// Connections returns how many connections to c's server the manager counts,
// and how many callers wait for one.
func (m *Manager) Connections(c credential.Credentials) (open, waiting int) {
	for _, s := range m.conns.Servers() {
		if s.Server == serverOf(c) {
			return s.Open, s.Waiting
		}
	}
	return 0, 0
}

// Breakers returns how many breakers the manager has.
func (m *Manager) Breakers() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.breakers)
}

func (m *Manager) Tidy() { m.tidy() }

// ReconcileBy does the same as Reconcile with size stores in one query.
func (m *Manager) ReconcileBy(ctx context.Context, size int) error { return m.reconcile(ctx, size) }

// SparingFiles is the dial function for a process that may run out of files.
var SparingFiles = sparingFiles

// AskAsAPI reads tables as the roles of an HTTP API.
func AskAsAPI(ctx context.Context, db *DB, tables []string) error { return db.askAsAPI(ctx, tables) }

// HashingLimits returns the limits for passwords of db's server.
func (db *DB) HashingLimits() screen.HashingLimits {
	return (&postgresConnector{credentials: db.credentials, state: db.pinned}).hashingLimits()
}

// Hashing limits the passwords that this process hashes.
var Hashing = hashing

// ScreenedPool returns a pool of the driver for c that recovers from no panic.
// UnscreenedPool returns a pool whose connections are not checked.
func ScreenedPool(c credential.Credentials, dial dial.Func) *sql.DB {
	return driverPool(c, dial, stdlib.OptionBeforeConnect(func(_ context.Context, cfg *pgx.ConnConfig) error {
		screen.Postgres(cfg, hashing)
		return nil
	}))
}

func UnscreenedPool(c credential.Credentials, dial dial.Func) *sql.DB { return driverPool(c, dial) }

func driverPool(c credential.Credentials, dial dial.Func, options ...stdlib.OptionOpenDB) *sql.DB {
	cfg, err := postgresEngine{}.config(c, dial)
	if err != nil {
		panic(err) // the credentials are a test's
	}
	return stdlib.OpenDB(*cfg, append(options, stdlib.OptionAfterConnect(registerTypes))...)
}

// SessionState is the state that the connections of one database share.
type SessionState = sessionState

// Startup returns the startup parameters of a first connection.
func (s *sessionState) Startup() (all []string) {
	for name, value := range s.startupParameters(pinAtStartup) {
		all = append(all, name+"="+value)
	}
	return all
}

// LockMigration takes the migration lock as Migrate does.
func (db *DB) LockMigration(ctx context.Context) (context.Context, func(), error) {
	return db.lockMigration(ctx, &session{DB: db.sqlx.DB, migrator: db.engine.migrator(db.credentials, db.pinned), lockWait: time.Minute})
}

// FaultKeys returns the server errors that are mapped to a fault: SQLSTATEs or
// their prefixes, and MySQL's numbers.
func FaultKeys(engine credential.EngineName) (keys []string) {
	if engine == credential.MySQL {
		for number := range mysqlFaults {
			keys = append(keys, strconv.Itoa(int(number)))
		}
		return keys
	}
	return slices.Collect(maps.Keys(postgresFaults))
}

// Looks is the maximum number of stores that are examined for an idle
// connection.
const Looks = looks

// Spares is a manager's choice of the store that gives up a connection, without
// the connections.
type Spares struct{ m *Manager }

// NewSpares returns a manager with the given number of stores on each server,
// all of which use db.
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

// Next returns the store that gives up a connection on server, or the zero id
// for none, and how many stores were examined.
func (s Spares) Next(server string) (stoa.StoreID, uint64) {
	before := s.m.looked
	p, _ := s.m.spare(server)
	if p == nil {
		return stoa.StoreID{}, s.m.looked - before
	}
	return p.store, s.m.looked - before
}

// Use makes every store of the manager but one used often, and returns the one.
func (s Spares) Use() (cold stoa.StoreID) {
	now := time.Now()
	for store, p := range s.m.pools {
		p.use, p.lastUsed, cold = 50, now.Add(-time.Second), store
	}
	s.m.pools[cold].use, s.m.pools[cold].lastUsed = 1, now // as after a connect for one request
	return cold
}

// Servers returns how many servers the manager has stored.
func (s Spares) Servers() int { return len(s.m.servers) }

// IsLeased reports whether db's connections are those of a connected store.
func IsLeased(db *DB) bool { return db.pinned.leased }
