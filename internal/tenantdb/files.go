package tenantdb

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

const (
	// sparedAtOnce is the number of databases that are closed when no file can
	// be opened.
	sparedAtOnce = 4
	// fileTries is the number of attempts to make a connection while no file
	// can be opened, with filePause between attempts. On a busy machine the databases
	// that were closed give their files back late.
	fileTries = 50
	filePause = 10 * time.Millisecond
)

// SpareFiles closes a few of the least recently used databases, because the process or
// the machine can open no more files.
func (m *Manager) SpareFiles() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range sparedAtOnce {
		place := m.idle.Back()
		if place == nil {
			return
		}
		m.evicted++
		m.retire(place.Value.(*pool))
	}
}

// isExhausted reports whether err means that the process or the machine has too
// many open files.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// filesExhausted reports whether no file can be opened now. It is needed
// because SQLite does not return the reason for a failure.
func filesExhausted() bool {
	f, err := os.Open(os.DevNull)
	if err == nil {
		_ = f.Close()
	}
	return isExhausted(err)
}

// sparingFiles returns a dial function that has databases closed by spare, which may be
// nil, and tries again while the process can open no more files.
func sparingFiles(spare func(), next dial.Func) dial.Func {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := next(ctx, network, address)
		for try := 1; isExhausted(err) && try < fileTries && spare != nil; try++ {
			spare()
			if pause(ctx, filePause) != nil {
				break
			}
			conn, err = next(ctx, network, address)
		}
		return conn, err
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
