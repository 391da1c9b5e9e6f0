package limit_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
	"github.com/stoahq/stoa/internal/testkit"
)

// noAccount counts no memory.
type noAccount struct{}

func (noAccount) Take(int64) error { return nil }
func (noAccount) Give(int64)       {}

// pipes returns a dial function that counts the connections that it makes.
func pipes(made *atomic.Int32) dial.Func {
	return func(context.Context, string, string) (net.Conn, error) {
		made.Add(1)
		conn, _ := net.Pipe()
		return conn, nil
	}
}

// TestFewConnectionsAreMadeAtOnce checks that busy stores lose few connections at once to
// callers that arrive together, that the next caller follows when a connection is made,
// and that nobody waits for long for a server that connects slowly.
func TestFewConnectionsAreMadeAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limited, callers = 100, 20
		var reclaimed atomic.Int32
		var l *limit.Connections
		l = limit.NewConnections(limited, func(server string) bool {
			reclaimed.Add(1)
			l.Release(server) // as an idle connection that was closed does
			return true
		})
		for range limited {
			testkit.Must(t, l.Acquire(t.Context(), "server"))
		}
		var dialled atomic.Int32
		dial := l.Dial("server", noAccount{}, pipes(&dialled))
		most := int32(limit.MaxConnecting(l))
		begin := time.Now()
		connected := make(chan context.CancelFunc, callers)
		for range callers {
			go func() {
				ctx, cancel := context.WithCancel(t.Context())
				if _, err := dial(ctx, "tcp", "server"); err != nil {
					t.Error(err)
				}
				connected <- cancel // ends the dial's context, as a driver does
			}()
		}
		synctest.Wait()
		if n := dialled.Load(); n != most {
			t.Errorf("%d connections are made at once, want %d", n, most)
		}
		if n := reclaimed.Load(); n > 2*most {
			t.Errorf("%d connections were closed for %d", n, most)
		}
		(<-connected)()
		synctest.Wait()
		if n := dialled.Load(); n != most+1 {
			t.Errorf("%d connections after one was made, want %d", n, most+1)
		}
		for range callers - 1 { // the server makes no other one
			defer (<-connected)()
		}
		if waited := time.Since(begin); waited != limit.PaceWait {
			t.Errorf("the last caller had to wait for %v", waited)
		}
		if n := reclaimed.Load(); n != callers {
			t.Errorf("%d connections were closed for %d callers", n, callers)
		}
	})
}

// TestFreeConnectionsAreMadeTogether checks that callers do not wait for each other while
// no store has to give up a connection.
func TestFreeConnectionsAreMadeTogether(t *testing.T) {
	t.Parallel()
	l := limit.NewConnections(100, func(string) bool { t.Error("a connection was taken"); return false })
	dial := l.Dial("server", noAccount{}, pipes(new(atomic.Int32)))
	for range 100 {
		_, err := dial(t.Context(), "tcp", "server")
		testkit.Must(t, err)
	}
}

// TestRoomForManyIsUsed checks that callers who wait do not wait for each other once many
// connections have become free.
func TestRoomForManyIsUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const limited, callers = 100, 30
		l := limit.NewConnections(limited, func(string) bool { return false })
		for range limited {
			testkit.Must(t, l.Acquire(t.Context(), "server"))
		}
		var dialled atomic.Int32
		dial := l.Dial("server", noAccount{}, pipes(&dialled))
		for range callers {
			go func() {
				if _, err := dial(t.Context(), "tcp", "server"); err != nil {
					t.Error(err)
				}
			}()
		}
		synctest.Wait()
		most := limit.MaxConnecting(l)
		for range most + 1 { // the last one is free, and no caller may have it yet
			l.Release("server")
		}
		synctest.Wait()
		if n := dialled.Load(); int(n) != most || !l.IsFull("server") {
			t.Errorf("%d connections are made, want %d; full: %v, although callers wait", n, most, l.IsFull("server"))
		}
		begin := time.Now()
		for range callers {
			l.Release("server")
		}
		synctest.Wait()
		if n := dialled.Load(); n != callers || time.Since(begin) > 0 {
			t.Errorf("%d connections were made after %v, want %d at once", n, time.Since(begin), callers)
		}
	})
}

// TestDialsUnderStress checks that no connection is lost, nor counted as being made for ever,
// when callers give up, dials fail and connections are closed at any time.
func TestDialsUnderStress(t *testing.T) {
	t.Parallel()
	l := limit.NewConnections(3, func(string) bool { return false })
	dial := l.Dial("server", noAccount{}, func(context.Context, string, string) (net.Conn, error) {
		if rand.IntN(4) == 0 {
			return nil, io.ErrUnexpectedEOF
		}
		conn, _ := net.Pipe()
		return conn, nil
	})
	var callers sync.WaitGroup
	for range 32 {
		callers.Go(func() {
			for range 100 {
				ctx, cancel := context.WithTimeout(t.Context(), rand.N(2*time.Millisecond))
				conn, err := dial(ctx, "tcp", "server")
				if rand.IntN(2) == 0 {
					cancel() // the connection is made, or its caller gives up
				}
				if err == nil {
					if err := conn.Close(); err != nil {
						t.Error(err)
					}
				}
				cancel()
			}
		})
	}
	callers.Wait()
	l.WaitClosed()
	if n := l.Servers(); len(n) != 0 || l.Waiting() != 0 {
		t.Errorf("%v are left, %d callers wait", n, l.Waiting())
	}
	for range 3 {
		_, err := dial(t.Context(), "tcp", "server")
		for errors.Is(err, io.ErrUnexpectedEOF) {
			_, err = dial(t.Context(), "tcp", "server")
		}
		testkit.Must(t, err)
	}
	if n := l.Servers()[0].Connecting; n != 3 {
		t.Errorf("%d connections are being made, want the 3 whose drivers have not ended their dials", n)
	}
}
