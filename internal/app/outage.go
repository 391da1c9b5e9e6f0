package app

import (
	"context"
	"sync/atomic"
	"time"
)

// outage is the state of the master database for the log.
type outage struct{ since atomic.Pointer[time.Time] }

// watchMaster logs the start and the end of each outage of the master database.
func (a *App) watchMaster() {
	ctx := context.Background()
	a.Master.OnOutage(func(cause error) {
		now := time.Now()
		if cause != nil {
			a.outage.since.Store(&now)
			a.Log.ErrorContext(ctx, "master database unreachable: cached stores are served, other requests get 503",
				"serve_stale", a.Cfg.ServeStale.String(), "err", cause)
			return
		}
		if since := a.outage.since.Swap(nil); since != nil {
			a.Log.InfoContext(ctx, "master database reachable again", "outage", now.Sub(*since).Round(time.Millisecond).String())
		}
	})
}
