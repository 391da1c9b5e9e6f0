package supabase

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/stoahq/stoa"
)

// rateLimit records until when Supabase accepts no more calls. Supabase counts calls per
// application, so the limit holds for all stores, and no call is sent meanwhile. Each
// replica records the limit from its own answers. It is safe for concurrent use.
type rateLimit struct {
	mu    sync.Mutex
	until time.Time
}

// wait returns how long no call may be sent.
func (l *rateLimit) wait(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until.Sub(now)
}

// A rate limit window is one minute. A wait longer than maxWindow is treated as invalid.
const (
	window    = time.Minute
	maxWindow = 10 * time.Minute
)

// note records the limit that the headers of an answer state. After a 429 it returns
// how long to wait. Source: Supabase, Management API, "Rate limits".
func (l *rateLimit) note(res *http.Response, now time.Time) time.Duration {
	left, err := strconv.Atoi(res.Header.Get("X-RateLimit-Remaining"))
	spent := err == nil && left <= 0
	refused := res.StatusCode == http.StatusTooManyRequests
	if !spent && !refused {
		return 0
	}
	pause := window
	for _, name := range []string{"Retry-After", "X-RateLimit-Reset"} {
		if s, err := strconv.Atoi(res.Header.Get(name)); err == nil && s >= 0 {
			pause = min(max(time.Duration(min(s, 3600))*time.Second, time.Second), maxWindow)
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.until = now.Add(pause)
	return pause
}

func limited(wait time.Duration) error {
	wait = max(wait.Round(time.Second), time.Second)
	e := stoa.Errorf(stoa.RateLimited, "Supabase takes no more calls from this platform for the moment. Try again in %d seconds.", int(wait.Seconds()))
	e.RetryAfter = wait
	return e
}
