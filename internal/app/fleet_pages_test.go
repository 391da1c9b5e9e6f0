package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestFleetPages walks the fleet's pages as an operator, with a store whose name is
// hostile, and checks that others see none of them.
func TestFleetPages(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	owner := signUpInBrowser(t, s, "ada@example.com")
	const hostile = `"><script>alert(1)</script>`
	path := owner.newStore("Corner Shop")
	owner.newStore(hostile)
	op := signUpInBrowser(t, s, "op@example.com")
	testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE users SET role = 'admin' WHERE email = 'op@example.com'`)
		return err
	}))
	slug := strings.TrimPrefix(path, "/stores/")
	var id string
	testkit.Must(t, s.Master.Get(t.Context(), &id, `SELECT id FROM stores WHERE slug = $1`, slug))
	one := "/operator/bulk?action=suspend&store=" + id
	for page, want := range map[string]string{
		"/operator":                          "Schema versions",
		"/operator/stores":                   slug,
		"/operator/stores?q=corner":          slug,
		"/operator/stores?q=ada@example.com": slug,
		"/operator/stores?q=nothing":         "No store matches",
		"/operator/stores/" + slug:           "ada@example.com",
		"/operator/servers":                  "Databases open",
		"/operator/system":                   "Run the checks",
		one:                                  "suspend 1",
	} {
		got := op.get(page)
		if got.Status != http.StatusOK || !strings.Contains(got.Body, want) || strings.Contains(got.Body, "<script>alert") {
			t.Errorf("%s: %d, want a page with %q\n%.3000s", page, got.Status, want, got.Body)
		}
		if got := owner.get(page); got.Status != http.StatusForbidden {
			t.Errorf("%s for an owner: %d, want 403", page, got.Status)
		}
		if got := newBrowserClient(t, s).get(page); got.Status != http.StatusSeeOther {
			t.Errorf("%s without a session: %d, want the sign-in", page, got.Status)
		}
	}
	if got := op.get("/operator/stores?status=open&q=" + url.QueryEscape(hostile)); got.Status != http.StatusUnprocessableEntity || strings.Contains(got.Body, "<script>alert") {
		t.Errorf("an invalid filter: %d, want 422 with the values escaped", got.Status)
	}
	form := url.Values{"action": {"suspend"}, "store": {id}, "confirm": {"yes"}}
	if got := op.post("/operator/bulk", form); got.Status != http.StatusUnprocessableEntity || !strings.Contains(got.Body, "suspend 1") {
		t.Errorf("without the confirmation: %d, want 422", got.Status)
	}
	form.Set("confirm", "suspend 1")
	if got := owner.post("/operator/bulk", form); got.Status != http.StatusForbidden {
		t.Errorf("an owner suspends: %d, want 403", got.Status)
	}
	begun := op.post("/operator/bulk", form)
	if got := op.get(begun.Location); begun.Status != http.StatusSeeOther || got.Status != http.StatusOK || !strings.Contains(got.Body, "Suspend stores") {
		t.Errorf("suspend: %d to %q: %d", begun.Status, begun.Location, got.Status)
	}
	if got := op.post("/operator/system/check", nil); got.Status != http.StatusSeeOther {
		t.Errorf("the checks: %d\n%.2000s", got.Status, got.Body)
	}
	if got := op.get("/operator/system"); !strings.Contains(got.Body, "data directory") {
		t.Errorf("the system's page after the checks: %d\n%.3000s", got.Status, got.Body)
	}
}
