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
	tag := c.call("GET", path, nil).want(http.StatusOK).header.Get("ETag")
	if len(tag) != 34 || tag[0] != '"' {
		t.Fatalf("ETag %q", tag)
	}
	changed := c.call("PATCH", path, object{"city": "Wien"}, "If-Match", tag).want(http.StatusOK)
	next := changed.header.Get("ETag")
	if read := c.call("GET", path, nil).header.Get("ETag"); next == tag || next != read {
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
