package supabasetest

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"
)

// The codes of a client's first packets. Source: PostgreSQL protocol, "Message Formats".
const (
	wantCancel = 80877102
	wantTLS    = 80877103
	wantGSS    = 80877104

	maxStartup = 10_000
)

func write(w io.Writer, b []byte) error {
	_, err := w.Write(b)
	return err
}

func send(w io.Writer, m pgproto3.BackendMessage) {
	if encoded, err := m.Encode(nil); err == nil {
		_ = write(w, encoded) // the client may have disconnected
	}
}

// readStartup reads up to the startup message and starts TLS if the client requests it. It
// returns a nil message for a cancel request, which it forwards.
func (s *Server) readStartup(via *pooler, conn net.Conn) (net.Conn, *pgproto3.StartupMessage, error) {
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	defer conn.SetDeadline(time.Time{}) //nolint:errcheck // the next read returns the error
	client := conn
	for {
		packet, err := readStartup(client)
		if err != nil {
			return nil, nil, err
		}
		switch binary.BigEndian.Uint32(packet[4:]) {
		case wantTLS:
			if err := write(client, []byte("S")); err != nil {
				return nil, nil, err
			}
			secure := tls.Server(client, s.poolers.tls)
			if err := secure.HandshakeContext(context.Background()); err != nil { // conn has a deadline
				return nil, nil, err
			}
			client = secure
		case wantGSS:
			if err := write(client, []byte("N")); err != nil {
				return nil, nil, err
			}
		case wantCancel:
			return nil, nil, forward(via.backend, packet)
		default:
			startup := &pgproto3.StartupMessage{}
			return client, startup, startup.Decode(packet[4:])
		}
	}
}

// readStartup reads one packet, which has a length and no type.
func readStartup(r io.Reader) ([]byte, error) {
	head := make([]byte, 8)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head)
	if length < 8 || length > maxStartup {
		return nil, errors.New("no startup packet")
	}
	packet := append(head, make([]byte, length-8)...)
	_, err := io.ReadFull(r, packet[8:])
	return packet, err
}

// forward sends a cancel request to the PgBouncer that issued its key, and waits until
// PgBouncer has processed it.
func forward(backend string, packet []byte) error {
	server, err := net.Dial("tcp", backend)
	if err != nil {
		return err
	}
	defer server.Close()
	if err := write(server, packet); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, server)
	return err
}

// relay copies data in both directions until one side closes. If PgBouncer refuses the
// client during authentication, relay sends the message of refused instead.
func relay(client, server net.Conn, refused func() *pgproto3.ErrorResponse) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(server, client)
		_ = server.Close()
	}()
	if passAuthentication(client, server, refused) {
		_, _ = io.Copy(client, server)
	}
	_ = client.Close()
	<-done
}

// passAuthentication relays the server's messages up to the one that completes the
// authentication.
func passAuthentication(client io.Writer, server io.Reader, refused func() *pgproto3.ErrorResponse) bool {
	for {
		message := make([]byte, 5) // type and length
		if _, err := io.ReadFull(server, message); err != nil {
			return false
		}
		length := binary.BigEndian.Uint32(message[1:])
		if length < 4 || length > maxStartup {
			return false
		}
		message = append(message, make([]byte, length-4)...)
		if _, err := io.ReadFull(server, message[5:]); err != nil {
			return false
		}
		if message[0] == 'E' {
			send(client, translate(message[5:], refused))
			return false
		}
		if write(client, message) != nil {
			return false
		}
		if message[0] == 'R' && length == 8 && binary.BigEndian.Uint32(message[5:]) == 0 { // AuthenticationOk
			return true
		}
	}
}

// translate gives a failed log-in the code that Supabase returns for it. PgBouncer 1.18
// reports every refusal of its own as a protocol violation (08P01). Its message is kept
// as the detail.
func translate(body []byte, refused func() *pgproto3.ErrorResponse) *pgproto3.ErrorResponse {
	var was pgproto3.ErrorResponse
	if err := was.Decode(body); err != nil || was.Code != "08P01" {
		return &was
	}
	refusal := refused()
	refusal.Detail = was.Message
	return refusal
}
