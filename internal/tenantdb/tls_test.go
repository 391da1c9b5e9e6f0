package tenantdb_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// realCA returns the authority that signed the test servers' certificate for
// 127.0.0.1.
func realCA(t *testing.T) string {
	t.Helper()
	file := os.Getenv(tenantdbtest.CAEnv)
	if file == "" {
		t.Skip("needs servers with TLS")
	}
	certificate, err := os.ReadFile(file)
	testkit.Must(t, err)
	return string(certificate)
}

// otherCA returns an authority with the name of the real one that has signed
// nothing.
func otherCA(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "with-servers"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.Must(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// encrypted asks the server whether this session is encrypted.
func encrypted(t *testing.T, db *tenantdb.DB) (yes bool) {
	t.Helper()
	testkit.Must(t, db.Get(t.Context(), &yes, map[credential.EngineName]string{
		credential.PostgreSQL: `SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()`,
		credential.MySQL:      `SELECT variable_value <> '' FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'`,
	}[db.Engine]))
	return yes
}

// TestTLS checks the verification of certificates on real servers, from a
// merchant's credentials on.
func TestTLS(t *testing.T) {
	t.Parallel()
	ca := realCA(t)
	const unverified = "could not be verified"
	for _, engine := range servers() {
		created := tenantdbtest.Create(t, engine)
		for _, tt := range []struct {
			name      string
			change    func(*credential.Credentials)
			fault     string // part of the message; empty: the connection succeeds
			encrypted bool
		}{
			{"right authority", func(c *credential.Credentials) { c.CACertificate = ca }, "", true},
			{"one of two authorities", func(c *credential.Credentials) { c.CACertificate = otherCA(t) + ca }, "", true},
			{"wrong authority of the same name", func(c *credential.Credentials) { c.CACertificate = otherCA(t) }, unverified, false},
			{"the system's authorities", func(*credential.Credentials) {}, unverified, false},
			{"wrong name", func(c *credential.Credentials) { c.CACertificate, c.Host = ca, "localhost" }, "another name than the host", false},
			{"wrong name, verify-ca", func(c *credential.Credentials) {
				c.CACertificate, c.Host, c.TLS = ca, "localhost", credential.TLSVerifyCA
			}, "", true},
			{"wrong authority, verify-ca", func(c *credential.Credentials) { c.CACertificate, c.TLS = otherCA(t), credential.TLSVerifyCA }, unverified, false},
			{"plaintext by choice", func(c *credential.Credentials) { c.TLS = credential.TLSDisable }, "", false},
		} {
			t.Run(string(engine)+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				c := created
				c.TLS = credential.TLSVerify
				tt.change(&c)
				testkit.Must(t, c.Validate())
				db := tenantdbtest.Open(t, c)
				err := db.Ping(t.Context())
				if tt.fault != "" {
					checkFault(t, err, stoa.DatabaseTLSFailed, c)
					if !strings.Contains(err.Error(), tt.fault) {
						t.Errorf("got %v, want %q", err, tt.fault)
					}
					return
				}
				testkit.Must(t, err)
				if got := encrypted(t, db); got != tt.encrypted {
					t.Errorf("encrypted: %v", got)
				}
				if tt.name == "right authority" {
					_, err = db.Migrate(t.Context()) // uses its own connections
					testkit.Must(t, err)
				}
			})
		}
	}
}

// TestServerWithoutTLS checks that a server without TLS is distinguished from
// one with an invalid certificate, and that nothing is sent to it in plaintext.
func TestServerWithoutTLS(t *testing.T) {
	t.Parallel()
	ca := otherCA(t)
	heard := make(chan []byte, 8)
	stub := at(t, credential.MySQL, credential.TLSVerify, func(c net.Conn) {
		greeting := mysqlGreeting("mysql_native_password")
		greeting[4+1+len("8.0.36\x00")+4+9+1] &^= 0x08 // the upper byte of the capabilities: no SSL
		_, _ = c.Write(greeting)
		answer, _ := io.ReadAll(c)
		heard <- answer
	})
	tests := map[string]credential.Credentials{"mysql": stub}
	if os.Getenv(tenantdbtest.PgBouncerEnv) != "" {
		c := tenantdbtest.Create(t, credential.Supabase)
		c.Kind, c.TLS = credential.KindPostgreSQL, credential.TLSVerify
		tests["postgresql"] = c
	}
	for name, c := range tests {
		for _, certificate := range []string{"", ca} {
			c.CACertificate = certificate
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			checkFault(t, err, stoa.DatabaseTLSFailed, c)
			if !strings.Contains(err.Error(), "does not offer TLS") {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
	for range 2 {
		if answer := <-heard; len(answer) != 0 {
			t.Errorf("the server was told %q", answer)
		}
	}
}

// TestSupabaseRoots checks that the operator configures Supabase's roots and
// that a merchant's own CA takes precedence.
func TestSupabaseRoots(t *testing.T) {
	t.Parallel()
	needPooler(t)
	ca := realCA(t)
	created := tenantdbtest.Create(t, credential.Supabase)
	postgres, err := url.Parse(os.Getenv(tenantdbtest.PostgresEnv)) // it has TLS, unlike the poolers
	testkit.Must(t, err)
	port, err := strconv.Atoi(postgres.Port())
	testkit.Must(t, err)
	for _, tt := range []struct {
		name, roots, own string
		good             bool
	}{
		{"the operator's", ca, "", true},
		{"none", "", "", false},
		{"the merchant's", otherCA(t), ca, true},
		{"a merchant's wrong one", ca, otherCA(t), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := created
			c.Port, c.TLS, c.CACertificate = port, credential.TLSVerify, tt.own
			rules := tenantdbtest.SupabaseRules()
			rules.SessionPort, rules.Roots = port, tt.roots
			m := tenantdb.NewManager(nil, nil, tenantdb.Options{Supabase: rules, Dialer: dial.Dialer{Allow: dial.Loopback}})
			defer m.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // nothing is leased
			testkit.Must(t, m.Validate(&c))
			db, err := m.OpenUnleased(c)
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			err = db.Ping(t.Context())
			if !tt.good {
				checkFault(t, err, stoa.DatabaseTLSFailed, c)
				return
			}
			testkit.Must(t, err)
			if !encrypted(t, db) {
				t.Error("not encrypted")
			}
			_, err = db.Migrate(t.Context())
			testkit.Must(t, err)
		})
	}
}
