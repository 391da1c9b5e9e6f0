package supabasetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"time"
)

// identity is a certificate authority and the certificate that it has issued for the
// poolers' host, as PEM.
type identity struct {
	Roots, Certificate, Key string
	Expires                 time.Time
}

// usable reports whether the certificate is valid for at least 7 more days.
func (i identity) usable() bool { return i.Roots != "" && time.Until(i.Expires) > 7*24*time.Hour }

func (i identity) config() (*tls.Config, error) {
	certificate, err := tls.X509KeyPair([]byte(i.Certificate), []byte(i.Key))
	return &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{certificate}}, err
}

func makeIdentity() (identity, error) {
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Stand-in for Supabase"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(1, 0, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	authorityDER, authorityKey, err := sign(authority, authority, nil)
	if err != nil {
		return identity{}, err
	}
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: PoolerHost}, IPAddresses: []net.IP{net.ParseIP(PoolerHost)},
		NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	serverDER, serverKey, err := sign(server, authority, authorityKey)
	if err != nil {
		return identity{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(serverKey)
	if err != nil {
		return identity{}, err
	}
	text := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	return identity{Roots: text("CERTIFICATE", authorityDER), Certificate: text("CERTIFICATE", serverDER), Key: text("PRIVATE KEY", key), Expires: authority.NotAfter}, nil
}

// sign creates a certificate with a new key. Without a parent key the certificate is
// self-signed.
func sign(template, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if parentKey == nil {
		parentKey = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	return der, key, err
}
