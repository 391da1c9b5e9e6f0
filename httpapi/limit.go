package httpapi

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/limits"
)

// Rates are how many requests a minute one caller may make; 0 is no limit.
type Rates struct {
	Auth    int // by address, of calls that hash a password or send mail
	Address int // by address, of all
	User    int // signed in
	Key     int // an API key
	Store   int // a store's front, and as many with all its API keys
	// Database counts a user's calls that connect to a store's database server.
	Database int
}

func (r Rates) auth() limits.Limit    { return limits.Limit{Name: "auth", PerMinute: r.Auth} }
func (r Rates) address() limits.Limit { return limits.Limit{Name: "address", PerMinute: r.Address} }
func (r Rates) user() limits.Limit    { return limits.Limit{Name: "user", PerMinute: r.User} }
func (r Rates) key() limits.Limit     { return limits.Limit{Name: "api-key", PerMinute: r.Key} }
func (r Rates) database() limits.Limit {
	return limits.Limit{Name: "database", PerMinute: r.Database}
}
func (r Rates) front() limits.Limit { return limits.Limit{Name: "store-front", PerMinute: r.Store} }
func (r Rates) store() limits.Limit { return limits.Limit{Name: "store", PerMinute: r.Store} }

// take asks for one request under the key and tells the caller what is left. It
// fails with rate_limited.
func (a *api) take(ctx context.Context, k limits.Key, l limits.Limit) error {
	if l.PerMinute <= 0 {
		return nil
	}
	r := a.Limits.Take(ctx, k, l)
	if r.OK {
		return nil
	}
	a.metrics.limited.WithLabelValues(l.Name).Inc()
	// The fields of draft-ietf-httpapi-ratelimit-headers-10: what is allowed in
	// which time, and what is left of it until when.
	if h := requestOf(ctx).header; h != nil {
		h.Set("RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=60", l.Name, l.PerMinute))
		h.Set("RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.Name, r.Remaining, seconds(r.RetryAfter)))
	}
	err := stoa.Errorf(stoa.RateLimited, "Too many requests: %d a minute are allowed. Wait as long as Retry-After says.", l.PerMinute)
	err.RetryAfter = r.RetryAfter
	return err
}

// seconds rounds up: who comes back then must not be too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// takeAuth is for calls that cost much before the caller is known.
func (a *api) takeAuth(ctx context.Context) error {
	return a.take(ctx, limits.Address("auth", requestOf(ctx).address), a.Rates.auth())
}

// takePrincipal counts who asks, and the store of an API key. A session's
// stores are not counted: before the domain has checked, anybody could use up
// a store's limit, or learn from an answer that it is there.
func (a *api) takePrincipal(ctx context.Context, p access.Principal) error {
	if !p.IsKey() {
		return a.take(ctx, limits.ID("user", p.UserID), a.Rates.user())
	}
	if err := a.take(ctx, limits.ID("api-key", p.Key.ID), a.Rates.key()); err != nil {
		return err
	}
	return a.take(ctx, limits.ID("store", p.Key.StoreID), a.Rates.store())
}

// dear makes an operation count among those that hash a password or send mail,
// by the caller's address and before anything else.
func (a *api) dear(op huma.Operation) huma.Operation {
	first := func(ctx huma.Context, next func(huma.Context)) {
		if err := a.takeAuth(ctx.Context()); err != nil {
			_, w := humago.Unwrap(ctx)
			writeProblem(w, a.problem(ctx.Context(), err))
			return
		}
		next(ctx)
	}
	op.Middlewares = append(huma.Middlewares{first}, op.Middlewares...)
	return op
}

// takeAddress is for every request.
func (a *api) takeAddress(ctx context.Context) error {
	return a.take(ctx, limits.Address("address", requestOf(ctx).address), a.Rates.address())
}

// retryAfter is the header's value: whole seconds, at least one.
func retryAfter(d time.Duration) string { return strconv.Itoa(max(seconds(d), 1)) }
