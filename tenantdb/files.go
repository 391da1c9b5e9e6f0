package tenantdb

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

const (
	// sparedAtOnce is how many databases are closed when no file can be opened.
	sparedAtOnce = 4
	// fileTries is how often a connection is begun that finds no file, with
	// filePause between two attempts.
	fileTries = 10
	filePause = 10 * time.Millisecond
)

// SpareFiles closes the databases that were unused for longest, a few of them,
// because this process or its machine can open no more files.
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

// isExhausted reports that err came of too many open files, of this process or
// of the machine.
func isExhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// filesExhausted finds out whether a file can be opened at the moment: SQLite
// does not say why it could not open one.
func filesExhausted() bool {
	f, err := os.Open(os.DevNull)
	if err == nil {
		_ = f.Close()
	}
	return isExhausted(err)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
