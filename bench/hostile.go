package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgproto3"
)

// manyColumns is a MySQL server that accepts every login and answers every query with a
// result of 2^40 columns.
func manyColumns(ctx context.Context) (hostile, error) {
	const capabilities = 1<<0 | 1<<3 | 1<<9 | 1<<13 | 1<<15 | 1<<19 // long password, database, protocol 4.1, transactions, secure connection, plugin authentication
	greeting := "\x0a8.0.40\x00\x01\x00\x00\x0012345678\x00" + string([]byte{capabilities & 0xff, capabilities >> 8 & 0xff, 45, 2, 0, capabilities >> 16 & 0xff, capabilities >> 24, 21}) +
		strings.Repeat("\x00", 10) + "123456789012\x00mysql_native_password\x00"
	return serve(ctx, "mysql", "mysql", func(conn net.Conn) {
		if writePacket(conn, 0, greeting) != nil || readPacket(conn) != nil {
			return
		}
		if writePacket(conn, 2, "\x00\x00\x00\x02\x00\x00\x00") != nil {
			return
		}
		for readPacket(conn) == nil {
			if writePacket(conn, 1, "\xfe\x00\x00\x00\x00\x00\x01\x00\x00") != nil {
				return
			}
		}
	})
}

func writePacket(w io.Writer, sequence byte, body string) error {
	head := []byte{byte(len(body)), byte(len(body) >> 8), byte(len(body) >> 16), sequence} //nolint:gosec // all lengths are small
	_, err := io.WriteString(w, string(head)+body)
	return err
}

func readPacket(r io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	_, err := io.CopyN(io.Discard, r, int64(head[0])|int64(head[1])<<8|int64(head[2])<<16)
	return err
}

// manyReports is a PostgreSQL server that accepts every login and reports 30 MB of
// parameters with every answer. The answer is encoded once: what is measured is the
// platform's work, and not the attacker's own on the same machine.
func manyReports(ctx context.Context) (hostile, error) {
	var answer []byte
	for i := range 30 {
		var err error
		report := pgproto3.ParameterStatus{Name: fmt.Sprint("p", i), Value: strings.Repeat("x", 1<<20)}
		if answer, err = report.Encode(answer); err != nil {
			return hostile{}, err
		}
	}
	answer, err := (&pgproto3.ReadyForQuery{TxStatus: 'I'}).Encode(answer)
	if err != nil {
		return hostile{}, err
	}
	return serve(ctx, "postgres", "postgresql", func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		if b.Flush() != nil {
			return
		}
		for {
			if _, err := b.Receive(); err != nil {
				return
			}
			if _, err := conn.Write(answer); err != nil {
				return
			}
		}
	})
}

// manyIterations is a PostgreSQL server that requests the maximum number of SCRAM
// iterations that the platform allows for one password, and then hangs.
func manyIterations(ctx context.Context) (hostile, error) {
	return serve(ctx, "postgres", "postgresql", func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		b.Send(&pgproto3.AuthenticationSASL{AuthMechanisms: []string{"SCRAM-SHA-256"}})
		if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeSASL) != nil {
			return
		}
		m, err := b.Receive()
		first, ok := m.(*pgproto3.SASLInitialResponse)
		if err != nil || !ok {
			return
		}
		_, nonce, _ := strings.Cut(string(first.Data), "r=")
		salt := base64.StdEncoding.EncodeToString([]byte("0123456789abcdef"))
		b.Send(&pgproto3.AuthenticationSASLContinue{Data: fmt.Appendf(nil, "r=%sserver,s=%s,i=100000", nonce, salt)})
		if b.Flush() != nil || b.SetAuthType(pgproto3.AuthTypeSASLContinue) != nil {
			return
		}
		if _, err := b.Receive(); err != nil {
			return
		}
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "28P01", Message: "no"})
		_ = b.Flush()
		_ = conn.Close()
	})
}
