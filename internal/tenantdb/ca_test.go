package tenantdb_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestReadCertificates reads certificates from files, environment variables,
// JSON and YAML.
func TestReadCertificates(t *testing.T) {
	t.Parallel()
	one, other := otherCA(t), otherCA(t)
	both := one + other
	oneLine := strings.ReplaceAll(one, "\n", `\n`)
	for name, tt := range map[string]struct{ text, want string }{
		"as it is": {one, one}, "two": {both, both}, "byte order mark": {"\ufeff" + one, one}, "line ends of Windows": {strings.ReplaceAll(one, "\n", "\r\n"), one},
		"literal line ends": {oneLine, one}, "literal line ends of Windows": {strings.ReplaceAll(one, "\n", `\r\n`), one}, "quotes": {`"` + oneLine + `"`, one}, "single quotes": {"'" + one + "'", one},
		"indented": {"ca: |\n    " + strings.ReplaceAll(one, "\n", "\n    "), one}, "spaces for line ends": {strings.ReplaceAll(one, "\n", " "), one}, "no last line end": {strings.TrimSpace(both), both},
		"comments": {"# Amazon RDS\n" + one + "\nsubject=CN = x\n\n" + other + "# end", both},
	} {
		got, err := credential.ReadCertificates(tt.text)
		if err != nil || got != tt.want {
			t.Errorf("%s: %v, %d bytes, want %d", name, err, len(got), len(tt.want))
		}
		if again, err := credential.ReadCertificates(got); err != nil || again != got {
			t.Errorf("%s: read again: %v", name, err)
		}
	}
	bundle := strings.Repeat("# "+strings.Repeat("a comment ", 70)+"\n"+one, 120) // as many as in the bundle of AWS, and as long
	if got, err := credential.ReadCertificates(bundle); err != nil || strings.Count(got, "BEGIN") != 120 {
		t.Errorf("%d bytes: %v", len(bundle), err)
	}
	key := "-----BEGIN EC PRIVATE KEY-----\nc2VjcmV0\n-----END EC PRIVATE KEY-----\n"
	unknown := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("none")}))
	if got, err := credential.ReadCertificates(unknown + one); err != nil || got != one {
		t.Errorf("one of another kind beside a good one: %v", err)
	}
	for text, message := range map[string]string{
		"none": "PEM certificates", one[:200]: "damaged", strings.Replace(one, "M", "*", 5): "damaged", unknown: "damaged", key + one: "private key", one + strings.Replace(key, "EC ", "ENCRYPTED ", 2): "private key",
		strings.Repeat(one, 501): "more than 500", strings.Repeat("x", 1<<20+1): "longer than 1 MiB",
	} {
		got, err := credential.ReadCertificates(text)
		if err == nil || !strings.Contains(err.Error(), message) || got != "" {
			t.Errorf("%.20s…: got %v, want %q", text, err, message)
		}
		if err != nil && strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("the key is in %v", err)
		}
	}
}

// signer is an authority that is created for a test.
type signer struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newSigner(t *testing.T) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "a test's authority"}, NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.Must(t, err)
	cert, err := x509.ParseCertificate(der)
	testkit.Must(t, err)
	return signer{key, cert}
}

func (s signer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw}))
}

// sign creates a server's certificate, with or without a name.
func (s signer) sign(t *testing.T, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "project:instance"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	testkit.Must(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// inFrontOf serves certificate in front of the PostgreSQL server of c and
// connects to that server in plaintext, as a proxy that terminates TLS does.
func inFrontOf(t *testing.T, c credential.Credentials, certificate tls.Certificate) credential.Credentials {
	t.Helper()
	server := net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	front := at(t, credential.PostgreSQL, credential.TLSVerify, func(client net.Conn) {
		request := make([]byte, 8)
		if _, err := io.ReadFull(client, request); err != nil {
			return
		}
		_, _ = client.Write([]byte("S"))
		encrypted := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12})
		if encrypted.HandshakeContext(t.Context()) != nil {
			return
		}
		behind, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server)
		if err != nil {
			return
		}
		defer behind.Close()
		go func() { _, _ = io.Copy(behind, encrypted) }()
		_, _ = io.Copy(encrypted, behind)
	})
	front.Database, front.User, front.Password = c.Database, c.User, c.Password
	return front
}

// TestVerifyCA checks that verify-ca accepts a certificate without the host's
// name, but only from the given authority. It also checks that the other faults
// of a certificate are reported separately.
func TestVerifyCA(t *testing.T) {
	t.Parallel()
	created := tenantdbtest.Create(t, credential.PostgreSQL)
	ca, stranger := newSigner(t), newSigner(t)
	named := func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)} }
	for _, tt := range []struct {
		name        string
		certificate tls.Certificate
		mode        credential.TLSMode
		ca          string
		fault       string // part of the message; empty: the connection succeeds
	}{
		{"no name", ca.sign(t, func(*x509.Certificate) {}), credential.TLSVerifyCA, ca.pem(), ""},
		{"another name", ca.sign(t, func(c *x509.Certificate) { c.DNSNames = []string{"db.example.com"} }), credential.TLSVerifyCA, ca.pem(), ""},
		{"one of two authorities", ca.sign(t, func(*x509.Certificate) {}), credential.TLSVerifyCA, stranger.pem() + ca.pem(), ""},
		{"of a stranger", stranger.sign(t, named), credential.TLSVerifyCA, ca.pem(), "authority that signed it is not known"},
		{"expired", ca.sign(t, func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Hour) }), credential.TLSVerifyCA, ca.pem(), "has expired"},
		{"not for servers", ca.sign(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }), credential.TLSVerifyCA, ca.pem(), "could not be verified"},
		{"verify-full, named", ca.sign(t, named), credential.TLSVerify, ca.pem(), ""},
		{"verify-full, no name", ca.sign(t, func(*x509.Certificate) {}), credential.TLSVerify, ca.pem(), `choose TLS mode "verify-ca"`},
		{"verify-full, another name", ca.sign(t, func(c *x509.Certificate) { c.DNSNames = []string{"db.example.com"} }), credential.TLSVerify, ca.pem(), "another name than the host"},
		{"verify-full, of a stranger", stranger.sign(t, named), credential.TLSVerify, ca.pem(), "authority that signed it is not known"},
		{"verify-full, expired", ca.sign(t, func(c *x509.Certificate) { named(c); c.NotAfter = time.Now().Add(-time.Hour) }), credential.TLSVerify, ca.pem(), "has expired"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := inFrontOf(t, created, tt.certificate)
			c.TLS, c.CACertificate = tt.mode, tt.ca
			testkit.Must(t, c.Validate())
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			if tt.fault == "" {
				testkit.Must(t, err)
				return
			}
			checkFault(t, err, stoa.DatabaseTLSFailed, c)
			if err != nil && !strings.Contains(err.Error(), tt.fault) {
				t.Errorf("got %v, want %q", err, tt.fault)
			}
		})
	}
	c := created
	c.TLS, c.CACertificate = credential.TLSVerifyCA, ""
	if err := c.Validate(); err == nil || !strings.Contains(err.Error(), "is required when tls.mode") {
		t.Errorf("verify-ca without a certificate: %v", err)
	}
}
