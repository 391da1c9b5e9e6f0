package tenantdb_test

import (
	"database/sql"
	"testing"

	"github.com/stoahq/stoa/tenantdb"
)

// A busy store keeps its connections while few stores are open; each more
// that opens takes its share, down to two.
func TestIdleConnectionsAreShared(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{IdleConns: 9, ConnsPerStore: 6})
	var leases []tenantdb.Lease
	for _, want := range []int{6, 4, 3, 2, 2, 2} {
		leases = append(leases, h.lease(t, h.embedded(t)))
		for _, l := range leases {
			awaitIdle(t, l.SQL(), want)
		}
	}
	for _, l := range leases {
		l.Release()
	}
}

// awaitIdle uses all connections at once, until want of them are kept.
func awaitIdle(t *testing.T, db *sql.DB, want int) {
	t.Helper()
	eventually(t, func() bool {
		var conns []*sql.Conn
		for range db.Stats().MaxOpenConnections {
			c, err := db.Conn(t.Context())
			must(t, err)
			conns = append(conns, c)
		}
		for _, c := range conns {
			must(t, c.Close())
		}
		return db.Stats().Idle == want
	})
}
