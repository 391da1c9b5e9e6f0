package tenantdb_test

import (
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// postgresScript is a PostgreSQL server that the test implements. It accepts
// every log-in and answers each request with the result of answer. A nil answer
// ends the connection.
type postgresScript struct {
	startup []byte // replaces the usual start of the session
	answer  func(request []pgproto3.FrontendMessage) []byte
}

// frame returns one message of a server.
func frame(kind byte, body ...[]byte) []byte {
	all := slices.Concat(body...)
	out := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(all)))
	return append(out, all...)
}

// encoded returns messages as the protocol's library writes them.
func encoded(messages ...pgproto3.BackendMessage) (out []byte) {
	for _, m := range messages {
		var err error
		if out, err = m.Encode(out); err != nil {
			panic(err) // the test's own messages are valid
		}
	}
	return out
}

var (
	readyIdle = &pgproto3.ReadyForQuery{TxStatus: 'I'}
	loggedIn  = encoded(&pgproto3.AuthenticationOk{}, &pgproto3.ParameterStatus{Name: "server_version", Value: "15.4"},
		&pgproto3.ParameterStatus{Name: "client_encoding", Value: "UTF8"}, &pgproto3.ParameterStatus{Name: "standard_conforming_strings", Value: "on"},
		&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{1, 2, 3, 4}}, readyIdle)
)

// serve plays the script on one connection.
func (s postgresScript) serve(conn net.Conn) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil { // or a request to cancel
		return
	}
	startup := s.startup
	if startup == nil {
		startup = loggedIn
	}
	if _, err := conn.Write(startup); err != nil {
		return
	}
	var request []pgproto3.FrontendMessage
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		request = append(request, copied(m))
		switch m.(type) {
		case *pgproto3.Terminate:
			return
		case *pgproto3.Query, *pgproto3.Sync:
			answer := s.answer(request)
			if answer == nil {
				return
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
			request = nil
		}
	}
}

// copied returns a copy of a message that the library would otherwise reuse.
func copied(m pgproto3.FrontendMessage) pgproto3.FrontendMessage {
	switch m := m.(type) {
	case *pgproto3.Query:
		c := *m
		return &c
	case *pgproto3.Parse:
		c := *m
		return &c
	case *pgproto3.Describe:
		c := *m
		return &c
	case *pgproto3.Bind:
		c := *m
		return &c
	case *pgproto3.Execute:
		c := *m
		return &c
	case *pgproto3.Close:
		c := *m
		return &c
	}
	return m
}

// is reports whether the request contains a message of m's type.
func is[M pgproto3.FrontendMessage](request []pgproto3.FrontendMessage) bool {
	return slices.ContainsFunc(request, func(m pgproto3.FrontendMessage) bool { _, ok := m.(M); return ok })
}

// isCopy reports whether the request begins a COPY.
func isCopy(request []pgproto3.FrontendMessage) bool {
	return slices.ContainsFunc(request, func(m pgproto3.FrontendMessage) bool {
		q, ok := m.(*pgproto3.Query)
		return ok && strings.HasPrefix(q.String, "COPY ")
	})
}

// column returns the description of a column of a type.
func column(name string, oid uint32, format int16) pgproto3.FieldDescription {
	return pgproto3.FieldDescription{Name: []byte(name), DataTypeOID: oid, DataTypeSize: -1, TypeModifier: -1, Format: format}
}

const int4OID, int8OID, textOID, numericOID = 23, 20, 25, 1700

// one answers the driver's requests for SELECT 1, and all other requests, with
// a row of one integer.
func one(request []pgproto3.FrontendMessage) []byte {
	row := &pgproto3.RowDescription{Fields: []pgproto3.FieldDescription{column("n", int4OID, 0)}}
	switch {
	case is[*pgproto3.Parse](request):
		return encoded(&pgproto3.ParseComplete{}, &pgproto3.ParameterDescription{}, row, readyIdle)
	case is[*pgproto3.Close](request):
		return encoded(&pgproto3.CloseComplete{}, readyIdle)
	case is[*pgproto3.Bind](request):
		return encoded(&pgproto3.BindComplete{}, &pgproto3.DataRow{Values: [][]byte{{0, 0, 0, 1}}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, readyIdle)
	case is[*pgproto3.Query](request) && strings.HasPrefix(request[0].(*pgproto3.Query).String, "--"):
		return encoded(&pgproto3.EmptyQueryResponse{}, readyIdle)
	}
	return encoded(row, &pgproto3.DataRow{Values: [][]byte{[]byte("1")}}, &pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")}, readyIdle)
}

// postgresAt returns credentials for a server that plays the script, with or
// without TLS.
func postgresAt(t *testing.T, encrypted bool, s postgresScript) credential.Credentials {
	t.Helper()
	if encrypted {
		return postgresTLS(t, s.serve)
	}
	return at(t, credential.PostgreSQL, credential.TLSDisable, s.serve)
}

// postgresTLS does the same as at for PostgreSQL with TLS.
func postgresTLS(t *testing.T, serve func(net.Conn)) credential.Credentials {
	t.Helper()
	certificate := httptest.NewUnstartedServer(nil)
	certificate.StartTLS() // provides its certificate, which is for 127.0.0.1
	certificate.Close()
	c := at(t, credential.PostgreSQL, credential.TLSVerify, func(conn net.Conn) {
		if _, err := io.ReadFull(conn, make([]byte, 8)); err != nil { // SSLRequest
			return
		}
		if _, err := conn.Write([]byte("S")); err != nil {
			return
		}
		encrypted := tls.Server(conn, &tls.Config{Certificates: certificate.TLS.Certificates, MinVersion: tls.VersionTLS12})
		defer encrypted.Close() //nolint:errcheck // the test is over for it
		serve(encrypted)
	})
	c.CACertificate = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate.Certificate().Raw}))
	return c
}
