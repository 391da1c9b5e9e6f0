package masterdbtest

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// Relay forwards connections to a server. It can stop forwarding data, like a frozen
// server, or refuse connections, like a stopped one.
type Relay struct {
	t       testing.TB
	target  string
	Address string

	mu       sync.Mutex
	changed  *sync.Cond
	silent   bool
	listener net.Listener
	conns    map[net.Conn]net.Conn // the client's connection, and the one to the server
	deserted map[net.Conn]bool
}

// NewRelay starts a relay in front of the database at dsn and returns a URL that leads
// through it.
func NewRelay(t testing.TB, dsn string) (*Relay, string) {
	t.Helper()
	u, err := url.Parse(dsn)
	fatal(t, err)
	r := &Relay{t: t, target: u.Host, Address: "127.0.0.1:0", conns: map[net.Conn]net.Conn{}, deserted: map[net.Conn]bool{}}
	r.changed = sync.NewCond(&r.mu)
	r.Listen()
	t.Cleanup(func() {
		r.SetSilent(false)
		r.Refuse()
	})
	u.Host = r.Address
	return r, u.String()
}

// Listen accepts connections again, after Refuse.
func (r *Relay) Listen() {
	r.t.Helper()
	l, err := net.Listen("tcp", r.Address)
	fatal(r.t, err)
	r.mu.Lock()
	r.listener, r.Address = l, l.Addr().String()
	r.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go r.forward(c)
		}
	}()
}

func (r *Relay) forward(c net.Conn) {
	r.Wait()
	s, err := net.Dial("tcp", r.target)
	if err != nil {
		_ = c.Close()
		return
	}
	r.mu.Lock()
	r.conns[c] = s
	r.mu.Unlock()
	var both sync.WaitGroup
	for _, way := range [][2]net.Conn{{s, c}, {c, s}} {
		both.Go(func() {
			_, _ = io.Copy(patient{r, way[0]}, way[1])
			_ = s.Close()
			if !r.isDeserted(c) {
				_ = c.Close()
			}
		})
	}
	both.Wait()
}

// patient is a writer that waits while the relay is silent.
type patient struct {
	*Relay
	net.Conn
}

func (p patient) Write(b []byte) (int, error) {
	p.Wait()
	return p.Conn.Write(b)
}

// Wait returns when the relay is not silent.
func (r *Relay) Wait() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.silent {
		r.changed.Wait()
	}
}

// SetSilent makes the relay hold back all data, or forward it again.
func (r *Relay) SetSilent(silent bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.silent = silent
	r.changed.Broadcast()
}

// Refuse closes all connections and accepts no more.
func (r *Relay) Refuse() {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.listener.Close()
	for c, s := range r.conns {
		_ = c.Close()
		_ = s.Close()
	}
}

// Desert closes the server's side of all current connections. The client's side stays open
// and receives nothing more. New connections are forwarded.
func (r *Relay) Desert() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c, s := range r.conns {
		r.deserted[c] = true
		_ = s.Close()
	}
}

func (r *Relay) isDeserted(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.deserted[c]
}

func fatal(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
