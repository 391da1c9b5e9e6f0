package tenantdb

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestLifeOfConnections checks that a connection ends between 24 and 36 minutes
// after it was made, that connections do not end at the same time, and that all
// connections of a generation end after one of them met a read-only server.
func TestLifeOfConnections(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		state := new(sessionState)
		first, ends := newLifetime(state, 0), map[time.Time]bool{}
		for range 20 {
			ends[newLifetime(state, 0).ends] = true
		}
		if len(ends) < 2 {
			t.Error("connections made together end together")
		}
		time.Sleep(maxLifetime - maxLifetime/5 - time.Second) //nolint:forbidigo // the test controls the clock
		if first.isExpired() {
			t.Error("over too early")
		}
		time.Sleep(2*maxLifetime/5 + time.Second) //nolint:forbidigo // the test controls the clock
		if !first.isExpired() {
			t.Error("not over in time")
		}
		old, young := newLifetime(state, 0), newLifetime(state, 1)
		old.expireAll()
		old.expireAll()
		if !old.isExpired() || young.isExpired() {
			t.Error("not just those that are as old are over")
		}
	})
}
