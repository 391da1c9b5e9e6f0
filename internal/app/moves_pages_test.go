package app_test

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestMoveInTheConsole moves a store to another database and back, and again with the old
// one given up, as an owner does in a browser, with what they may do wrong.
func TestMoveInTheConsole(t *testing.T) {
	t.Parallel()
	raw := os.Getenv(tenantdbtest.PostgresEnv)
	if raw == "" {
		t.Skip("there is no server for managed databases")
	}
	w, _ := newManagedWorld(t, raw)
	page := w.base + "/moves"
	w.forgetAuthentication(t)
	w.owner.get(page+"/new").leadsTo(t, "/reauthenticate?next="+url.QueryEscape(page+"/new"))
	w.reauthenticate()
	w.owner.get(page).says(t, "no moves", http.StatusOK, "Not moved yet")
	w.owner.get(page+"/new").says(t, "the form", http.StatusOK, "SQLite, embedded in the platform")

	w.owner.post(page, url.Values{}).says(t, "nothing", http.StatusUnprocessableEntity, "Is needed")
	w.owner.post(page, url.Values{"managed": {"oracle"}}).says(t, "an unknown engine", http.StatusUnprocessableEntity, "no server of this engine")
	w.owner.post(page, url.Values{"connectionString": {"postgres://u:hunter22@127.0.0.1:1/d"}}).says(t, "a server that does not answer", http.StatusUnprocessableEntity, "notice danger")
	if got := w.owner.post(page, url.Values{"connectionString": {"postgres://u:hunter22@127.0.0.1:1/d"}, "host": {"kept.example.com"}}); strings.Contains(got.Body, "hunter22") {
		t.Error("the password is sent back")
	}

	await := func(at, text string) {
		t.Helper()
		eventually(t, text, func() bool { return strings.Contains(w.owner.get(at).Body, text) })
	}
	started := w.owner.post(page, url.Values{"managed": {"sqlite"}})
	if started.Status != http.StatusSeeOther {
		t.Fatalf("the move does not start: %d %s", started.Status, mainText(started.Body))
	}
	at := started.Location
	w.owner.post(page, url.Values{"managed": {"sqlite"}}).says(t, "another move", http.StatusUnprocessableEntity, "being moved")
	await(at, "Can be moved back")
	if live := w.owner.get(at + "/live"); !strings.Contains(live.Body, "event: done") || !strings.Contains(live.Body, "Writers waited") {
		t.Errorf("the live part: %d %.500s", live.Status, live.Body)
	}
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is(string(credential.SQLite), "database", "engine")
	w.owner.post(at+"/abort", url.Values{}).says(t, "too late to abort", http.StatusUnprocessableEntity, "Roll it back instead")
	w.owner.get(at+"/rollback").says(t, "the question", http.StatusOK, "Move it back")
	w.owner.post(at+"/rollback", url.Values{}).leadsTo(t, at)
	await(at, "Moved back")
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is(string(credential.PostgreSQL), "database", "engine")

	at = w.owner.post(page, url.Values{"managed": {"sqlite"}}).Location
	await(at, "Can be moved back")
	w.owner.post(at+"/finish", url.Values{}).leadsTo(t, at)
	eventually(t, "the move has ended", func() bool {
		body := w.owner.get(at).Body
		return strings.Contains(body, "Moved") && !strings.Contains(body, "Can be moved back") && !strings.Contains(body, "Remove what the move")
	})
	w.owner.get(page).says(t, "the list", http.StatusOK, "Moved back")
	w.owner.get(w.base+"/database").says(t, "the database", http.StatusOK, page)
}
