package masterdb

import (
	"context"
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// These are the intervals and time limits of the breaker. It detects an unreachable
// PostgreSQL master within silence + breakerTick + probeTimeout, which is less than 3 s.
const (
	breakerTick   = 100 * time.Millisecond
	silence       = 500 * time.Millisecond  // how long the server may send nothing while an answer is due; then it is probed
	probeTimeout  = 2000 * time.Millisecond // time limit of a probe
	probePause    = 250 * time.Millisecond  // pause between two probes of an unreachable master
	staleAfter    = 1500 * time.Millisecond // age of an unanswered request after which the connection is compared with the server's sessions
	staleAgain    = 5 * time.Second         // time between two such comparisons of one connection
	lookupTimeout = 2 * time.Second         // time limit for resolving the master's name
	hostTimeout   = 1200 * time.Millisecond // time limit for a host's first byte, if there are other hosts
	skipFor       = 3 * time.Second         // how long a host that sent no byte in time is skipped
	cancelWait    = 15 * time.Second        // how long a cancel request is left to the server
)

// errUnreachable is the cause of every failure while the breaker is open.
var errUnreachable = errors.New("masterdb: the server is unreachable; it is probed until it answers")

// errSkipped is the dial error for a host that is currently skipped.
var errSkipped = errors.New("masterdb: this host did not answer a moment ago; the others are tried first")

// breaker is the circuit breaker in front of a PostgreSQL master. It tracks the bytes of
// every connection, so that it knows when an answer is due and for how long the server has
// sent nothing. When the server refuses connections or is silent, the breaker opens: it
// closes all connections, so that every caller that waits for an answer fails at once, and
// it allows no connection until a probe has succeeded. It is safe for concurrent use.
type breaker struct {
	probeConfig  *pgx.ConnConfig
	beyond       *pgx.ConnConfig // of the server, if probeConfig leads to a pooler that shares its sessions; otherwise nil
	severalHosts bool
	probes       chan struct{} // requests a probe
	lastRead     atomic.Int64  // when a byte last came from the server, as returned by now
	start        time.Time

	mu        sync.Mutex
	conns     map[*trackedConn]struct{}
	skipped   map[string]time.Time // addresses to skip, and until when
	openSince time.Time            // zero while the breaker is closed
	callbacks []func(error)
}

// newBreaker creates a breaker and routes every connection that cfg opens through it.
func newBreaker(cfg *pgx.ConnConfig) *breaker {
	b := &breaker{
		probes: make(chan struct{}, 1), start: time.Now(), conns: map[*trackedConn]struct{}{}, skipped: map[string]time.Time{},
		severalHosts: slices.ContainsFunc(cfg.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != cfg.Host || f.Port != cfg.Port }),
	}
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		return lookup(ctx, host)
	}
	cfg.Tracer = connecting{}
	b.probeConfig = cfg.Copy()
	b.probeConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return b.dial(ctx, network, address, true)
	}
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return b.dial(ctx, network, address, false)
	}
	return b
}

// now returns a monotonic time in nanoseconds. It is never 0.
func (b *breaker) now() int64 { return int64(time.Since(b.start)) + 1 }

// forget removes a connection that has ended.
func (b *breaker) forget(c *trackedConn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.conns, c)
	c.cancel()
	if c.skipTimer != nil {
		c.skipTimer.Stop()
	}
}

// dialer uses TCP keep-alive to detect within about 12 s that the peer of an idle
// connection is gone.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}

func (b *breaker) dial(ctx context.Context, network, address string, probe bool) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	c := &trackedConn{breaker: b, address: address, probe: probe, cancels: ctx.Value(connectingKey{}) == nil, cancel: cancel}
	c.asked.Store(b.now())
	if err := b.admit(c); err != nil {
		cancel()
		return nil, err
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		b.forget(c)
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Conn = conn
	return c, nil
}

// admit registers a connection before it is dialled.
func (b *breaker) admit(c *trackedConn) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.openSince.IsZero() && !c.probe {
		return errUnreachable
	}
	if b.severalHosts && !c.cancels { // no byte answers a cancel request
		if time.Now().Before(b.skipped[c.address]) {
			return errSkipped
		}
		c.skipTimer = time.AfterFunc(hostTimeout, func() { b.skip(c) })
	}
	b.conns[c] = struct{}{}
	return nil
}

// skip excludes the connection's host for skipFor, unless the host has answered.
func (b *breaker) skip(c *trackedConn) {
	if c.answered.Load() {
		return
	}
	b.mu.Lock()
	b.skipped[c.address] = time.Now().Add(skipFor)
	b.mu.Unlock()
	c.abort()
}

// identify records the id of the server session that a connection belongs to.
func (b *breaker) identify(conn net.Conn, session uint32) {
	for {
		if c, ok := conn.(*trackedConn); ok {
			c.session.Store(session)
			return
		}
		under, ok := conn.(interface{ NetConn() net.Conn }) // a TLS connection
		if !ok {
			return
		}
		conn = under.NetConn()
	}
}

// allow returns errUnreachable while the breaker is open.
func (b *breaker) allow() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.openSince.IsZero() {
		return nil
	}
	return errUnreachable
}

// requestProbe requests a probe of the master. It does not wait for the result.
func (b *breaker) requestProbe() {
	select {
	case b.probes <- struct{}{}:
	default:
	}
}

// run probes the master when an answer is overdue or a probe is requested, until ctx ends.
func (b *breaker) run(ctx context.Context) {
	tick := time.NewTicker(breakerTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-b.probes:
			b.probe(ctx)
		case <-tick.C:
			if b.isSilent() {
				b.probe(ctx)
			}
		}
		for ctx.Err() == nil && b.allow() != nil {
			select {
			case <-ctx.Done():
			case <-time.After(probePause):
				b.probe(ctx)
			}
		}
	}
}

// isSilent reports whether an answer is overdue, either from the whole server or on one
// connection.
func (b *breaker) isSilent() bool {
	now := b.now()
	quiet := time.Duration(now-b.lastRead.Load()) > silence
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.conns {
		if asked := c.asked.Load(); asked != 0 && (quiet && time.Duration(now-asked) > silence || c.isStale(now)) {
			return true
		}
	}
	return false
}

// isStale reports whether the connection should be compared with the server's sessions.
func (c *trackedConn) isStale(now int64) bool {
	asked := c.asked.Load()
	return asked != 0 && c.session.Load() != 0 && time.Duration(now-asked) > staleAfter && (c.compared == 0 || time.Duration(now-c.compared) > staleAgain)
}

// probe requests an answer from the master and opens or closes the breaker accordingly. It
// answers the requests for a probe that were made until its end. Otherwise one that a failed
// call made during an outage would begin a probe after it, which hides the beginning of the
// next outage: the server has answered others since that probe began.
func (b *breaker) probe(ctx context.Context) {
	defer func() {
		select {
		case <-b.probes:
		default:
		}
	}()
	began := b.now()
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := b.ask(probing)
	if err == nil {
		defer conn.Close(probing) //nolint:errcheck // nothing is pending
	}
	switch {
	case ctx.Err() != nil: // the breaker is being closed down
	case err == nil:
		b.lastRead.Store(b.now())
		b.set(nil)
		b.abortStale(probing, conn)
	case !isUnreachable(err), b.lastRead.Load() > began: // the server still answers other connections
		b.set(nil)
	default:
		b.set(err)
	}
}

// ask returns a connection to the server, which has answered. Of a pooler it asks no more than to be
// let in: whether the server answers is asked beside it, because all sessions of the pooler may be
// busy, for instance waiting for a migration.
func (b *breaker) ask(ctx context.Context) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, b.probeConfig)
	if err == nil && b.beyond != nil {
		_ = conn.Close(ctx)
		conn, err = pgx.ConnectConfig(ctx, b.beyond)
	}
	if err != nil {
		return nil, err
	}
	if err := conn.Ping(ctx); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

// set closes the breaker, or opens it when err is not nil.
func (b *breaker) set(err error) {
	b.mu.Lock()
	if b.openSince.IsZero() == (err == nil) {
		b.mu.Unlock()
		return
	}
	b.openSince = time.Time{}
	var conns []*trackedConn
	if err != nil {
		b.openSince = time.Now()
		conns = slices.Collect(maps.Keys(b.conns))
	}
	callbacks := slices.Clone(b.callbacks)
	b.mu.Unlock()
	for _, c := range conns {
		if c.cancels {
			c.abandon()
		} else {
			c.abort()
		}
	}
	for _, fn := range callbacks {
		fn(err)
	}
}

// abortStale aborts connections that wait for an answer although the server reports no
// running query for them: their session is gone, as after a failover, or idle. It reads the
// sessions through conn. Source: PostgreSQL manual, "The Cumulative Statistics System":
// pg_stat_activity.
func (b *breaker) abortStale(ctx context.Context, conn *pgx.Conn) {
	now := b.now()
	waiting := map[*trackedConn]int64{}
	var sessions []int32
	b.mu.Lock()
	for c := range b.conns {
		if c.isStale(now) {
			c.compared = now
			waiting[c] = c.asked.Load()
			sessions = append(sessions, int32(c.session.Load())) //nolint:gosec // the value is the one that the server sent
		}
	}
	b.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var busy []int32
	err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
		WHERE pid = ANY($1) AND (state IS NULL OR state NOT LIKE 'idle%' OR state_change > now() - interval '1 second')`, sessions).Scan(&busy)
	if err != nil {
		return
	}
	for c, asked := range waiting {
		if c.asked.Load() == asked && !slices.Contains(busy, int32(c.session.Load())) { //nolint:gosec // as above
			c.abort()
		}
	}
}

// abortAll aborts every connection.
func (b *breaker) abortAll() {
	b.mu.Lock()
	conns := slices.Collect(maps.Keys(b.conns))
	b.mu.Unlock()
	for _, c := range conns {
		c.abort()
	}
}
