package tenantdb

import (
	"context"
	"net"
	"sync/atomic"
	"time"
)

// settleTime is how long a connection may take to be of use. Until then a
// store gets no other one: who waits would not be served sooner.
const settleTime = 250 * time.Millisecond

// dialled is when a connection was last begun, in nanoseconds since 1970.
type dialled struct{ atomic.Int64 }

// note keeps the time of each dial, which may have to wait for the budget.
func (d *dialled) note(next DialFunc) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d.Store(time.Now().UnixNano())
		defer func() { d.Store(time.Now().UnixNano()) }()
		return next(ctx, network, address)
	}
}

// settled reports whether the last connection has had time to be of use.
func (d *dialled) settled() bool { return time.Since(time.Unix(0, d.Load())) > settleTime }

// informGate tells the gate how many connections there are to let callers to.
func (db *DB) informGate() {
	g := db.guard.gate
	g.connected = func() bool {
		// database/sql counts a connection from the moment it is begun.
		return db.sqlx.Stats().OpenConnections >= g.width() && db.dialled.settled()
	}
}
