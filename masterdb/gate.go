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

// How fast a PostgreSQL master that is away is noticed: within silence,
// gateTick and probeTimeout, less than 3 s.
const (
	gateTick      = 100 * time.Millisecond
	silence       = 500 * time.Millisecond  // without a byte from the server while an answer is due: it is probed
	probeTimeout  = 2000 * time.Millisecond // for a probe
	probePause    = 250 * time.Millisecond  // between probes while the master is away
	staleAfter    = 1500 * time.Millisecond // without an answer, a connection is compared with the server's sessions
	staleAgain    = 5 * time.Second         // between such comparisons of one connection
	lookupTimeout = 2 * time.Second         // to resolve the master's name
	hostTimeout   = 1200 * time.Millisecond // for a host's first byte, if there are others
	skipFor       = 3 * time.Second         // a host that did not send it is left out
)

// errAway is the cause of every failure while the master is away.
var errAway = errors.New("masterdb: the server is away; it is asked again and again until it answers")

// errSkipped is why a host is not tried.
var errSkipped = errors.New("masterdb: this host did not answer a moment ago; the others are tried first")

// gate stands before a PostgreSQL master. It sees the bytes of every
// connection, so that it knows when an answer is due and for how long the server
// has said nothing. A server that refuses connections or is silent is away: all
// connections are cut, so that whatever waits for an answer fails at once, and
// none is made until a probe has succeeded.
type gate struct {
	probeConfig *pgx.ConnConfig
	severalHost bool
	suspicions  chan struct{}
	heard       atomic.Int64 // when the server last said something, by now
	start       time.Time

	mu        sync.Mutex
	links     map[*link]struct{}
	skipped   map[string]time.Time // addresses that are left out, and until when
	away      time.Time            // since when; zero: the server answers
	callbacks []func(error)
}

// newGate has the connections made by cfg go through a gate.
func newGate(cfg *pgx.ConnConfig) *gate {
	g := &gate{
		suspicions: make(chan struct{}, 1), start: time.Now(), links: map[*link]struct{}{}, skipped: map[string]time.Time{},
		severalHost: slices.ContainsFunc(cfg.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != cfg.Host || f.Port != cfg.Port }),
	}
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		return lookup(ctx, host)
	}
	g.probeConfig = cfg.Copy()
	g.probeConfig.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return g.dial(ctx, network, address, true)
	}
	cfg.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		return g.dial(ctx, network, address, false)
	}
	return g
}

// now is a monotonic time in nanoseconds. It is never 0.
func (g *gate) now() int64 { return int64(time.Since(g.start)) + 1 }

// link is one connection's socket, from the moment it is dialled.
type link struct {
	net.Conn // set under gate.mu once it is dialled
	gate     *gate
	address  string
	probe    bool
	cancel   context.CancelFunc // of the dial
	patience *time.Timer        // cuts it when no byte comes; nil if there is no other host

	asked    atomic.Int64 // since when an answer is due, by gate.now; 0: none is
	answered atomic.Bool  // some byte has come
	session  atomic.Uint32
	compared int64 // when it was, with the server's sessions; of the watch alone
}

// Write implements net.Conn.
func (l *link) Write(b []byte) (int, error) {
	l.asked.CompareAndSwap(0, l.gate.now())
	return l.Conn.Write(b)
}

// Read implements net.Conn.
func (l *link) Read(b []byte) (int, error) {
	n, err := l.Conn.Read(b)
	if n > 0 {
		l.asked.Store(0)
		l.answered.Store(true)
		if !l.probe {
			l.gate.heard.Store(l.gate.now())
		}
	}
	return n, err
}

// Close implements net.Conn.
func (l *link) Close() error {
	l.gate.forget(l)
	return l.Conn.Close()
}

// cut ends whatever waits on the link; its user then closes it.
func (l *link) cut() {
	l.gate.mu.Lock()
	conn := l.Conn
	l.gate.mu.Unlock()
	l.cancel()
	if conn != nil {
		_ = conn.Close()
	}
}

// forget is of a link that has ended.
func (g *gate) forget(l *link) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.links, l)
	l.cancel()
	if l.patience != nil {
		l.patience.Stop()
	}
}

// dialer notices within about 12 s that there is nobody any more at the other end
// of an idle connection.
var dialer = net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}}

func (g *gate) dial(ctx context.Context, network, address string, probe bool) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	l := &link{gate: g, address: address, probe: probe, cancel: cancel}
	l.asked.Store(g.now())
	if err := g.admit(l); err != nil {
		cancel()
		return nil, err
	}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		g.forget(l)
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	l.Conn = conn
	return l, nil
}

// admit registers a link that is about to be dialled.
func (g *gate) admit(l *link) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.away.IsZero() && !l.probe {
		return errAway
	}
	if g.severalHost {
		if time.Now().Before(g.skipped[l.address]) {
			return errSkipped
		}
		l.patience = time.AfterFunc(hostTimeout, func() { g.skip(l) })
	}
	g.links[l] = struct{}{}
	return nil
}

// skip leaves the link's host out for a while, unless it has answered.
func (g *gate) skip(l *link) {
	if l.answered.Load() {
		return
	}
	g.mu.Lock()
	g.skipped[l.address] = time.Now().Add(skipFor)
	g.mu.Unlock()
	l.cut()
}

// identify says which of the server's sessions a connection has.
func (g *gate) identify(conn net.Conn, session uint32) {
	for {
		if l, ok := conn.(*link); ok {
			l.session.Store(session)
			return
		}
		under, ok := conn.(interface{ NetConn() net.Conn }) // TLS
		if !ok {
			return
		}
		conn = under.NetConn()
	}
}

// check returns errAway while the master is away.
func (g *gate) check() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.away.IsZero() {
		return nil
	}
	return errAway
}

// suspect has the master probed at once.
func (g *gate) suspect() {
	select {
	case g.suspicions <- struct{}{}:
	default:
	}
}

// watch probes the master when there is reason to, until ctx ends.
func (g *gate) watch(ctx context.Context) {
	tick := time.NewTicker(gateTick)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-g.suspicions:
			g.probe(ctx)
		case <-tick.C:
			if g.isSilent() {
				g.probe(ctx)
			}
		}
		for ctx.Err() == nil && g.check() != nil {
			select {
			case <-ctx.Done():
			case <-time.After(probePause):
				g.probe(ctx)
			}
		}
	}
}

// isSilent reports whether an answer is due that may never come: the server says
// nothing at all, or nothing on one connection.
func (g *gate) isSilent() bool {
	now := g.now()
	quiet := time.Duration(now-g.heard.Load()) > silence
	g.mu.Lock()
	defer g.mu.Unlock()
	for l := range g.links {
		if asked := l.asked.Load(); asked != 0 && (quiet && time.Duration(now-asked) > silence || l.isStale(now)) {
			return true
		}
	}
	return false
}

// isStale reports whether the link is to be compared with the server's sessions.
func (l *link) isStale(now int64) bool {
	asked := l.asked.Load()
	return asked != 0 && l.session.Load() != 0 && time.Duration(now-asked) > staleAfter && (l.compared == 0 || time.Duration(now-l.compared) > staleAgain)
}

// probe finds out whether the master answers, and draws the consequences.
func (g *gate) probe(ctx context.Context) {
	began := g.now()
	probing, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	conn, err := pgx.ConnectConfig(probing, g.probeConfig)
	if err == nil {
		defer conn.Close(probing) //nolint:errcheck // nothing is pending
		err = conn.Ping(probing)
	}
	switch {
	case ctx.Err() != nil: // the end
	case err == nil:
		g.heard.Store(g.now())
		g.change(nil)
		g.cutStale(probing, conn)
	case !isAbsence(err), g.heard.Load() > began: // it answers, if not this probe
		g.change(nil)
	default:
		g.change(err)
	}
}

// change notes whether the master is away, which err says.
func (g *gate) change(err error) {
	g.mu.Lock()
	if g.away.IsZero() == (err == nil) {
		g.mu.Unlock()
		return
	}
	g.away = time.Time{}
	var links []*link
	if err != nil {
		g.away = time.Now()
		links = slices.Collect(maps.Keys(g.links))
	}
	callbacks := slices.Clone(g.callbacks)
	g.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
	for _, fn := range callbacks {
		fn(err)
	}
}

// cutStale cuts the connections that wait for an answer while the server, asked
// by conn, knows nothing of a question: their session is gone, as after a
// fail-over, or idle.
// Source: PostgreSQL manual, "The Cumulative Statistics System": pg_stat_activity.
func (g *gate) cutStale(ctx context.Context, conn *pgx.Conn) {
	now := g.now()
	waiting := map[*link]int64{}
	var sessions []int32
	g.mu.Lock()
	for l := range g.links {
		if l.isStale(now) {
			l.compared = now
			waiting[l] = l.asked.Load()
			sessions = append(sessions, int32(l.session.Load())) //nolint:gosec // as the server gave it
		}
	}
	g.mu.Unlock()
	if len(waiting) == 0 {
		return
	}
	var busy []int32
	err := conn.QueryRow(ctx, `SELECT coalesce(array_agg(pid), '{}') FROM pg_stat_activity
		WHERE pid = ANY($1) AND (state IS NULL OR state NOT LIKE 'idle%' OR state_change > now() - interval '1 second')`, sessions).Scan(&busy)
	if err != nil {
		return
	}
	for l, asked := range waiting {
		if l.asked.Load() == asked && !slices.Contains(busy, int32(l.session.Load())) { //nolint:gosec // as above
			l.cut()
		}
	}
}

// cutAll ends every connection.
func (g *gate) cutAll() {
	g.mu.Lock()
	links := slices.Collect(maps.Keys(g.links))
	g.mu.Unlock()
	for _, l := range links {
		l.cut()
	}
}
