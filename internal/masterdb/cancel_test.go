package masterdb

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa/internal/testkit"
)

// silentServer lets everyone in and answers nothing more. It reports the cancel requests that
// arrive, and the connections that their clients close.
type silentServer struct {
	url       string
	cancelled chan net.Conn
	left      chan net.Conn
}

func newSilentServer(t *testing.T) *silentServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	s := &silentServer{"postgres://u:p@" + l.Addr().String() + "/d?sslmode=disable", make(chan net.Conn, 8), make(chan net.Conn, 8)}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(conn)
		}
	}()
	return s
}

func (s *silentServer) serve(conn net.Conn) {
	defer conn.Close()
	b := pgproto3.NewBackend(conn, conn)
	first, err := b.ReceiveStartupMessage()
	if err != nil {
		return
	}
	if _, ok := first.(*pgproto3.CancelRequest); ok {
		s.cancelled <- conn
	} else {
		b.Send(&pgproto3.AuthenticationOk{})
		b.Send(&pgproto3.BackendKeyData{ProcessID: 1, SecretKey: []byte{0, 0, 0, 1}})
		b.Send(&pgproto3.ReadyForQuery{TxStatus: 'I'})
		_ = b.Flush()
	}
	for p := make([]byte, 1024); err == nil; {
		_, err = conn.Read(p)
	}
	s.left <- conn
}

// TestOutageAbandonsNoCancelRequest checks that the breaker closes the sessions when it opens, and
// leaves a cancel request to the server: PgBouncer before 1.20 ends if the client goes first.
func TestOutageAbandonsNoCancelRequest(t *testing.T) {
	t.Parallel()
	server := newSilentServer(t)
	cfg, err := pgx.ParseConfig(server.url)
	testkit.Must(t, err)
	b := newBreaker(cfg)
	asking, err := pgx.ConnectConfig(t.Context(), cfg)
	testkit.Must(t, err)
	_, err = pgx.ConnectConfig(t.Context(), cfg)
	testkit.Must(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := asking.Exec(ctx, "SELECT 1"); err == nil {
		t.Fatal("a silent server has answered")
	}
	request := <-server.cancelled
	b.set(errUnreachable)
	select { // pgxpool keeps the place of a connection until pgx has done with its cancel request
	case <-asking.PgConn().CleanupDone():
	case <-time.After(5 * time.Second):
		t.Error("the cancel request is waited for")
	}
	left := map[net.Conn]bool{}
	for range 2 {
		left[<-server.left] = true
	}
	select {
	case conn := <-server.left:
		left[conn] = true
	case <-time.After(200 * time.Millisecond):
	}
	if left[request] {
		t.Error("the cancel request was abandoned")
	}
	testkit.Must(t, request.Close())
}
