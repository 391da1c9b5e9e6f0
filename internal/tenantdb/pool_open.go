package tenantdb

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tracing"
)

// open connects the pool and wakes its waiters. A pool that fails is removed from
// the map at once, so that the next caller tries again.
func (m *Manager) open(ctx context.Context, p *pool) {
	ctx, cancel := context.WithTimeoutCause(ctx, m.opts.OpenTimeout, errTimeout)
	defer cancel()
	var r Registered
	err := stoa.CatchPanic(func() (err error) { // a driver may panic because of what the server sends
		r, err = m.readyToOpen(ctx, p)
		if err == nil {
			p.db, err = m.connect(ctx, p.store, r.Credentials, p.bulkhead)
		}
		if err == nil {
			m.followMoves(p.db, p.store, r.Version)
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

// readyToOpen reads the store's credentials and, for an embedded database, waits
// until another file may be opened.
func (m *Manager) readyToOpen(ctx context.Context, p *pool) (Registered, error) {
	r, err := m.readCached(ctx, p.store)
	if err == nil {
		err = r.readable()
	}
	if code := stoa.CodeOf(err); code == stoa.DatabaseCredentialsLost || code == stoa.PlatformUnavailable {
		err = unavailable(err) // hides the cause from shoppers
	}
	if err == nil && r.Credentials.Engine.Embedded() {
		err = m.acquireFile(ctx, p)
	}
	return r, err
}

// connect opens the database of c. It checks that the server answers and that
// its settings are compatible with Stoa. It also determines where the store's
// tables are.
func (m *Manager) connect(ctx context.Context, store stoa.StoreID, c credential.Credentials, b *bulkhead) (_ *DB, err error) {
	done, err := b.breaker.allow()
	if err != nil {
		return nil, err
	}
	result := errInterrupted // remains if a panic ends the call
	defer func() { done(result) }()
	db, err := m.newDB(c, b)
	if err == nil {
		db.protectPool()
		m.trace(db, store)
		m.followPasswords(db, store)
		b.conns, b.server = m.conns, serverOf(c)
		if db.dialect.embedded {
			b.limiter.SetLimit(m.opts.ConnsPerEmbedded)
		}
		err = db.pinOrClose(ctx, store)
	}
	if result = healthSignal(ctx, err); err != nil {
		return nil, err
	}
	return db, nil
}

// trace makes the statements of a store's pool have spans.
func (m *Manager) trace(db *DB, store stoa.StoreID) {
	db.statements = m.opts.Tracer.Statements("store", string(db.Engine), tracing.Store(store))
}

// dialTarget returns what the dialer must know about c's database. A merchant
// cannot choose the kind Managed: Validate and the domain reject it.
func dialTarget(c credential.Credentials) dial.Target {
	return dial.Target{Host: c.Host, Trusted: c.Kind == credential.Managed, Plaintext: c.TLS == credential.TLSDisable}
}

func (m *Manager) newDB(c credential.Credentials, b *bulkhead) (*DB, error) {
	c = m.WithServerTLS(c)
	d := new(dialTracker)
	a := account{m.opts.Memory, ratelimit.Of("answers-of-server", serverOf(c))}
	if b != nil {
		a = b.account
	}
	db, err := newDB(m.engines, c, d.track(m.conns.Dial(serverOf(c), a, sparingFiles(m.opts.spareFiles, m.opts.Dialer.For(dialTarget(c))))), b)
	if err != nil {
		return nil, err
	}
	db.own, db.dials, db.account, db.log = m.opts.Custom, d, a, m.opts.Log
	m.limit(db)
	return db, nil
}

// limit sets the pool's own limits. The concurrency limiter decides how many
// connections are in use, and the connection limiter how many exist.
func (m *Manager) limit(db *DB) {
	conns := m.opts.ConnsPerStore
	if db.dialect.embedded {
		conns = m.opts.ConnsPerEmbedded
	}
	db.sqlx.SetMaxOpenConns(conns)
	db.sqlx.SetMaxIdleConns(conns)
	db.sqlx.SetConnMaxIdleTime(m.opts.IdleTimeout)
}

// serverOf returns the name of c's database server. Each project behind one
// host of Supabase's poolers has its own server.
func serverOf(c credential.Credentials) string {
	server := net.JoinHostPort(strings.ToLower(c.Host), strconv.Itoa(c.Port))
	if c.Kind == credential.KindSupabase && c.Pooler != credential.NoPooler {
		server += "/" + c.User[strings.LastIndex(c.User, ".")+1:]
	}
	return server
}
