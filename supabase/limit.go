package supabase

import (
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/stoahq/stoa"
)

// limit remembers until when Supabase takes no more calls. It counts them for
// the whole application, so one store's haste is every store's: no call is
// made in vain meanwhile. Replicas learn it each from an answer of their own.
type limit struct {
	mu    sync.Mutex
	until time.Time
}

// wait returns how long no call is to be made.
func (l *limit) wait(now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.until.Sub(now)
}

// A window is a minute; what an answer claims beyond maxWindow is not believed.
const (
	window    = time.Minute
	maxWindow = 10 * time.Minute
)

// note reads the headers of an answer. After a 429 it returns how long to
// wait. Source: Supabase, Management API, "Rate limits".
func (l *limit) note(res *http.Response, now time.Time) time.Duration {
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
