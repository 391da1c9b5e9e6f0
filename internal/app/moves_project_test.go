package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMoveToSupabaseProject connects a Supabase account on the page of a move, moves the store
// into a project of it over the API, back, and there again from the page.
func TestMoveToSupabaseProject(t *testing.T) {
	t.Parallel()
	sb := supabasetest.New(t, supabasetest.Options{})
	w := newStoreWorld(t, supabaseConfig(t, masterdb.SQLite, sb))
	project, err := sb.AddProject(t.Context(), sb.Organization, "Shop")
	testkit.Must(t, err)
	theirs, err := sb.AddProject(t.Context(), sb.AddOrganization("Somebody else"), "Theirs")
	testkit.Must(t, err)
	page, moves := w.base+"/moves", "/api/stores/"+w.id+"/moves"
	to := func(ref string) object { return object{"database": object{"type": "supabase", "projectRef": ref}} }
	w.api.call("POST", moves, to(project.Ref)).problem(http.StatusConflict, "supabase_not_connected")

	w.owner.get(page+"/new").shows(t, http.StatusOK, "To a Supabase project of yours", "Choose a project")
	w.owner.get(page+"/new?kind=supabase").shows(t, http.StatusOK, "Connect your Supabase account", "Go on at Supabase")
	asked := w.owner.post(w.base+"/connect/supabase", url.Values{"for": {"move"}})
	if asked.Status != http.StatusSeeOther {
		t.Fatalf("to Supabase: %d %s", asked.Status, mainText(asked.Body))
	}
	w.owner.get(back(t, sb.Approve(t, asked.Location))).leadsTo(t, "/supabase/connected")
	w.owner.get("/supabase/connected").leadsTo(t, page+"/new?kind=supabase")
	w.owner.get(page+"/new?kind=supabase").shows(t, http.StatusOK, "Which project?", "Shop", "Move to this project").lacks(t, "Theirs", "A new project")

	w.api.call("POST", moves, to(theirs.Ref)).problem(http.StatusUnprocessableEntity, "invalid_request")
	w.api.call("POST", moves, object{"database": object{"type": "postgresql", "projectRef": project.Ref}}).problem(http.StatusUnprocessableEntity, "invalid_request")
	stranger, _ := register(t, w.server, "mallory@example.com")
	stranger.call("POST", moves, to(project.Ref)).problem(http.StatusNotFound, "store_not_found")
	m := w.api.call("POST", moves, to(project.Ref)).want(http.StatusAccepted)
	m.is("supabase", "to", "type")
	path := moves + "/" + m.text("id")
	w.awaitMove(t, path, "kept")
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is("supabase", "database", "type")
	w.api.call("GET", "/api/stores/"+w.id+"/supabase/connection", nil).want(http.StatusOK).is(project.Ref, "projectRef")
	w.api.call("POST", path+"/rollback", nil).want(http.StatusAccepted)
	w.awaitMove(t, path, "rolled_back")

	w.owner.post(page, url.Values{"kind": {"supabase"}}).shows(t, http.StatusUnprocessableEntity, "choose a project")
	w.owner.post(page, url.Values{"kind": {"supabase"}, "project": {theirs.Ref}}).shows(t, http.StatusUnprocessableEntity, "not one of the connected account", "Which project?")
	started := w.owner.post(page, url.Values{"kind": {"supabase"}, "project": {project.Ref}})
	if started.Status != http.StatusSeeOther {
		t.Fatalf("the move does not start: %d %s", started.Status, mainText(started.Body))
	}
	testkit.Eventually(t, testkit.Timeout, "the move is kept", func() bool { return strings.Contains(w.owner.get(started.Location).Body, "Can be moved back") })
	w.api.call("GET", "/api/stores/"+w.id, nil).want(http.StatusOK).is("supabase", "database", "type")
}

// awaitMove waits until a move is in a state.
func (w *storeWorld) awaitMove(t *testing.T, path, state string) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "the move is "+state, func() bool {
		now := w.api.call("GET", path, nil).want(http.StatusOK)
		if at := now.text("state"); at == "failed" {
			t.Fatalf("the move has failed: %s", now.raw)
		}
		return now.text("state") == state
	})
}
