package app_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestStreamsEndWithTheirRights checks that an event stream ends soon after its session
// or key, also on another replica.
func TestStreamsEndWithTheirRights(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			second := *cfg
			other := startServer(t, &second)
			c, id := register(t, s, "owner@example.com")
			c.proven()
			silent, _ := silentServer(t)
			c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "mysql", "connectionString": "mysql://u:p@" + silent + "/d"},
				"Prefer", "wait=0").want(http.StatusAccepted)
			key := c.call("POST", "/api/stores/"+id+"/api-keys", object{"name": "Reader", "scopes": []string{"store:read"}}).want(http.StatusCreated)
			byKey := c
			byKey.token = key.text("key")
			for name, end := range map[string]struct {
				who client
				end func()
			}{
				"key": {byKey, func() {
					c.call("DELETE", "/api/stores/"+id+"/api-keys/"+key.text("id"), nil).want(http.StatusNoContent)
				}},
				"session": {c, func() { c.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent) }},
			} {
				if name == "session" {
					continue // tested last, since the owner's session is needed until then
				}
				endsAtOnce(t, name, end.who, id, other.URL, end.end)
			}
			endsAtOnce(t, "session", c, id, other.URL, func() { c.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent) })
		})
	}
}

func endsAtOnce(t *testing.T, name string, who client, id, elsewhere string, end func()) {
	t.Helper()
	there := who
	there.url = elsewhere
	streams := []*eventStream{who.events(id, ""), there.events(id, "")}
	for _, stream := range streams {
		if _, ok := stream.next(); !ok || stream.res.StatusCode != http.StatusOK {
			t.Fatalf("%s: the stream ended before its rights, status %d", name, stream.res.StatusCode)
		}
	}
	end()
	begun := time.Now()
	for _, stream := range streams {
		stream.rest()
	}
	if d := time.Since(begun); d > 5*time.Second { // a stream checks its caller at least every second; the rest is for a busy machine
		t.Errorf("%s: its streams went on for %v", name, d)
	}
}

// TestWriteOnlyKeys checks that a key that may change a store and not read it can
// change it, and that the answer omits what the key may not read.
func TestWriteOnlyKeys(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	c.proven()
	withScope := func(scope string) client {
		k := c
		k.token = c.call("POST", "/api/stores/"+id+"/api-keys", object{"name": scope, "scopes": []string{scope}}).want(http.StatusCreated).text("key")
		return k
	}
	database, profile := withScope("database:write"), withScope("store:write")
	empty := func(a answer) {
		t.Helper()
		if a.want(http.StatusNoContent).raw != "" {
			t.Errorf("it is told %s", a.raw)
		}
	}
	empty(database.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}))
	c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("active", "status")
	database.call("GET", "/api/stores/"+id, nil).problem(http.StatusForbidden, "forbidden")

	empty(profile.call("PATCH", "/api/stores/"+id, object{"description": "Olive oil"}))
	empty(profile.call("PATCH", "/api/stores/"+id, object{"name": "Renamed"}))
	c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("Olive oil", "profile", "description").is("Renamed", "name")
	profile.call("PATCH", "/api/stores/"+id, object{"currency": "none"}).problem(http.StatusUnprocessableEntity, "invalid_request")
	profile.call("GET", "/api/stores/"+id, nil).problem(http.StatusForbidden, "forbidden")
}

// TestWriteOnlyKeyRotates checks the same for a rotation of credentials.
func TestWriteOnlyKeyRotates(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		if engine == credential.SQLite {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			s := startServer(t, testConfig(t, masterdb.SQLite))
			c, id := register(t, s, "owner@example.com")
			c.proven()
			body := object{"type": string(engine), "connectionString": tenantdbtest.ConnectionString(t, engine)}
			c.call("POST", "/api/stores/"+id+"/connect-database", body).want(http.StatusOK)
			k := c
			k.token = c.call("POST", "/api/stores/"+id+"/api-keys", object{"name": "Rotation", "scopes": []string{"database:write"}}).want(http.StatusCreated).text("key")
			k.call("POST", "/api/stores/"+id+"/database/rotate-credentials", body).want(http.StatusNoContent)
		})
	}
}

// TestPrivateListenerChecksHost checks that the private listener refuses hostnames that
// anybody could control.
func TestPrivateListenerChecksHost(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.PrivateListen, cfg.PrivateHosts = "127.0.0.1:0", []string{"stoa.internal"}
	s := startServer(t, cfg)
	for host, want := range map[string]int{
		"127.0.0.1:9090": http.StatusOK, "[::1]:9090": http.StatusOK, "[::1]": http.StatusOK, "localhost": http.StatusOK, "stoa": http.StatusOK,
		"stoa.internal:9090": http.StatusOK, "STOA.internal": http.StatusOK,
		"evil.example": http.StatusMisdirectedRequest, "evil.example:9090": http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest,
		"stoa.internal.evil.example": http.StatusMisdirectedRequest,
	} {
		for _, path := range []string{"/metrics", "/health", "/ask?domain=x", "/debug/pprof/"} {
			got := client{t: t, url: s.PrivateURL}.call("GET", path, nil, "Host", host).status
			if refused := got == http.StatusMisdirectedRequest; refused != (want == http.StatusMisdirectedRequest) {
				t.Errorf("%s%s: %d, want %d", host, path, got, want)
			}
		}
	}
}

// TestHealthChecksAreBounded checks that the health checks of one address are limited,
// and that other requests do not count against that limit.
func TestHealthChecksAreBounded(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.RateLimitAddress = 5
	s := startServer(t, cfg)
	ask := func(path, from string) int {
		r := httptest.NewRequestWithContext(t.Context(), "GET", path, nil)
		r.Host, r.RemoteAddr = "localhost", from+":1"
		w := httptest.NewRecorder()
		s.HTTP.Handler.ServeHTTP(w, r)
		return w.Code
	}
	for range 50 {
		ask("/api/openapi.json", "192.0.2.1")
	}
	if got := ask("/readyz", "192.0.2.1"); got != http.StatusOK {
		t.Errorf("after other requests: %d", got)
	}
	refused := 0
	for i := range 2500 {
		if ask([]string{"/readyz", "/healthz"}[i%2], "192.0.2.1") == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 500 {
		t.Errorf("%d of 2500 checks were refused", refused)
	}
	if got := ask("/readyz", "192.0.2.2"); got != http.StatusOK {
		t.Errorf("another address: %d", got)
	}
}

// TestInternalNamesAreNotTold checks that an internal hostname gets the same answer as
// one that does not exist, whether or not a server listens there.
func TestInternalNamesAreNotTold(t *testing.T) {
	t.Parallel()
	s := startServer(t, productionConfig(t)) // loopback is not allowed in production
	c, id := register(t, s, "owner@example.com")
	silent, _ := silentServer(t)
	open := silent[strings.LastIndex(silent, ":"):]
	var first string
	for _, host := range []string{"localhost" + open, "localhost:1", "no-such-name.invalid" + open, "no-such-name.invalid:1"} {
		for _, kind := range []string{"postgresql", "mysql"} {
			a := c.call("POST", "/api/stores/"+id+"/database/test", object{"type": kind, "connectionString": kind + "://u:p@" + host + "/d"}).want(http.StatusOK)
			told := a.text("error", "code") + ": " + a.text("error", "message")
			if first == "" {
				first = told
			}
			if told != first || !strings.HasPrefix(told, "database_unreachable: The server's name is not known, or") {
				t.Errorf("%s by %s: %s, want %s", host, kind, told, first)
			}
		}
	}
}
