package supabasetest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// PoolerHost is the address of both poolers.
const PoolerHost = "127.0.0.1"

// The limits of Supabase's poolers. Sources: Supabase documentation, "Connection
// management"; Supavisor, circuit breaker.
const (
	SessionPoolSize = 15 // connections of one project
	failuresAllowed = 10
	failuresWithin  = 150 * time.Second
	blockedFor      = 2 * time.Minute
)

// pooler is a proxy in front of a PgBouncer, which cannot distinguish projects. Clients
// connect as <role>.<ref> to the database postgres. The proxy connects each client to the
// database of its project.
type pooler struct {
	port     int
	backend  string // address of the PgBouncer
	limit    int    // of connections of one project; 0 means no limit
	listener net.Listener
}

type poolers struct {
	session, transaction pooler
	identity             identity
	tls                  *tls.Config

	mu     sync.Mutex
	closed bool
	conns  map[net.Conn]route
	wg     sync.WaitGroup
}

// route is the pooler and the project of a connection. It is set once they are known.
type route struct {
	pooler *pooler
	ref    string
}

// Rules returns the rules by which the platform accepts the stand-in's servers as
// Supabase's.
func (s *Server) Rules() credential.SupabaseRules {
	return credential.SupabaseRules{
		DirectDomain: s.options.DirectDomain, PoolerDomain: PoolerHost, Roots: s.poolers.identity.Roots,
		SessionPort: s.poolers.session.port, TransactionPort: s.poolers.transaction.port,
	}
}

// ConnectionString returns the connection string for a role of a project, such as
// postgres, as the project's owner would copy it from Supabase.
func (s *Server) ConnectionString(ref, role, password string, mode credential.Pooler) string {
	u := url.URL{Scheme: "postgresql", User: url.UserPassword(role+"."+ref, password), Path: "/postgres"}
	switch mode {
	case credential.TransactionPooler:
		u.Host = fmt.Sprintf("%s:%d", PoolerHost, s.poolers.transaction.port)
	case credential.SessionPooler:
		u.Host = fmt.Sprintf("%s:%d", PoolerHost, s.poolers.session.port)
	case credential.NoPooler:
		u.User, u.Host = url.UserPassword(role, password), "db."+ref+"."+s.options.DirectDomain+":5432"
	}
	return u.String()
}

func (s *Server) openPoolers(ctx context.Context) (err error) {
	p := &s.poolers
	p.conns = map[net.Conn]route{}
	p.session.limit = SessionPoolSize
	if p.identity = s.saved.Identity; !p.identity.usable() {
		if p.identity, err = makeIdentity(); err != nil {
			return err
		}
	}
	if p.tls, err = p.identity.config(); err != nil {
		return err
	}
	p.session.port, p.transaction.port = s.saved.SessionPort, s.saved.TransactPort
	for via, raw := range map[*pooler]string{&p.session: s.options.SessionURL, &p.transaction: s.options.TransactionURL} {
		u, err := url.Parse(raw)
		if err != nil {
			return errors.Join(errors.New("the address of a PgBouncer is not a URL"), p.close())
		}
		via.backend = u.Host
		if via.listener, err = new(net.ListenConfig).Listen(ctx, "tcp", fmt.Sprintf("%s:%d", PoolerHost, via.port)); err != nil {
			return errors.Join(err, p.close())
		}
		via.port = via.listener.Addr().(*net.TCPAddr).Port
		p.wg.Go(func() { s.accept(via) })
	}
	return nil
}

func (p *poolers) close() error {
	p.mu.Lock()
	p.closed = true
	for conn := range p.conns {
		_ = conn.Close()
	}
	p.mu.Unlock()
	var errs []error
	for _, via := range []*pooler{&p.session, &p.transaction} {
		if via.listener != nil {
			errs = append(errs, via.listener.Close())
		}
	}
	p.wg.Wait()
	return errors.Join(errs...)
}

// cut closes the connections to a project.
func (p *poolers) cut(ref string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn, g := range p.conns {
		if g.ref == ref {
			_ = conn.Close()
		}
	}
}

func (s *Server) accept(via *pooler) {
	for {
		conn, err := via.listener.Accept()
		if err != nil {
			return // the listener is closed
		}
		if !s.poolers.keep(conn) {
			_ = conn.Close()
			return
		}
		s.poolers.wg.Go(func() {
			defer s.poolers.forget(conn)
			s.serve(via, conn)
		})
	}
}

func (p *poolers) keep(conn net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.conns[conn] = route{}
	}
	return !p.closed
}

func (p *poolers) forget(conn net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, conn)
	_ = conn.Close()
}

// admit registers a connection. It returns false when the project has reached the pooler's
// limit.
func (p *poolers) admit(conn net.Conn, r route) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	taken := 0
	for _, other := range p.conns {
		if other == r {
			taken++
		}
	}
	if r.pooler.limit > 0 && taken >= r.pooler.limit {
		return false
	}
	p.conns[conn] = r
	return true
}

// fatal returns the error that poolers refuse a connection with.
func fatal(code, format string, args ...any) *pgproto3.ErrorResponse {
	return &pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: fmt.Sprintf(format, args...)}
}

// serve handles a new connection: it connects the client to the database of its project
// and relays the traffic.
func (s *Server) serve(via *pooler, conn net.Conn) {
	client, startup, err := s.readStartup(via, conn)
	if err != nil || startup == nil {
		return
	}
	p, role, refusal := s.resolve(startup)
	if _, secure := client.(*tls.Conn); !secure {
		refusal = fatal("XX000", "(ESSLREQUIRED) SSL connection is required")
	}
	if refusal == nil && !s.poolers.admit(conn, route{pooler: via, ref: p.ref}) {
		refusal = fatal("XX000", "(EMAXCONNSESSION) max clients reached in session mode - max clients are limited to pool_size: %d", via.limit)
	}
	if refusal != nil {
		send(client, refusal)
		return
	}
	user := startup.Parameters["user"]
	startup.Parameters["user"], startup.Parameters["database"] = role, p.database()
	server, err := net.Dial("tcp", via.backend)
	if err != nil {
		send(client, fatal("XX000", "(ECONNREFUSED) %v", err))
		return
	}
	defer server.Close()
	if encoded, err := startup.Encode(nil); err != nil || write(server, encoded) != nil {
		return
	}
	relay(client, server, func() *pgproto3.ErrorResponse {
		s.failed(p)
		return fatal("28P01", "password authentication failed for user %q", user)
	})
}

// resolve returns the project that a startup message names, and the server's name of its
// role.
func (s *Server) resolve(startup *pgproto3.StartupMessage) (p *project, role string, refusal *pgproto3.ErrorResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, database := startup.Parameters["user"], startup.Parameters["database"]
	dot := strings.LastIndex(user, ".")
	if dot >= 0 {
		p, role = s.find(user[dot+1:]), user[:dot]
	}
	switch {
	case p == nil || s.status(p) != healthy:
		return nil, "", fatal("XX000", "(ENOTFOUND) tenant/user %s not found", user)
	case s.now().Before(p.blocked):
		return nil, "", fatal("XX000", "(ECIRCUITBREAKER) too many authentication failures, new connections are temporarily blocked")
	case database != "postgres":
		return nil, "", fatal("3D000", "database %q does not exist", database)
	case role == "postgres":
		role = p.owner()
	}
	return p, role, nil
}

// failed counts a failed log-in.
func (s *Server) failed(p *project) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	recent := []time.Time{now}
	for _, at := range p.failures {
		if now.Sub(at) < failuresWithin {
			recent = append(recent, at)
		}
	}
	if p.failures = recent; len(recent) >= failuresAllowed {
		p.failures, p.blocked = nil, now.Add(blockedFor)
	}
}
