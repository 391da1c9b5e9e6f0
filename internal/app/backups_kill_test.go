package app_test

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestBackupsSurviveKills kills a server at many moments of a backup and of a restore. The
// next server completes both: the archive is good, and the store has either the rows of the
// archive that was restored or those of before.
func TestBackupsSurviveKills(t *testing.T) {
	t.Parallel()
	points := 25 // of each master
	if testing.Short() {
		points = 3
	}
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			p := startProcess(t, cfg)
			owner, _ := register(t, serverAt(p.url), "owner@example.com")
			id := owner.call("POST", "/api/stores", object{"name": "Shop"}).want(http.StatusCreated).text("id")
			owner.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
			describe := func(text string) {
				owner.call("PATCH", "/api/stores/"+id, object{"description": text}).want(http.StatusOK)
			}
			describe("archived")
			base := "/api/stores/" + id + "/backups"
			first := owner.call("POST", base, nil).want(http.StatusAccepted).text("id")
			owner.archived(id, first)
			for i := range points {
				present := fmt.Sprintf("present %d", i)
				describe(present)
				made := owner.call("POST", base, nil).want(http.StatusAccepted).text("id")
				owner.call("POST", base+"/"+first+"/restore", nil).want(http.StatusAccepted)
				<-time.After(time.Duration(i) * 400 * time.Millisecond / time.Duration(points))
				p.kill()
				p = startProcess(t, cfg)
				owner.url = p.url
				restored := owner.restored(id)
				want := "archived"
				if restored.text("state") == "failed" {
					want = present
				}
				t.Logf("killed at point %d: the restore has %s", i, restored.text("state"))
				owner.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is(want, "profile", "description")
				owner.archived(id, made).is("passed", "check", "state")
				if saved := restored.text("savedId"); saved != "" {
					owner.archived(id, saved).is("passed", "check", "state")
				}
			}
		})
	}
}
