package tenantdb

import (
	"context"
	"time"

	"github.com/maypok86/otter/v2"

	"github.com/stoahq/stoa"
)

const (
	maxCachedCredentials = 20_000 // stores
	// cachedReadTimeout is the time within which the master must answer if the
	// cache has the store's credentials.
	cachedReadTimeout = time.Second
)

// credentialCache stores credentials as they were last read from the master,
// still encrypted, so that a store's database can be opened while the master is
// unreachable.
type credentialCache struct {
	rows   *otter.Cache[stoa.StoreID, cachedRow]
	maxAge time.Duration
}

type cachedRow struct {
	registeredRow
	readAt time.Time
}

func newCredentialCache(maxAge time.Duration) credentialCache {
	return credentialCache{otter.Must(&otter.Options[stoa.StoreID, cachedRow]{MaximumSize: maxCachedCredentials}), maxAge}
}

// readCached does the same as Read, from the master or, while the master is
// unreachable, from the cache. A notified change of the credentials removes
// them from the cache.
func (m *Manager) readCached(ctx context.Context, store stoa.StoreID) (Registered, error) {
	cached, ok := m.credentials.rows.GetIfPresent(store)
	ok = ok && time.Since(cached.readAt) < m.credentials.maxAge
	reading := ctx
	if ok {
		var cancel context.CancelFunc
		reading, cancel = context.WithTimeout(ctx, cachedReadTimeout)
		defer cancel()
	}
	readAt, changes := time.Now(), m.credentialChanges()
	row, err := readRegistered(reading, m.master, store)
	switch {
	case err == nil:
		m.cacheCredentials(store, cachedRow{row, readAt}, changes)
	case ok && (stoa.CodeOf(err) == stoa.PlatformUnavailable || reading.Err() != nil && ctx.Err() == nil):
		row = cached.registeredRow
	default:
		return Registered{}, err
	}
	return m.unsealRow(store, row)
}

func (m *Manager) credentialChanges() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.changes
}

// cacheCredentials caches a row, unless credentials have changed since changes
// was read: the row may be older than the change.
func (m *Manager) cacheCredentials(store stoa.StoreID, row cachedRow, changes uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.changes == changes {
		m.credentials.rows.Set(store, row)
	}
}
