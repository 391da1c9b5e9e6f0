package httpapi

import (
	"context"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/limits"
)

// maxConnecting is how many requests of one user may wait for a database server
// at the same time, in this process.
const maxConnecting = 4

// connecting counts the requests of each user that wait for a database server.
// It is safe for concurrent use.
type connecting struct {
	mu sync.Mutex
	of map[stoa.UserID]int
}

// begin reports whether the user may have one more.
func (c *connecting) begin(user stoa.UserID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[user] >= maxConnecting {
		return false
	}
	if c.of == nil {
		c.of = map[stoa.UserID]int{}
	}
	c.of[user]++
	return true
}

func (c *connecting) end(user stoa.UserID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[user]--; c.of[user] == 0 {
		delete(c.of, user)
	}
}

// connects is for operations that begin a run, which connects to a server that
// the caller names: the calls of one user are counted, with API keys too.
func connects[I, O any](a *api, handle func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		if err := a.take(ctx, limits.ID("database", principal(ctx).UserID), a.Rates.database()); err != nil {
			return nil, err
		}
		return handle(ctx, in)
	}
}

// waitsForServer is connects for operations that wait for the server
// themselves. The server decides how long that is, so few may do so at the
// same time.
func waitsForServer[I, O any](a *api, handle func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return connects(a, func(ctx context.Context, in *I) (*O, error) {
		user := principal(ctx).UserID
		if !a.connecting.begin(user) {
			err := stoa.Errorf(stoa.RateLimited, "%d of your requests already wait for a database server. Wait until one of them has ended.", maxConnecting)
			err.RetryAfter = time.Second
			return nil, err
		}
		defer a.connecting.end(user)
		return handle(ctx, in)
	})
}
