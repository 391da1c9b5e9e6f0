package app_test

import (
	"net/http"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestIfMatch checks that a change which names the version that was read does not
// overwrite another's change.
func TestIfMatch(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id, _ := connected(t, s, "ada@example.com")
	path := "/api/stores/" + id
	tag := c.call("GET", path, nil, "Accept-Encoding", "identity").want(http.StatusOK).header.Get("ETag")
	if len(tag) != 55 || tag[0] != '"' {
		t.Fatalf("ETag %q", tag)
	}
	changed := c.call("PATCH", path, object{"city": "Wien"}, "If-Match", tag).want(http.StatusOK)
	next := changed.header.Get("ETag")
	if read := c.call("GET", path, nil, "Accept-Encoding", "identity").header.Get("ETag"); next == tag || next != read {
		t.Errorf("ETag %s before, %s after the change, %s read", tag, next, read)
	}
	for header, want := range map[string]int{
		tag: http.StatusPreconditionFailed, "W/" + next: http.StatusPreconditionFailed, `"x", ` + tag: http.StatusPreconditionFailed,
		"x": http.StatusUnprocessableEntity, `""`: http.StatusUnprocessableEntity, `"`: http.StatusUnprocessableEntity, ",": http.StatusUnprocessableEntity,
		next: http.StatusOK, "*": http.StatusOK, `"x" , ` + next: http.StatusOK,
	} {
		got := c.call("PATCH", path, object{"city": "Wien"}, "If-Match", header)
		if got.status != want {
			t.Errorf("If-Match %s: %d, want %d: %s", header, got.status, want, got.raw)
		}
		if want == http.StatusPreconditionFailed {
			got.problem(want, "edit_conflict")
		}
	}
	c.call("PATCH", path, object{"city": "Graz"}).want(http.StatusOK)
	c.call("PATCH", path, object{"city": "Linz"}, "If-Match", next).problem(http.StatusPreconditionFailed, "edit_conflict")
	c.call("GET", path, nil).is("Graz", "profile", "city")
}

// TestEditableResources checks ETag, If-None-Match and If-Match of all that is edited as a
// whole.
func TestEditableResources(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "ada@example.com")
		recharge := func(credits int) object {
			return object{"enabled": false, "threshold": "10", "credits": credits, "monthlyCap": "10000"}
		}
		daily := func(n int) object { return object{"hourly": 0, "daily": n, "weekly": 0, "monthly": 0} }
		for _, r := range []struct {
			method, path string
			bodies       [3]any
		}{
			{"PATCH", "/api/auth/me", [3]any{object{"firstName": "Countess"}, object{"firstName": "Augusta"}, object{"firstName": "Byron"}}},
			{"PUT", "/api/credits/settings", [3]any{object{"lowBalanceThreshold": "5"}, object{"lowBalanceThreshold": nil}, object{"lowBalanceThreshold": "7"}}},
			{"PUT", "/api/credits/auto-recharge", [3]any{recharge(100), recharge(200), recharge(300)}},
			{"PUT", "/api/stores/" + id + "/backup-schedule", [3]any{daily(3), daily(4), daily(5)}},
			{"DELETE", "/api/stores/" + id + "/backup-schedule", [3]any{nil, nil, nil}},
		} {
			read := func() string { return c.call("GET", r.path, nil).want(http.StatusOK).header.Get("ETag") }
			first := read()
			unchanged := c.call("GET", r.path, nil, "If-None-Match", first).want(http.StatusNotModified)
			if unchanged.raw != "" || unchanged.header.Get("ETag") != first || first == "" {
				t.Errorf("%s: %s, %q, %v", r.path, first, unchanged.raw, unchanged.header)
			}
			changed := c.call(r.method, r.path, r.bodies[0], "If-Match", first).want(http.StatusOK).header.Get("ETag")
			if second := read(); changed == "" || second == first || r.path != "/api/auth/me" && second != changed {
				t.Errorf("%s: %s, then %s, read %s", r.path, first, changed, second)
			}
			c.call("GET", r.path, nil, "If-None-Match", first).want(http.StatusOK)
			c.call(r.method, r.path, r.bodies[1], "If-Match", first).problem(http.StatusPreconditionFailed, "edit_conflict")
			c.call(r.method, r.path, r.bodies[1], "If-Match", "x").problem(http.StatusUnprocessableEntity, "invalid_request")
			c.call(r.method, r.path, r.bodies[1], "If-Match", read()).want(http.StatusOK)
			c.call(r.method, r.path, r.bodies[2], "If-Match", "*").want(http.StatusOK)
			c.call(r.method, r.path, r.bodies[2]).want(http.StatusOK)
		}
	})
}

// TestCompressedAnswers checks that a long list is compressed, and that its ETag is one of the
// form that was sent.
func TestCompressedAnswers(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "ada@example.com")
	for _, name := range []string{"One", "Two"} {
		c.call("POST", "/api/stores", object{"name": name}).want(http.StatusCreated)
	}
	for _, coding := range []string{"gzip", "zstd"} {
		packed := c.call("GET", "/api/stores", nil, "Accept-Encoding", coding).want(http.StatusOK)
		plain := c.call("GET", "/api/stores", nil, "Accept-Encoding", "identity").want(http.StatusOK)
		if packed.header.Get("Content-Encoding") != coding || plain.header.Get("Content-Encoding") != "" || len(packed.raw)*2 > len(plain.raw) {
			t.Errorf("%s: %d bytes of %d, %v", coding, len(packed.raw), len(plain.raw), packed.header)
		}
		if a, b := packed.header.Get("ETag"), plain.header.Get("ETag"); a == b || a[:len(b)-1] != b[:len(b)-1] {
			t.Errorf("%s: ETag %s and %s", coding, a, b)
		}
		c.call("GET", "/api/stores", nil, "If-None-Match", packed.header.Get("ETag")).want(http.StatusNotModified)
	}
	// A compressed form's ETag is one of the version, too.
	store := c.call("GET", "/api/credits/settings?storeId="+id, nil, "Accept-Encoding", "gzip").want(http.StatusOK)
	c.call("PUT", "/api/credits/settings?storeId="+id, object{"lowBalanceThreshold": "5"}, "If-Match", store.header.Get("ETag")).want(http.StatusOK)
}
