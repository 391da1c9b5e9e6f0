package provisioning

import (
	"encoding/binary"
	"net"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// postgresThat returns credentials for a server that accepts every log-in, answers an
// empty query correctly, and sends answer to every other query.
func postgresThat(t *testing.T, greeting, answer []byte) credential.Credentials {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				playPostgres(conn, greeting, answer)
			}()
		}
	}()
	return credential.Credentials{
		Kind: credential.KindPostgreSQL, Engine: credential.PostgreSQL, Host: "127.0.0.1", Port: listener.Addr().(*net.TCPAddr).Port,
		Database: "d", User: "u", Password: keyring.NewSecret("p"), TLS: credential.TLSDisable,
	}
}

func playPostgres(conn net.Conn, greeting, answer []byte) {
	b := pgproto3.NewBackend(conn, conn)
	if _, err := b.ReceiveStartupMessage(); err != nil {
		return
	}
	_, _ = conn.Write(greeting)
	for {
		m, err := b.Receive()
		if err != nil {
			return
		}
		switch m := m.(type) {
		case *pgproto3.Query:
			if strings.HasPrefix(m.String, "--") {
				_, _ = conn.Write(messages(&pgproto3.EmptyQueryResponse{}, &pgproto3.ReadyForQuery{TxStatus: 'I'}))
				continue
			}
			_, _ = conn.Write(answer)
		case *pgproto3.Sync:
			_, _ = conn.Write(answer)
		}
	}
}

func messages(all ...pgproto3.BackendMessage) (out []byte) {
	for _, m := range all {
		out, _ = m.Encode(out) // the test's messages are valid
	}
	return out
}

// TestMalformedAnswers checks that malformed answers, and errors that no supported server
// sends, are faults for the owner to correct: a test reports them, and a run fails with
// the cause.
func TestMalformedAnswers(t *testing.T) {
	t.Parallel()
	letIn := messages(&pgproto3.AuthenticationOk{}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	reported := func(code string) []byte {
		return messages(&pgproto3.ErrorResponse{Severity: "ERROR", Code: code, Message: "\x1b[31mno"}, &pgproto3.ReadyForQuery{TxStatus: 'I'})
	}
	gigabyte := append([]byte("D"), binary.BigEndian.AppendUint32(nil, 1<<30)...)
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db).start(t)
		for _, tt := range []struct {
			name             string
			greeting, answer []byte
			step, message    string
			code             stoa.Code
		}{
			{"another protocol", []byte("HTTP/1.1 400 Bad Request\r\n\r\n"), nil, "connect", "does not speak the protocol", stoa.DatabaseUnreachable},
			{"a row of a gigabyte", letIn, gigabyte, "connect", "does not speak the protocol", stoa.DatabaseUnreachable},
			{"an answer to nothing", letIn, messages(&pgproto3.BindComplete{}), "connect", "does not speak the protocol", stoa.DatabaseUnreachable},
			{"an internal error", letIn, reported("XX000"), "connect", "(SQLSTATE XX000)", stoa.TenantError},
			{"an error without a code", letIn, reported(""), "connect", "an error that", stoa.TenantError},
			{"an error with a strange code", letIn, reported("\x1b[31"), "connect", "an error that", stoa.TenantError},
		} {
			t.Run(tt.name, func(t *testing.T) {
				c := postgresThat(t, tt.greeting, tt.answer)
				p, s := b.store(t)
				found, err := b.Test(t.Context(), p, s.ID, &c)
				testkit.Must(t, err)
				if codeOf(found.Fault) != tt.code || !strings.Contains(found.Fault.Message, tt.message) || strings.Contains(found.Fault.Message, "\x1b") {
					t.Errorf("found %+v", found.Fault)
				}
				run := b.connect(t, p, s.ID, c)
				b.failed(t, p, run, tt.step, tt.code)
				if !strings.Contains(run.Fault.Message, tt.message) {
					t.Errorf("the run failed with %+v", run.Fault)
				}
			})
		}
	})
}
