// Package mailtest is an SMTP server for tests. It stores the messages it receives
// and refuses commands as configured.
package mailtest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"math/big"
	"net"
	"net/mail"
	"net/textproto"
	"strings"
	"sync"
	"testing"
	"time"
)

// Mail is a message that the server has accepted.
type Mail struct {
	From string
	To   []string
	Data []byte // header and text as sent
}

// Message parses the mail.
func (m Mail) Message(t testing.TB) *mail.Message {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(m.Data))
	if err != nil {
		t.Fatal(err)
	}
	return msg
}

// Options configure a Server. The zero value accepts every client and message.
type Options struct {
	// User and Password are required (AUTH PLAIN), unless empty.
	User, Password string
	// StartTLS offers encryption, Implicit starts with it.
	StartTLS, Implicit bool
	// Refuse returns the code with which a command, such as "MAIL", "RCPT", "DATA"
	// or "." (the end of a message), is refused; 0 accepts it, 1 closes the
	// connection, 2 accepts it and closes the connection.
	Refuse func(command, argument string) int
}

// Server is a running server.
type Server struct {
	Options
	// Roots contains the root of its certificate, which is for 127.0.0.1 and
	// mail.example.com.
	Roots *x509.CertPool

	listener net.Listener
	cert     tls.Certificate
	mu       sync.Mutex
	mails    []Mail
	signedIn bool
	conns    map[net.Conn]bool
	closed   bool
}

// Start starts a server and stops it when the test ends.
func Start(t testing.TB, opts Options) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Options: opts, listener: listener, conns: map[net.Conn]bool{}}
	s.certify(t)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	t.Cleanup(func() {
		_ = listener.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.closed = true
		for conn := range s.conns {
			_ = conn.Close()
		}
	})
	return s
}

// Address returns the address on which the server listens.
func (s *Server) Address() string { return s.listener.Addr().String() }

// Mails returns the messages that the server has accepted.
func (s *Server) Mails() []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Mail(nil), s.mails...)
}

// SignedIn reports whether a client has tried to sign in.
func (s *Server) SignedIn() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.signedIn
}

func (s *Server) certify(t testing.TB) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true,
		BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"mail.example.com"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	s.cert = tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	s.Roots = x509.NewCertPool()
	s.Roots.AddCert(leaf)
}

// session is the state of one connection.
type session struct {
	*Server
	conn   net.Conn
	text   *textproto.Conn
	secure bool
	signed bool
	mail   Mail
}

func (s *Server) serve(conn net.Conn) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		_ = conn.Close()
		return
	}
	s.conns[conn] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, conn)
		s.mu.Unlock()
		_ = conn.Close()
	}()
	c := &session{Server: s, conn: conn}
	if s.Implicit {
		c.encrypt()
	}
	c.text = textproto.NewConn(c.conn)
	c.say("220 test")
	for {
		line, err := c.text.ReadLine()
		if err != nil || !c.answer(line) {
			return
		}
	}
}

func (c *session) encrypt() {
	c.conn = tls.Server(c.conn, &tls.Config{Certificates: []tls.Certificate{c.cert}, MinVersion: tls.VersionTLS12})
	c.secure = true
}

func (c *session) say(lines ...string) { _ = c.text.PrintfLine("%s", strings.Join(lines, "\r\n")) }

// answer answers a command. It reports whether the connection stays open.
func (c *session) answer(line string) bool {
	verb, argument, _ := strings.Cut(line, " ")
	verb = strings.ToUpper(verb)
	if refused, goesOn := c.refuse(verb, argument); refused {
		return goesOn
	}
	switch verb {
	case "EHLO", "HELO":
		c.hello()
	case "STARTTLS":
		c.say("220 go ahead")
		c.encrypt()
		c.text = textproto.NewConn(c.conn)
	case "AUTH":
		c.signIn(argument)
	case "MAIL":
		if c.User != "" && !c.signed {
			c.say("530 5.7.0 sign in first")
			break
		}
		c.mail = Mail{From: argument}
		c.say("250 ok")
	case "RCPT":
		c.mail.To = append(c.mail.To, argument)
		c.say("250 ok")
	case "DATA":
		return c.data()
	case "QUIT":
		c.say("221 bye")
		return false
	default: // NOOP, RSET
		c.say("250 ok")
	}
	return true
}

// refuse applies Options.Refuse.
func (c *session) refuse(verb, argument string) (refused, goesOn bool) {
	if c.Refuse == nil {
		return false, true
	}
	switch code := c.Refuse(verb, argument); code {
	case 0, 2:
		return false, true
	case 1:
		return true, false
	default:
		_ = c.text.PrintfLine("%d 5.5.0 not %s for <%s>", code, verb, argument)
		return true, true
	}
}

func (c *session) hello() {
	lines := []string{"250-test", "250-8BITMIME", "250-SMTPUTF8", "250-ENHANCEDSTATUSCODES"}
	if c.StartTLS && !c.secure {
		lines = append(lines, "250-STARTTLS")
	}
	if c.User != "" {
		lines = append(lines, "250-AUTH PLAIN")
	}
	c.say(append(lines, "250 SIZE 1000000")...)
}

func (c *session) signIn(argument string) {
	want := base64.StdEncoding.EncodeToString([]byte("\x00" + c.User + "\x00" + c.Password))
	c.mu.Lock()
	c.signedIn = true
	c.mu.Unlock()
	c.signed = argument == "PLAIN "+want
	if c.signed {
		c.say("235 2.7.0 welcome")
	} else {
		c.say("535 5.7.8 who is that?")
	}
}

func (c *session) data() bool {
	c.say("354 go on")
	data, err := c.text.ReadDotBytes()
	if err != nil {
		return false
	}
	if refused, goesOn := c.refuse(".", ""); refused {
		return goesOn
	}
	c.mail.Data = data
	c.mu.Lock()
	c.mails = append(c.mails, c.mail)
	c.mu.Unlock()
	if c.Refuse != nil && c.Refuse(".", "") == 2 {
		return false // the message is accepted, but the client does not receive the answer
	}
	c.say("250 2.0.0 taken")
	return true
}
