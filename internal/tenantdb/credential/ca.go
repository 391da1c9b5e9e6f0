package credential

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"strings"
	"sync"

	"github.com/stoahq/stoa"
)

// These constants limit how much of a server's authorities is read. The largest
// bundle of a provider, AWS's bundle for all regions, has 180 KB and 120
// certificates.
const (
	MaxCABytes      = 1 << 20
	maxCertificates = 500 // number of certificates
)

// These errors are the reasons why a text is not a set of certificates.
var (
	errCATooLong    = errors.New("is longer than 1 MiB; give the authority's certificates alone")
	errCATooMany    = errors.New("holds more than 500 certificates; give those of the server's authority alone")
	errCAPrivateKey = errors.New("holds a private key, which nobody but its owner should have; give the authority's certificate (BEGIN CERTIFICATE) alone. " +
		"The key was not kept; make a new one if it is in use")
	errCAUnreadable = errors.New("holds a certificate that cannot be read: its text is damaged; copy the file again")
	errCANone       = errors.New("must be one or more PEM certificates (-----BEGIN CERTIFICATE-----)")
)

// ReadCertificates returns the PEM certificates in text and drops everything
// else, such as comments. The text may come from a file, a JSON string or a
// YAML block: it may have a byte order mark, quotes, \n for line ends, or
// indentation. ReadCertificates fails if the text contains a private key.
func ReadCertificates(text string) (string, error) {
	if len(text) > MaxCABytes {
		return "", errCATooLong
	}
	if strings.Contains(text, "PRIVATE KEY") {
		return "", errCAPrivateKey
	}
	const begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
	var out strings.Builder
	found, unknown := 0, 0
	for {
		_, rest, ok := strings.Cut(text, begin)
		if !ok {
			break
		}
		body, after, ok := strings.Cut(rest, end)
		if !ok {
			return "", errCAUnreadable
		}
		der, err := base64.StdEncoding.DecodeString(withoutLineEnds.Replace(body))
		if err != nil {
			return "", errCAUnreadable
		}
		if found++; found > maxCertificates {
			return "", errCATooMany
		}
		text = after
		if _, err := x509.ParseCertificate(der); err != nil {
			unknown++ // one that Go cannot parse, in a bundle of many
			continue
		}
		_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der}) // writing to a Builder never fails
	}
	if found == 0 {
		return "", errCANone
	}
	if found == unknown {
		return "", errCAUnreadable
	}
	return out.String(), nil
}

var withoutLineEnds = strings.NewReplacer(`\r`, "", `\n`, "", "\r", "", "\n", "", " ", "", "\t", "", "\u00a0", "", `\`, "", `"`, "", "'", "")

// checkCA replaces c.CACertificate with the certificates that it contains.
func (c *Credentials) checkCA(faults *stoa.Invalid) {
	if c.CACertificate == "" {
		if c.TLS == TLSVerifyCA {
			faults.Add(CAField, "is required when tls.mode is %q: without the name, the authority's certificate is all that tells the server from others", TLSVerifyCA)
		}
		return
	}
	if c.TLS == TLSDisable {
		faults.Add(CAField, "has no use when tls.mode is %q", TLSDisable)
	}
	certificates, err := ReadCertificates(c.CACertificate)
	if err != nil {
		faults.Add(CAField, "%s", err)
		return
	}
	c.CACertificate = certificates
}

// TlsConfig returns the TLS configuration of a connection, or nil for
// plaintext.
func (c Credentials) TlsConfig() (*tls.Config, error) {
	if c.TLS == TLSDisable {
		return nil, nil //nolint:nilnil // the drivers use nil for plaintext
	}
	cfg := &tls.Config{ServerName: c.Host, MinVersion: tls.VersionTLS12}
	if c.CACertificate != "" {
		if cfg.RootCAs = authorities.pool(c.CACertificate); cfg.RootCAs == nil {
			return nil, errors.New("CA certificate cannot be read")
		}
	}
	if c.TLS == TLSVerifyCA {
		if cfg.RootCAs == nil {
			return nil, errors.New("verify-ca without a CA certificate")
		}
		verifyChainOnly(cfg)
	}
	return cfg, nil
}

// verifyChainOnly makes cfg verify the certificate's chain without its name.
// The standard library cannot omit only the name, so this function replaces its
// verification. A chain must lead to one of the given authorities, never to one
// of the system's, because any of those would sign a certificate for an
// attacker in the middle. The verification also runs for resumed sessions.
func verifyChainOnly(cfg *tls.Config) {
	roots := cfg.RootCAs
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("server sent no certificate")
		}
		opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool()}
		for _, certificate := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(certificate)
		}
		if _, err := state.PeerCertificates[0].Verify(opts); err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		return nil
	}
}

// poolCache caches parsed certificates, because stores share the bundles of
// providers and a bundle takes milliseconds to parse. It is safe for concurrent
// use.
type poolCache struct {
	mu    sync.Mutex
	pools map[[sha256.Size]byte]*x509.CertPool
}

// maxPools limits the memory of a poolCache.
const maxPools = 64

var authorities poolCache //nolint:gochecknoglobals // a cache of pure results

// pool returns the certificates in text, or nil. The result must not be
// changed.
func (p *poolCache) pool(text string) *x509.CertPool {
	key := sha256.Sum256([]byte(text))
	p.mu.Lock()
	defer p.mu.Unlock()
	if found := p.pools[key]; found != nil {
		return found
	}
	made := x509.NewCertPool()
	if !made.AppendCertsFromPEM([]byte(text)) {
		return nil
	}
	if p.pools == nil || len(p.pools) >= maxPools {
		p.pools = map[[sha256.Size]byte]*x509.CertPool{}
	}
	p.pools[key] = made
	return made
}

// CertificateFault returns an error that explains why a server's certificate
// was not accepted.
func CertificateFault(err error) *stoa.Error {
	var (
		name    x509.HostnameError
		unknown x509.UnknownAuthorityError
		invalid x509.CertificateInvalidError
	)
	text := "The database server's certificate could not be verified. If a private authority signed it, give its certificate as tls.caCertificate."
	switch {
	case errors.As(err, &name):
		text = "The database server's certificate could not be verified: it is for another name than the host. Use the host name that the certificate is for. " +
			"If there is none, as at Google Cloud SQL, give its authority's certificate as tls.caCertificate and choose TLS mode \"verify-ca\"."
	case errors.As(err, &unknown):
		text = "The database server's certificate could not be verified: the authority that signed it is not known. " +
			"Give that authority's certificate, from the provider's page, as tls.caCertificate; if one is given, it is another's."
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		text = "The database server's certificate could not be verified: it, or its authority's, has expired or is not valid yet. Renew it at the server, or correct the server's clock."
	}
	return stoa.Errorf(stoa.DatabaseTLSFailed, "%s", text).WithCause(err)
}
