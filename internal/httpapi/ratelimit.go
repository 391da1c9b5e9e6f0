package httpapi

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/ratelimit"
)

// Rates are requests per minute that one caller may make. Zero means no limit.
type Rates struct {
	Auth    int // per client address, of calls that hash a password or send mail
	Address int // per client address, of all requests
	User    int // per signed-in user
	Key     int // per API key
	Store   int // per storefront, and per store of all its API keys together
	// Database is per user, of calls that connect to a store's database server.
	Database int
}

func (r Rates) auth() ratelimit.Limit { return ratelimit.Limit{Name: "auth", PerMinute: r.Auth} }
func (r Rates) address() ratelimit.Limit {
	return ratelimit.Limit{Name: "address", PerMinute: r.Address}
}
func (r Rates) user() ratelimit.Limit { return ratelimit.Limit{Name: "user", PerMinute: r.User} }
func (r Rates) key() ratelimit.Limit  { return ratelimit.Limit{Name: "api-key", PerMinute: r.Key} }
func (r Rates) database() ratelimit.Limit {
	return ratelimit.Limit{Name: "database", PerMinute: r.Database}
}
func (r Rates) storefront() ratelimit.Limit {
	return ratelimit.Limit{Name: "store-front", PerMinute: r.Store}
}
func (r Rates) store() ratelimit.Limit { return ratelimit.Limit{Name: "store", PerMinute: r.Store} }

// healthRate is the limit of rateHealth. It is not configurable.
var healthRate = ratelimit.Limit{Name: "health", PerMinute: 1200}

// limit counts one request under the key and fails with rate_limited when the limit is
// reached. The response's headers then say when to retry.
func (a *api) limit(ctx context.Context, k ratelimit.Key, l ratelimit.Limit) error {
	if l.PerMinute <= 0 {
		return nil
	}
	r := a.Limits.Take(ctx, k, l)
	// The fields are lists with an item for each limit that the request counts against. They
	// follow draft-ietf-httpapi-ratelimit-headers-10.
	if h := requestOf(ctx).header; h != nil {
		reset := r.Reset
		if !r.OK {
			reset = r.RetryAfter
		}
		addItem(h, "RateLimit-Policy", fmt.Sprintf("%q;q=%d;w=60", l.Name, l.PerMinute))
		addItem(h, "RateLimit", fmt.Sprintf("%q;r=%d;t=%d", l.Name, r.Remaining, seconds(reset)))
	}
	if r.OK {
		return nil
	}
	a.metrics.limited.WithLabelValues(l.Name).Inc()
	err := stoa.Errorf(stoa.RateLimited, "Too many requests: %d a minute are allowed. Wait as long as Retry-After says.", l.PerMinute)
	err.RetryAfter = r.RetryAfter
	return err
}

// addItem adds an item to a header that is a list.
func addItem(h http.Header, name, item string) {
	if list := h.Get(name); list != "" {
		item = list + ", " + item
	}
	h.Set(name, item)
}

// limitAddress counts a request of any route by client address. Health checks have a
// separate limit, which other requests do not use up.
func (a *api) limitAddress(ctx context.Context) error {
	req := requestIn(ctx)
	if req.options.rate == rateHealth {
		return a.limit(ctx, ratelimit.Address("health", req.address), healthRate)
	}
	return a.limit(ctx, ratelimit.Address("address", req.address), a.Rates.address())
}

// takeAuth counts a call of the class rateAuth.
func (a *api) takeAuth(ctx context.Context) error {
	return a.limit(ctx, ratelimit.Address("auth", requestOf(ctx).address), a.Rates.auth())
}

// limitAuth applies the limit of rateAuth, as a middleware that precedes
// authentication.
func (a *api) limitAuth(ctx huma.Context, next func(huma.Context)) {
	if err := a.takeAuth(ctx.Context()); err != nil {
		a.writeHumaProblem(ctx, err)
		return
	}
	next(ctx)
}

// limitPrincipal counts an authenticated request by user, or by API key and that
// key's store. A session's request is not counted by store: the domain has not
// checked membership yet, so anybody could use up a store's limit or learn from
// the answer that the store exists.
func (a *api) limitPrincipal(ctx context.Context, p authz.Principal) error {
	if !p.IsKey() {
		return a.limit(ctx, ratelimit.ID("user", p.UserID), a.Rates.user())
	}
	if err := a.limit(ctx, ratelimit.ID("api-key", p.Key.ID), a.Rates.key()); err != nil {
		return err
	}
	return a.limit(ctx, ratelimit.ID("store", p.Key.StoreID), a.Rates.store())
}

// LimitVisit implements stores.VisitLimiter. It also records the store that is visited.
func (a *api) LimitVisit(ctx context.Context, store stoa.StoreID) error {
	about(ctx, store)
	return a.limit(ctx, ratelimit.ID("store-front", store), a.Rates.storefront())
}

// admit applies the limits of a class that count only requests whose input is
// valid. release ends the request's part in them.
func (a *api) admit(ctx context.Context, class rateClass) (release func(), err error) {
	return a.admitAs(ctx, class, principal(ctx).UserID)
}

// admitAs is admit for a user.
func (a *api) admitAs(ctx context.Context, class rateClass, user stoa.UserID) (release func(), err error) {
	if class != rateDatabase && class != rateDatabaseWait {
		return func() {}, nil
	}
	if err := a.limit(ctx, ratelimit.ID("database", user), a.Rates.database()); err != nil || class == rateDatabase {
		return func() {}, err
	}
	return a.databaseSlots.acquire(user)
}

// seconds returns d in seconds, rounded up, so that a client that waits that long does
// not retry too early.
func seconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// retryAfter formats the header's value: whole seconds, at least one.
func retryAfter(d time.Duration) string { return strconv.Itoa(max(seconds(d), 1)) }
