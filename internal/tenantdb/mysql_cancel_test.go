package tenantdb

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// TestKillsAreBounded checks that a few cancelled queries at a server that does
// not answer wait for a limited time to be killed, and that the server ends the
// others by itself.
func TestKillsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var dials, most atomic.Int32
		cfg := mysqlConfig(credential.Credentials{Host: "h", Port: 1, User: "u", Password: keyring.NewSecret("p"), Database: "d"})
		m := newMySQLConnector(cfg, func(ctx context.Context, _, _ string) (net.Conn, error) {
			most.Store(max(most.Load(), dials.Add(1)))
			defer dials.Add(-1)
			<-ctx.Done()
			return nil, ctx.Err()
		}, nil, new(sessionState), nil)
		var kills sync.WaitGroup
		for i := range uint64(100) {
			kills.Go(func() { m.kill(i) })
		}
		synctest.Wait()
		if len(m.queued) != maxQueuedKills || dials.Load() != 1 {
			t.Errorf("%d wait, %d dial", len(m.queued), dials.Load())
		}
		kills.Wait() // the clock advances to the deadline
		if most.Load() != 1 || len(m.queued) != 0 {
			t.Errorf("%d dialled at once, %d wait still", most.Load(), len(m.queued))
		}
	})
}

// TestMySQLStatementTwice checks a server that gives two open statements one
// id. It could send rows of one statement with the columns of the other.
func TestMySQLStatementTwice(t *testing.T) {
	t.Parallel()
	column := "\x17\x03def\x00\x00\x00\x01a\x00\x0c\x3f\x00\x14\x00\x00\x00\x03\x00\x00\x00\x00\x00"
	prepared := "\x0c\x00\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + column
	turn := string([]byte{byte(len(prepared)), 0}) + prepared
	conn := &scriptConn{mode: fuzzAdmits | fuzzFrames | fuzzMariaDB, turns: []byte(turn + turn + turn), turn: true}
	socket := newMySQLSocket(conn, nil, keyring.Secret{})
	cfg := mysqlConfig(credential.Credentials{Host: "h", Port: 1, User: "u", Password: keyring.NewSecret("p"), Database: "d"})
	cfg.Net, cfg.DialFunc = "tcp", func(context.Context, string, string) (net.Conn, error) { return socket, nil }
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		t.Fatal(err)
	}
	connected, err := connector.Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := connected.(mysqlConn)
	first, err := c.PrepareContext(t.Context(), "SELECT 1")
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PrepareContext(t.Context(), "SELECT 1"); err != nil {
		t.Fatalf("the id of a statement that was closed: %v", err)
	}
	_, err = c.PrepareContext(t.Context(), "SELECT 1")
	var broken *screen.ProtocolError
	if err == nil || !errors.As(socket.Failure(), &broken) {
		t.Errorf("got %v, %v", err, socket.Failure())
	}
}
