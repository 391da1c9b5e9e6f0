package tenantdb

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// mysqlLink is the connection under a screen.MySQL. It encrypts by itself: if
// the driver encrypted, it would do so between the screen and its parser, and
// the screen would see ciphertext. The driver is therefore configured as if the
// connection were a local socket, which it considers secure, and sends no
// request for TLS.
//
// mysqlLink sends that request as a separate packet: see screen.MySQL.Encrypted. Write
// adds the shift to what is written, and the screen subtracts it from what is read.
//
// Source: MySQL client/server protocol, "Protocol::SSLRequest".
type mysqlLink struct {
	net.Conn
	checks   *screen.MySQL
	secure   func(net.Conn) (net.Conn, error) // nil: plaintext, as the merchant has chosen
	password keyring.Secret

	encrypted net.Conn // nil until TLS was requested
	fault     error    // why there is no TLS, or why nothing more is read; the driver does not return it
}

// secureBy returns a function that encrypts a connection, or nil for a nil
// config. ctx limits the handshake.
func secureBy(ctx context.Context, cfg *tls.Config) func(net.Conn) (net.Conn, error) {
	if cfg == nil {
		return nil
	}
	return func(conn net.Conn) (net.Conn, error) {
		encrypted := tls.Client(conn, cfg)
		return encrypted, encrypted.HandshakeContext(ctx)
	}
}

func (l *mysqlLink) current() net.Conn {
	if l.encrypted != nil {
		return l.encrypted
	}
	return l.Conn
}

// Read implements net.Conn.
func (l *mysqlLink) Read(p []byte) (int, error) {
	n, err := l.current().Read(p)
	if errors.Is(err, screen.ErrAnswerTooLong) || errors.Is(err, errOutOfMemory) {
		l.fault = err
	}
	return n, err
}

// Write implements net.Conn. The driver writes one packet at a time, beginning
// with its answer to the greeting.
func (l *mysqlLink) Write(p []byte) (int, error) {
	first := l.secure != nil && l.encrypted == nil
	if first {
		if err := l.encrypt(p); err != nil {
			l.fault = err
			return 0, err
		}
	}
	if l.checks.Shift() == 0 {
		return l.current().Write(p)
	}
	if _, err := l.encrypted.Write(l.translate(p, first)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// encrypt requests TLS with the beginning of the driver's answer to the
// greeting.
func (l *mysqlLink) encrypt(answer []byte) error {
	const head = 4 + 32
	if !l.checks.OffersTLS() || len(answer) < head {
		return errNoTLS
	}
	request := slices.Clone(answer[:head])
	request[0], request[1], request[2] = head-4, 0, 0
	request[4+1] |= screen.MySQLCapSSL >> 8
	if _, err := l.Conn.Write(request); err != nil {
		return err
	}
	encrypted, err := l.secure(l.Conn)
	if err != nil {
		return err
	}
	l.encrypted = encrypted
	l.checks.Encrypted()
	return nil
}

// translate returns an authentication packet in the form that the server
// expects after the request for TLS.
func (l *mysqlLink) translate(p []byte, first bool) []byte {
	q := slices.Clone(p)
	at := 4 // index of the answer to the plugin's challenge
	if first {
		q[4+1] |= screen.MySQLCapSSL >> 8
		at = 4 + 32 + bytes.IndexByte(q[4+32:], 0) + 1 // after the user name
	}
	if l.checks.WantsPassword() {
		q = l.withPassword(q, at, first)
	}
	q[3] += l.checks.Shift()
	return q
}

// withPassword replaces sha256_password's request for a public key with the
// password, which the plugin expects on an encrypted connection.
// Source: MySQL manual, "SHA-256 Pluggable Authentication".
func (l *mysqlLink) withPassword(p []byte, at int, first bool) []byte {
	request, answer := []byte{1}, append([]byte(l.password.Reveal()), 0)
	if first {
		request, answer = []byte{1, 1}, append(mysqlLength(len(answer)), answer...)
	}
	if !bytes.HasPrefix(p[at:], request) || !first && len(p) != at+len(request) {
		return p
	}
	q := slices.Concat(p[:at], answer, p[at+len(request):])
	n := len(q) - 4
	q[0], q[1], q[2] = byte(n), byte(n>>8), byte(n>>16) //nolint:gosec // the bytes of a length
	return q
}

// mysqlLength encodes a length below 64 KiB.
func mysqlLength(n int) []byte {
	if n < 0xfb {
		return []byte{byte(n)} //nolint:gosec // below 0xfb
	}
	return []byte{0xfc, byte(n), byte(n >> 8)} //nolint:gosec // the bytes of a length
}
