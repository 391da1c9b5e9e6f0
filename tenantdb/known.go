package tenantdb

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
)

const (
	maxKnown = 20_000 // stores whose credentials are remembered at most
	// knownTimeout is how long the master has to answer when there are credentials
	// that were read before.
	knownTimeout = time.Second
)

// known are credentials as they were last read, encrypted as they are in the
// master: a store's database can be opened with them while the master cannot be
// asked.
type known struct {
	cache *otter.Cache[stoa.StoreID, knownRow]
	keep  time.Duration
}

type knownRow struct {
	registeredRow
	at time.Time
}

func newKnown(keep time.Duration) known {
	return known{otter.Must(&otter.Options[stoa.StoreID, knownRow]{MaximumSize: maxKnown}), keep}
}

// readForOpening is Read for a database that is about to be opened: while the
// master cannot be asked it returns what it was told last, unless a change has
// been heard of since.
func (m *Manager) readForOpening(ctx context.Context, store stoa.StoreID) (Registered, error) {
	last, ok := m.known.cache.GetIfPresent(store)
	ok = ok && time.Since(last.at) < m.known.keep
	reading := ctx
	if ok {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeout(ctx, knownTimeout)
		defer cancel()
	}
	at, changes := time.Now(), m.countChanges()
	row, err := readRegistered(reading, m.master, store)
	switch {
	case err == nil:
		m.remember(store, knownRow{row, at}, changes)
	case ok && (stoa.CodeOf(err) == stoa.PlatformUnavailable || reading.Err() != nil && ctx.Err() == nil):
		row = last.registeredRow
	default:
		return Registered{}, err
	}
	return m.unsealRow(store, row)
}

func (m *Manager) countChanges() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// remember keeps what was read, unless some credentials have changed meanwhile:
// it may have been read before that.
func (m *Manager) remember(store stoa.StoreID, row knownRow, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes == changes {
		m.known.cache.Set(store, row)
	}
}
