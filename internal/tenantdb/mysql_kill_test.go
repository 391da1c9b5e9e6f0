package tenantdb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMySQLKillMeetsHostileGreeting checks that a server costs only a
// connection if it does not answer a query and sends a greeting on which the
// driver panics to the connection that would kill the query.
func TestMySQLKillMeetsHostileGreeting(t *testing.T) { // not parallel: it counts goroutines
	for name, greeting := range map[string]string{
		"one byte": "\x01\x00\x00\x00\xff", "cut": "\x03\x00\x00\x00\x0a8\x00", "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			hanging, killed := make(chan struct{}), make(chan struct{})
			var connections atomic.Int32
			c := at(t, credential.MySQL, credential.TLSDisable, func(conn net.Conn) {
				if connections.Add(1) > 1 {
					_, _ = io.WriteString(conn, greeting)
					if greeting != "" {
						_, _ = io.Copy(io.Discard, conn)
					}
					close(killed)
					return
				}
				mysqlServer{query: func(*mysqlSession) {
					close(hanging)
					_, _ = io.Copy(io.Discard, conn)
				}}.serve(conn)
			})
			db := tenantdbtest.Open(t, c)
			testkit.Must(t, db.Ping(t.Context()))
			goroutines := runtime.NumGoroutine()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			go func() {
				<-hanging
				cancel()
			}()
			var n int
			if err := db.Get(ctx, &n, `SELECT 1`); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			select {
			case <-killed:
			case <-time.After(20 * time.Second):
				t.Fatal("nobody came to kill the query")
			}
			testkit.Must(t, db.Close())
			testkit.Eventually(t, testkit.Timeout, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
		})
	}
}

// TestMySQLHostileGreetingToManyCallers checks the goroutine on which
// database/sql makes connections if more are requested than the maximum.
func TestMySQLHostileGreetingToManyCallers(t *testing.T) {
	t.Parallel()
	c := at(t, credential.MySQL, credential.TLSDisable, say("\x01\x00\x00\x00\xff"))
	db := tenantdbtest.Open(t, c)
	db.SQL().SetMaxOpenConns(1)
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() { checkBroken(t, db.Ping(t.Context()), c) })
	}
	callers.Wait()
}
