package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/ratelimit/ratelimittest"
)

// behindProxy returns a configuration with a trusted proxy, so that a test can choose
// its client address.
func behindProxy(t *testing.T, engine masterdb.Engine) *config.Config {
	t.Helper()
	cfg := testConfig(t, engine)
	cfg.TrustedProxies = []string{"127.0.0.0/8", "::1/128"}
	return cfg
}

// limited fails the test unless the answer is a complete 429 of that limit.
func (a answer) limited(name string) {
	a.t.Helper()
	a.problem(http.StatusTooManyRequests, "rate_limited")
	if s, err := strconv.Atoi(a.header.Get("Retry-After")); err != nil || s < 1 || s > 60 {
		a.t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	// The limit that is used up comes last.
	for field, form := range map[string]string{"RateLimit": `"%s";r=0;t=\d+$`, "RateLimit-Policy": `"%s";q=\d+;w=60$`} {
		if got := a.header.Get(field); !regexp.MustCompile(fmt.Sprintf(form, name)).MatchString(got) {
			a.t.Errorf("%s %q, want that of %s", field, got, name)
		}
	}
}

// TestLimits checks that each limit counts one caller and is named in the answer, and
// that other callers are not affected.
func TestLimits(t *testing.T) {
	t.Parallel()
	cfg := behindProxy(t, masterdb.SQLite)
	cfg.RateLimitAuth, cfg.RateLimitAddress, cfg.RateLimitUser, cfg.RateLimitKey, cfg.RateLimitStore = 6, 120, 20, 10, 15
	s := startServer(t, cfg)
	from := func(address string) []string { return []string{"X-Forwarded-For", address} }
	owner, id, host := connected(t, s, "owner@example.com")
	other, otherID := register(t, s, "other@example.com")
	key := owner.proven().call("POST", "/api/stores/"+id+"/api-keys", object{"name": "shop", "scopes": []string{"credits:read"}}).want(http.StatusCreated).text("key")
	keyed := client{t: t, url: s.URL, token: key}

	anybody := client{t: t, url: s.URL}
	until := func(name string, most int, call func() answer) {
		t.Helper()
		for range 5 * most { // on a slow machine some of the limit is restored meanwhile
			if a := call(); a.status == http.StatusTooManyRequests {
				a.limited(name)
				return
			}
		}
		t.Errorf("%s: %d requests are all answered", name, most)
	}
	login := func(address string) answer {
		return anybody.call("POST", "/api/auth/login", object{"email": "x" + address + "@example.com", "password": "no"}, from(address)...)
	}
	until("auth", 7, func() answer { return login("203.0.113.1") })
	login("203.0.113.2").problem(http.StatusUnauthorized, "invalid_credentials")
	anybody.call("POST", "/api/auth/forgot-password", object{"email": "a@example.com"}, from("203.0.113.1")...).limited("auth")
	anybody.call("POST", "/reset?token=x", "password=y", append(from("203.0.113.1"), "Content-Type", "application/x-www-form-urlencoded")...).want(http.StatusTooManyRequests)
	anybody.call("GET", "/api/openapi.json", nil, from("203.0.113.1")...).want(http.StatusOK)

	until("user", 21, func() answer { return owner.call("GET", "/api/auth/me", nil, from("203.0.113.3")...) })
	other.call("GET", "/api/auth/me", nil, from("203.0.113.3")...).want(http.StatusOK)
	balance := func() answer { return keyed.call("GET", "/api/credits/balance", nil, from("203.0.113.4")...) }
	balance().want(http.StatusOK)
	until("api-key", 10, balance)

	until("store-front", 16, func() answer {
		return anybody.call("GET", "/api/storefront/store", nil, append(from("203.0.113.5"), "Host", host)...)
	})
	anybody.call("GET", "/", nil, append(from("203.0.113.5"), "Host", host)...).want(http.StatusTooManyRequests)
	// A caller cannot use up the limit of another user's store.
	for range 16 {
		other.call("GET", "/api/stores/"+id, nil, from("203.0.113.6")...).problem(http.StatusNotFound, "store_not_found")
	}
	until("user", 21, func() answer { return other.call("GET", "/api/stores/"+otherID, nil, from("203.0.113.6")...) })

	until("address", 121, func() answer { return anybody.call("GET", "/there/is/nothing", nil, from("203.0.113.7")...) })
	anybody.call("GET", "/healthz", nil, from("203.0.113.7")...).want(http.StatusOK)
	anybody.call("GET", "/there/is/nothing", nil, from("203.0.113.8")...).want(http.StatusNotFound)
}

// TestStoreLimitOfKeys checks that more API keys do not raise a store's limit.
func TestStoreLimitOfKeys(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.RateLimitStore = 10
	s := startServer(t, cfg)
	owner, id := register(t, s, "owner@example.com")
	counts := map[int]int{}
	for n := range 4 {
		key := owner.proven().call("POST", "/api/stores/"+id+"/api-keys", object{"name": fmt.Sprint(n), "scopes": []string{"credits:read"}}).want(http.StatusCreated).text("key")
		for range 5 {
			a := client{t: t, url: s.URL, token: key}.call("GET", "/api/credits/balance", nil)
			if counts[a.status]++; a.status == http.StatusTooManyRequests {
				a.limited("store")
			}
		}
	}
	if counts[http.StatusOK] < 10 || counts[http.StatusOK] > 12 || counts[http.StatusTooManyRequests] == 0 {
		t.Errorf("statuses %v", counts)
	}
}

// TestSpoofedAddress checks that a header changes nobody's address without a trusted
// proxy, and that with one only the address that the proxy appends counts.
func TestSpoofedAddress(t *testing.T) {
	t.Parallel()
	for name, trust := range map[string]bool{"no proxy": false, "a proxy": true} {
		cfg := testConfig(t, masterdb.SQLite)
		if trust {
			cfg = behindProxy(t, masterdb.SQLite)
		}
		cfg.RateLimitAuth = 5
		s := startServer(t, cfg)
		c := client{t: t, url: s.URL}
		refused := 0
		for n := range 12 {
			a := c.call("POST", "/api/auth/login", object{"email": fmt.Sprintf("x%d@example.com", n), "password": "no"},
				"X-Forwarded-For", fmt.Sprintf("203.0.113.%d, 198.51.100.1", n), "Forwarded", fmt.Sprintf("for=203.0.113.%d", n))
			if a.status == http.StatusTooManyRequests {
				refused++
			}
		}
		if refused < 6 {
			t.Errorf("%s: only %d of 12 are refused", name, refused)
		}
		var addresses []string
		if err := s.Master.Select(t.Context(), &addresses, `SELECT DISTINCT address FROM audit_events`); err != nil {
			t.Fatal(err)
		}
		if len(addresses) != 1 || trust && addresses[0] != "198.51.100.1" || !trust && addresses[0] == "198.51.100.1" {
			t.Errorf("%s: the audit log has %v", name, addresses)
		}
	}
}

// TestForgottenProxy checks that a proxy that is not configured is logged once.
func TestForgottenProxy(t *testing.T) {
	t.Parallel()
	for trust, want := range map[bool]int{false: 1, true: 0} {
		cfg := testConfig(t, masterdb.SQLite)
		if trust {
			cfg = behindProxy(t, masterdb.SQLite)
		}
		var log syncBuffer
		s, err := launch(t.Context(), cfg, slog.New(slog.NewTextHandler(&log, nil)))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			client{t: t, url: s.URL}.call("GET", "/healthz", nil, "X-Forwarded-For", "203.0.113.1").want(http.StatusOK)
		}
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "STOA_TRUSTED_PROXIES"); n != want {
			t.Errorf("trusted %v: told %d times", trust, n)
		}
	}
}

// flood sends n concurrent sign-ins, each from the address that address returns, and
// counts the statuses. They end after 60 s at the latest.
func flood(t *testing.T, url string, n int, address func(int) string) map[int]int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	crowd := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: n}}
	defer crowd.CloseIdleConnections()
	var mu sync.Mutex
	counts := map[int]int{}
	var all sync.WaitGroup
	for i := range n {
		body, err := json.Marshal(object{"email": fmt.Sprintf("victim%d@example.com", i%7), "password": "Wrong-Password-42"})
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			req, err := http.NewRequestWithContext(ctx, "POST", url+"/api/auth/login", strings.NewReader(string(body)))
			if err != nil {
				return
			}
			req.Header.Set("Content-Type", "application/json")
			req.Header.Set("X-Forwarded-For", address(i))
			status := 0
			if res, err := crowd.Do(req); err == nil {
				status = res.StatusCode
				res.Body.Close()
			}
			mu.Lock()
			defer mu.Unlock()
			counts[status]++
		})
	}
	all.Wait()
	return counts
}

// TestSignInFlood makes 500 concurrent sign-ins, from one address and from 500. The
// only failures have status 429, an unrelated user is served, and the memory and the
// audit log stay bounded. The short form makes 150, from one address on SQLite and from 150
// on PostgreSQL.
func TestSignInFlood(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100)) // it measures the heap
	crowd := 500
	if testing.Short() {
		crowd = 150
	}
	for _, engine := range masterdbtest.Engines() {
		for name, address := range map[string]func(int) string{
			"one address":    func(int) string { return "203.0.113.9" },
			"many addresses": func(i int) string { return fmt.Sprintf("198.51.%d.%d", i/250, i%250) },
		} {
			if testing.Short() && (engine == masterdb.SQLite) != (name == "one address") {
				continue
			}
			t.Run(string(engine)+"/"+name, func(t *testing.T) {
				s := startServer(t, behindProxy(t, engine))
				owner, _ := register(t, s, "unrelated@example.com")
				runtime.GC()
				var before runtime.MemStats
				runtime.ReadMemStats(&before)
				done := make(chan map[int]int, 1)
				start := time.Now()
				go func() { done <- flood(t, s.URL, crowd, address) }()

				var counts map[int]int
				var slowest time.Duration
				var peak uint64
				asked := 0
				for counts == nil {
					at := time.Now()
					owner.call("GET", "/api/auth/me", nil, "X-Forwarded-For", "192.0.2.1").want(http.StatusOK)
					slowest, asked = max(slowest, time.Since(at)), asked+1
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					peak = max(peak, m.HeapInuse)
					select {
					case counts = <-done:
					default:
					}
				}
				took := time.Since(start)
				if counts[http.StatusUnauthorized]+counts[http.StatusTooManyRequests] != crowd || counts[http.StatusTooManyRequests] == 0 {
					t.Errorf("statuses %v", counts)
				}
				if slowest > 10*time.Second {
					t.Errorf("an unrelated user waited %v", slowest)
				}
				grown := int64(peak>>20) - int64(before.HeapInuse>>20)
				if grown > 400 {
					t.Errorf("the heap grew by %d MiB", grown)
				}
				var written int
				if err := s.Master.Get(t.Context(), &written, `SELECT count(*) FROM audit_events WHERE outcome = 'failed'`); err != nil {
					t.Fatal(err)
				}
				if written != counts[http.StatusUnauthorized] {
					t.Errorf("%d failures are written down, of %d", written, counts[http.StatusUnauthorized])
				}
				t.Logf("%d sign-ins in %v: %v; the heap grew by %d MiB; an unrelated user made %d requests, the slowest in %v",
					crowd, took.Round(time.Millisecond), counts, grown, asked, slowest.Round(time.Millisecond))
			})
		}
	}
}

// TestTwoServersShareLimits checks that two servers count together, and that each
// counts alone while Redis is down.
func TestTwoServersShareLimits(t *testing.T) {
	t.Parallel()
	redis := secretOf(ratelimittest.URL(t))
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			first := behindProxy(t, engine)
			first.RedisURL, first.RateLimitAuth = redis, 10
			second := *first
			both := []*server{startServer(t, first), startServer(t, &second)}
			from := "203.0.113." + strconv.Itoa(1+len(engine)) // the engines share one Redis server
			begin := time.Now()
			statuses := func() map[int]int {
				counts := map[int]int{}
				for n := range 30 {
					email := fmt.Sprintf("x%d-%s@example.com", n, engine)
					a := client{t: t, url: both[n%2].URL}.call("POST", "/api/auth/login", object{"email": email, "password": "no"}, "X-Forwarded-For", from)
					if counts[a.status]++; a.status == http.StatusTooManyRequests {
						a.limited("auth")
					}
				}
				return counts
			}
			got := statuses()
			refilled := int(time.Since(begin)/(6*time.Second)) + 2 // ten per minute; the times are known to the second only
			if n := got[http.StatusUnauthorized]; n < 10 || n > 10+refilled {
				t.Errorf("together they answered %v, want 10 with 401 and at most %d that time has given back", got, refilled)
			}
		})
	}
}

// TestRedisIsAway checks that a server starts, answers and limits without Redis.
func TestRedisIsAway(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.RedisURL, cfg.RateLimitAuth = secretOf("redis://:hunter2@"+closedPort(t)), 5
	s := startServer(t, cfg)
	counts := map[int]int{}
	for n := range 12 {
		a := client{t: t, url: s.URL}.call("POST", "/api/auth/login", object{"email": fmt.Sprintf("x%d@example.com", n), "password": "no"})
		counts[a.status]++
	}
	if counts[http.StatusUnauthorized] < 5 || counts[http.StatusUnauthorized] > 6 || counts[http.StatusUnauthorized]+counts[http.StatusTooManyRequests] != 12 {
		t.Errorf("statuses %v", counts)
	}
}

func TestInvalidHTTPSettings(t *testing.T) {
	t.Parallel()
	for flag, want := range map[string]string{
		"--redis-url=localhost:6379":           "REDIS_URL must be redis://",
		"--redis-url=redis://u:hunter2@h:1/xx": "REDIS_URL must be redis://",
		"--rate-limit-auth=-1":                 "STOA_RATE_LIMIT_AUTH must be between",
		"--rate-limit-store=1000000000":        "STOA_RATE_LIMIT_STORE must be between",
		"--trusted-proxies=10.0.0.1":           "STOA_TRUSTED_PROXIES \"10.0.0.1\" is not a network",
		"--trusted-proxies=0.0.0.0/0":          "STOA_TRUSTED_PROXIES must not be 0.0.0.0/0",
	} {
		status, _, errOut := command(t, "serve", flag, "--data-dir="+t.TempDir())
		if status != 1 || !strings.Contains(errOut, want) || strings.Contains(errOut, "hunter2") {
			t.Errorf("%s: status %d, %s", flag, status, errOut)
		}
	}
}
