package tenantdb_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// playedTLS returns the configuration of a server at 127.0.0.1, and the
// authority that signed its certificate.
func playedTLS() (config *tls.Config, authority string) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	return s.TLS, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
}

// switchTo requests another plugin from the client.
func (c *mysqlSession) switchTo(plugin string) (answer []byte) {
	c.switched = true
	c.send([]byte("\xfe" + plugin + "\x00" + strings.Repeat("n", 20) + "\x00"))
	answer, _ = c.receive()
	return answer
}

// fullAuthentication does what caching_sha2_password does for a user who is not
// in its cache. It returns the password that it received.
func (c *mysqlSession) fullAuthentication(key *rsa.PrivateKey) string {
	c.send([]byte("\x01\x04"))
	answer, _ := c.receive()
	if !bytes.Equal(answer, []byte{2}) { // not a request for a key, but the password itself
		return string(answer)
	}
	der, _ := x509.MarshalPKIXPublicKey(&key.PublicKey)
	c.send(append([]byte{1}, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})...))
	answer, _ = c.receive()
	plain, _ := rsa.DecryptOAEP(sha1.New(), nil, key, answer, nil)
	challenge := "12345678123456789012"
	if c.switched {
		challenge = strings.Repeat("n", 20)
	}
	for i := range plain {
		plain[i] ^= challenge[i%len(challenge)]
	}
	return string(plain)
}

// TestMySQLPlugins checks that the plugins of MySQL work as they do without the
// screen, encrypted and in plaintext, and that the password is sent in clear
// text only within TLS.
func TestMySQLPlugins(t *testing.T) {
	t.Parallel()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	testkit.Must(t, err)
	config, authority := playedTLS()
	full := func(c *mysqlSession) string { return c.fullAuthentication(key) }
	fast := func(c *mysqlSession) string { c.send([]byte("\x01\x03")); return "" }
	const caching, native, sha256 = "caching_sha2_password", "mysql_native_password", "sha256_password"
	long := marker + strings.Repeat("p", 300)
	for _, tt := range []struct {
		name, plugin string // of the greeting
		encrypted    bool
		password     string
		auth         func(c *mysqlSession) (told string)
		want         string
	}{
		{"fast", caching, false, marker, fast, ""},
		{"fast", caching, true, marker, fast, ""},
		{"fast after a switch", native, true, marker, afterSwitch(caching, fast), ""},
		{"full", caching, true, marker, full, marker + "\x00"},
		{"full", caching, false, marker, full, marker + "\x00"},
		{"full after a switch", native, true, marker, afterSwitch(caching, full), marker + "\x00"},
		{"full after a switch", native, false, marker, afterSwitch(caching, full), marker + "\x00"},
		{"sha256", sha256, true, marker, inResponse, marker + "\x00"},
		{"sha256 of a long password", sha256, true, long, inResponse, long + "\x00"},
		{"sha256 after a switch", native, true, marker, func(c *mysqlSession) string { return string(c.switchTo(sha256)) }, marker + "\x00"},
	} {
		t.Run(fmt.Sprintf("%s, TLS %v", tt.name, tt.encrypted), func(t *testing.T) {
			t.Parallel()
			told := make(chan string, 8)
			server := mysqlServer{auth: func(c *mysqlSession) {
				told <- tt.auth(c)
				c.send(okPacket(0))
			}}
			if tt.encrypted {
				server.tls = config
			}
			server.greeting = server.goodGreeting(tt.plugin)
			c := playMySQL(t, server)
			c.Password = keyring.NewSecret(tt.password)
			if tt.encrypted {
				c.CACertificate = authority
			}
			testkit.Must(t, use(t.Context(), tenantdbtest.Open(t, c)))
			if got := <-told; got != tt.want {
				t.Errorf("the server was told %q, want %q", got, tt.want)
			}
		})
	}
}

func afterSwitch(plugin string, auth func(*mysqlSession) string) func(*mysqlSession) string {
	return func(c *mysqlSession) string {
		c.switchTo(plugin)
		return auth(c)
	}
}

// inResponse returns what the client's response to the greeting contains for
// the password.
func inResponse(c *mysqlSession) string {
	_, p, _ := bytes.Cut(c.response[32:], []byte{0})
	n, p := int(p[0]), p[1:]
	if n == 0xfc {
		n, p = int(p[0])|int(p[1])<<8, p[2:]
	}
	return string(p[:n])
}

// TestMySQLClearPasswordPlugin checks that a server that requests the password
// in clear text is refused, within TLS too, and so are plugins that the driver
// does not know.
func TestMySQLClearPasswordPlugin(t *testing.T) {
	t.Parallel()
	config, authority := playedTLS()
	for _, plugin := range []string{"mysql_clear_password", "mysql_old_password", "dialog", "authentication_kerberos_client"} {
		for _, later := range []bool{false, true} {
			told := make(chan string, 64)
			server := mysqlServer{tls: config, auth: func(c *mysqlSession) {
				told <- string(c.response)
				told <- string(c.switchTo(plugin))
			}}
			server.greeting = server.goodGreeting(map[bool]string{false: plugin, true: "mysql_native_password"}[later])
			c := playMySQL(t, server)
			c.CACertificate = authority
			checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), stoa.DatabaseUnreachable, c)
			if first := <-told; len(first) == 0 || strings.Contains(first+<-told, marker) {
				t.Errorf("%s: the server was told the password, or nothing", plugin)
			}
		}
	}
}

// TestMySQLInjectionBeforeTLS checks that bytes in plaintext after the greeting
// are not treated as bytes within TLS.
func TestMySQLInjectionBeforeTLS(t *testing.T) {
	t.Parallel()
	config, authority := playedTLS()
	heard := make(chan int, 8)
	server := mysqlServer{tls: config}
	greeting := server.goodGreeting("mysql_native_password")
	server.first = func(c *mysqlSession) {
		c.send(greeting, okPacket(0), okPacket(0)) // in one piece
		p, _ := c.receive()
		heard <- len(p)
	}
	c := playMySQL(t, server)
	c.CACertificate = authority
	checkBroken(t, tenantdbtest.Open(t, c).Ping(t.Context()), c)
	if n := <-heard; n != 0 {
		t.Errorf("the server was told %d bytes", n)
	}
}
