package tenantdb

import (
	"context"
	"net"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
)

// settleTime is the time that a new connection has before it is expected to
// serve callers. Until then its store gets no further connection, because that
// connection would not serve a waiter sooner.
const settleTime = 250 * time.Millisecond

// crowdedWait is how long the callers of a store wait before it gets a further
// connection that another store must give up. That store's next caller waits for
// a connection to be made.
const crowdedWait = 500 * time.Millisecond

// dialTracker records when the pool of one database last dialled. It is safe for
// concurrent use.
type dialTracker struct {
	mu      sync.Mutex
	last    time.Time          // when a dial last began or ended
	limiter *limit.Concurrency // notified of each dial; nil for a database that is not leased
}

// track returns a dial function that records each call of next. A call may wait
// for the connection limiter.
func (d *dialTracker) track(next dial.Func) dial.Func {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		d.record()
		defer d.record()
		return next(ctx, network, address)
	}
}

func (d *dialTracker) record() {
	d.mu.Lock()
	d.last = time.Now()
	limiter := d.limiter
	d.mu.Unlock()
	if limiter != nil {
		limiter.ConnectionBegun()
	}
}

// notify sets the limiter that is notified of each further dial.
func (d *dialTracker) notify(l *limit.Concurrency) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.limiter = l
}

// settlesIn returns how long the last connection still needs to settle, or 0 or
// less if settleTime has passed.
func (d *dialTracker) settlesIn() time.Duration {
	d.mu.Lock()
	defer d.mu.Unlock()
	return settleTime - time.Since(d.last)
}

// ReadyIn implements limit.Pool. The database/sql package counts a
// connection from the moment it begins to make it.
func (db *DB) ReadyIn(n int, waited time.Duration) time.Duration {
	if db.sqlx.Stats().OpenConnections < n {
		return limit.SafetyNet // the next dial notifies the limiter
	}
	wait := db.dials.settlesIn()
	if b := db.bulkhead; b.conns != nil && b.conns.IsFull(b.server) {
		wait = max(wait, crowdedWait-waited)
	}
	return max(wait, 0)
}

// protectPool connects the limiter of db's bulkhead to db's connections.
func (db *DB) protectPool() {
	db.bulkhead.limiter.Protect(db)
	db.dials.notify(db.bulkhead.limiter)
}
