package app_test

import (
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
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
	w.owner.get(page).says(t, "no moves", http.StatusOK, "No moves yet")
	w.owner.get(page+"/new").says(t, "the form", http.StatusOK, "SQLite, embedded in the platform")
	w.owner.get(page+"/new").lacks(t, "PostgreSQL, on the platform") // it would be the database of now

	w.owner.post(page, url.Values{}).says(t, "nothing", http.StatusUnprocessableEntity, "Is needed")
	w.owner.post(page, url.Values{"managed": {"oracle"}}).says(t, "an unknown engine", http.StatusUnprocessableEntity, "no server of this engine")
	w.owner.post(page+"/check", url.Values{"connectionString": {"postgres://u:hunter22@127.0.0.1:1/d"}, "host": {"kept.example.com"}}).lacks(t, "hunter22")
	for _, path := range []string{page, page + "/check"} {
		w.owner.post(path, url.Values{"password": {"hunter22"}, "host": {"kept.example.com"}, "port": {"x"}}).shows(t, http.StatusUnprocessableEntity, "kept.example.com", "Must be a number").lacks(t, "hunter22")
	}
	w.owner.post(page+"/check", url.Values{"connectionString": {"postgres://u:hunter22@127.0.0.1:1/d"}}).
		shows(t, http.StatusUnprocessableEntity, "What was understood", "127.0.0.1", "given", "notice danger", "Check again").lacks(t, "hunter22", "Move the store to this database")

	await := func(at, text string) {
		t.Helper()
		testkit.Eventually(t, testkit.Timeout, text, func() bool {
			body := w.owner.get(at).Body
			if strings.Contains(body, ">Failed<") || strings.Contains(body, "notice danger") {
				t.Fatalf("the move has failed: %s", mainText(body))
			}
			return strings.Contains(body, text)
		})
	}
	started := w.owner.post(page, url.Values{"managed": {"sqlite"}})
	if started.Status != http.StatusSeeOther {
		t.Fatalf("the move does not start: %d %s", started.Status, mainText(started.Body))
	}
	at := started.Location
	w.owner.post(page, url.Values{"managed": {"sqlite"}}).says(t, "another move", http.StatusUnprocessableEntity, "being moved")
	await(at, "Can be moved back")
	live := w.owner.get(at + "/live")
	if !strings.Contains(live.Body, "event: done") || !strings.Contains(live.Body, "Changes waited") {
		t.Errorf("the live part: %d %.500s", live.Status, live.Body)
	}
	// A stream that begins again is sent what it has not seen.
	last := live.Body[strings.LastIndex(live.Body, "id: ")+len("id: "):]
	last, _, _ = strings.Cut(last, "\n")
	again := w.owner.send(http.MethodGet, at+"/live", nil, http.Header{"Last-Event-Id": {last}})
	if !strings.Contains(again.Body, "event: done") || strings.Contains(again.Body, "Changes waited") {
		t.Errorf("the live part again: %d %.500s", again.Status, again.Body)
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
	testkit.Eventually(t, testkit.Timeout, "the move has ended", func() bool {
		body := w.owner.get(at).Body
		return strings.Contains(body, "Moved") && !strings.Contains(body, "Can be moved back") && !strings.Contains(body, "Remove what the move")
	})
	w.owner.get(page).says(t, "the list", http.StatusOK, "Moved back")
	w.owner.get(w.base+"/database").says(t, "the database", http.StatusOK, page)

	// From the embedded database to the platform's server, and back.
	w.owner.get(page+"/new").shows(t, http.StatusOK, "PostgreSQL, on the platform").lacks(t, "SQLite, embedded")
	at = w.owner.post(page, url.Values{"managed": {"postgresql"}}).Location
	await(at, "Can be moved back")
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is(string(credential.PostgreSQL), "database", "engine")
	w.owner.post(at+"/rollback", url.Values{}).leadsTo(t, at)
	await(at, "Moved back")
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is(string(credential.SQLite), "database", "engine")

	// A database with tables of somebody else is no target.
	taken := tenantdbtest.ConnectionString(t, credential.PostgreSQL)
	other, err := credential.ParseConnectionString(credential.PostgreSQL, secretOf(taken))
	testkit.Must(t, err)
	tenantdbtest.Exec(t, other, `CREATE TABLE theirs (id integer PRIMARY KEY)`)
	w.owner.post(page+"/check", url.Values{"connectionString": {taken}}).
		shows(t, http.StatusUnprocessableEntity, "What was understood", "notice danger").lacks(t, "Move the store to this database")

	// To a database of the owner's own, with what was understood shown first.
	own := tenantdbtest.ConnectionString(t, credential.PostgreSQL)
	address, err := url.Parse(own)
	testkit.Must(t, err)
	password, _ := address.User.Password()
	checked := w.owner.post(page+"/check", url.Values{"connectionString": {own}}).
		shows(t, http.StatusOK, "What was understood", address.Hostname(), strings.TrimPrefix(address.Path, "/"), "Move the store to this database").lacks(t, password)
	started = w.owner.post(page, url.Values{"sealed": {checked.hidden("sealed")}})
	if started.Status != http.StatusSeeOther {
		t.Fatalf("the move does not start: %d %s", started.Status, mainText(started.Body))
	}
	at = started.Location
	await(at, "Can be moved back")
	w.owner.get(at).shows(t, http.StatusOK, address.Hostname()).lacks(t, password)
	w.owner.post(at+"/rollback", url.Values{}).leadsTo(t, at)
	await(at, "Moved back")
}
