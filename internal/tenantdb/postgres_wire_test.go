package tenantdb_test

import (
	"context"
	"database/sql"
	"errors"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fewestAllocations returns the number of allocations of a call of f. It is the
// minimum of many single calls, because the race detector randomly drops one
// object of four from a pool: an average of several calls depends on luck. The
// garbage collector is off meanwhile, so that it does not empty the pools.
func fewestAllocations(f func()) float64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	fewest := testing.AllocsPerRun(1, f)
	for range 300 {
		fewest = min(fewest, testing.AllocsPerRun(1, f))
	}
	return fewest
}

// TestScreenAllocatesNothing checks that the screen adds no allocation to a
// query.
func TestScreenAllocatesNothing(t *testing.T) { //nolint:paralleltest // it counts allocations
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	count := func(open func(credential.Credentials, dial.Func) *sql.DB, use func(*pgx.Conn) error) float64 {
		pool := open(c, new(net.Dialer).DialContext)
		defer pool.Close() //nolint:errcheck // nothing is pending
		conn, err := pool.Conn(t.Context())
		testkit.Must(t, err)
		defer conn.Close() //nolint:errcheck // the pool is closed next
		var allocated float64
		testkit.Must(t, conn.Raw(func(raw any) error {
			allocated = fewestAllocations(func() {
				if err := use(raw.(*stdlib.Conn).Conn()); err != nil {
					t.Error(err)
				}
			})
			return nil
		}))
		return allocated
	}
	for name, use := range map[string]func(*pgx.Conn) error{
		"a small row": func(c *pgx.Conn) error {
			var row struct {
				Name string
				N    int64
			}
			return pgxscan.Get(t.Context(), c, &row, `SELECT 'a name' AS name, $1::bigint AS n`, 7)
		},
		"a row of a megabyte": func(c *pgx.Conn) error {
			var text string
			return pgxscan.Get(t.Context(), c, &text, `SELECT repeat('x', $1)`, 1<<20)
		},
		"a statement": func(c *pgx.Conn) error {
			_, err := c.Exec(t.Context(), `SET work_mem = '4MB'`)
			return err
		},
	} {
		with, without := count(tenantdb.ScreenedPool, use), count(tenantdb.UnscreenedPool, use)
		if with > without {
			t.Errorf("%s: %v allocations with the screen, %v without", name, with, without)
		}
		t.Logf("%s: %v allocations with the screen, %v without", name, with, without)
	}
}

// TestAnswerDuringALongRequest checks that a server that answers slowly over
// TLS, while the request is still being sent, may not send more in total than
// for any other request: a write does not reset the count.
func TestAnswerDuringALongRequest(t *testing.T) {
	t.Parallel()
	var said atomic.Int64
	c := postgresTLS(t, func(conn net.Conn) {
		b := pgproto3.NewBackend(conn, conn)
		if _, err := b.ReceiveStartupMessage(); err != nil {
			return
		}
		if _, err := conn.Write(loggedIn); err != nil {
			return
		}
		notice := repeated(encoded(&pgproto3.NoticeResponse{Message: strings.Repeat("x", 8000)}), screen.MaxAnswer/4)
		request := make([]byte, 16<<10)
		for {
			if _, err := io.ReadFull(conn, request); err != nil {
				return
			}
			n, err := conn.Write(notice)
			said.Add(int64(n))
			if err != nil {
				return
			}
		}
	})
	db := tenantdbtest.Open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := db.Exec(ctx, `INSERT INTO t VALUES ('`+strings.Repeat("x", 8<<20)+`')`)
	if !errors.Is(err, screen.ErrAnswerTooLong) || ctx.Err() != nil {
		t.Errorf("got %v, %v", err, ctx.Err())
	}
	if most := int64(screen.MaxAnswer + 16<<20); said.Load() > most { // the network buffers what exceeds the limit
		t.Errorf("the server said %d MB", said.Load()>>20)
	}
}

// TestCancelRequestReadsLittle checks that a cancelled query is cancelled at
// the server too, on a connection that limits what the server may send.
func TestCancelRequestReadsLittle(t *testing.T) {
	t.Parallel()
	asked, said := make(chan struct{}, 1), make(chan int, 1)
	var connections atomic.Int64
	c := at(t, credential.PostgreSQL, credential.TLSDisable, func(conn net.Conn) {
		if connections.Add(1) == 1 {
			postgresScript{answer: func([]pgproto3.FrontendMessage) []byte {
				asked <- struct{}{}
				_, _ = io.Copy(io.Discard, conn) // until the client has given up
				return nil
			}}.serve(conn)
			return
		}
		total := 0
		for {
			n, err := conn.Write(make([]byte, 1<<20))
			if total += n; err != nil {
				said <- total
				return
			}
		}
	})
	db := tenantdbtest.Open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-asked
		cancel()
	}()
	if err := db.Ping(ctx); err == nil {
		t.Error("connected")
	}
	if total := <-said; total > 16<<20 { // the network buffers what exceeds the driver's 16 bytes
		t.Errorf("the server said %d MB", total>>20)
	}
}

// TestRefusedServerIsLeftAlone checks that no further connection is made to a
// server that has been refused.
func TestRefusedServerIsLeftAlone(t *testing.T) {
	t.Parallel()
	var connections atomic.Int64
	ended := make(chan struct{})
	c := at(t, credential.PostgreSQL, credential.TLSDisable, func(conn net.Conn) {
		if connections.Add(1) == 1 {
			defer close(ended)
		}
		postgresScript{answer: func([]pgproto3.FrontendMessage) []byte { return frame('K', make([]byte, 8)) }}.serve(conn)
	})
	m := newManager(t)
	db, err := m.OpenUnleased(c)
	testkit.Must(t, err)
	checkFault(t, db.Ping(t.Context()), stoa.DatabaseUnreachable, c)
	<-ended
	testkit.Must(t, db.Close())
	testkit.Must(t, m.Close(t.Context())) // Close waits until every connection has ended
	if n := connections.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}
