package app_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// archived waits until an archive is complete and checked.
func (c client) archived(store, backup string) answer {
	c.t.Helper()
	var got answer
	testkit.Eventually(c.t, testkit.Timeout, "the archive is complete and checked", func() bool {
		got = c.call("GET", "/api/stores/"+store+"/backups/"+backup, nil).want(http.StatusOK)
		if got.text("state") == "failed" {
			c.t.Fatalf("the archive failed: %s", got.raw)
		}
		return got.text("state") == "succeeded" && got.text("check", "state") != "queued"
	})
	return got
}

// restored waits for the end of the last restore into a store.
func (c client) restored(store string) answer {
	c.t.Helper()
	var got answer
	testkit.Eventually(c.t, testkit.Timeout, "the restore has ended", func() bool {
		got = c.call("GET", "/api/stores/"+store+"/backups/restore", nil).want(http.StatusOK)
		return got.text("state") == "succeeded" || got.text("state") == "failed"
	})
	return got
}

// TestBackupsOverTheAPI is the journey of an owner: archive, change, restore, download,
// upload, clone, and what they can do wrong.
func TestBackupsOverTheAPI(t *testing.T) {
	t.Parallel()
	onMasters(t, shortOn(masterdb.Postgres), func(t *testing.T, s *server) {
		owner, id, _ := connected(t, s, "owner@example.com")
		base := "/api/stores/" + id + "/backups"
		made := owner.call("POST", base, nil).want(http.StatusAccepted)
		backup := made.text("id")
		if made.header.Get("Location") != base+"/"+backup {
			t.Errorf("Location %q", made.header.Get("Location"))
		}
		owner.archived(id, backup).is("passed", "check", "state").is(true, "check", "restored").is(id, "source", "storeId")
		owner.call("PATCH", "/api/stores/"+id, object{"description": "Changed"}).want(http.StatusOK)
		if r := owner.call("POST", base+"/"+backup+"/restore", nil).want(http.StatusAccepted); !strings.HasSuffix(r.header.Get("Location"), "/backups/restore") {
			t.Errorf("Location %q", r.header.Get("Location"))
		}
		if restored := owner.restored(id).is("succeeded", "state"); restored.text("savedId") == "" {
			t.Error("what was there before is not archived")
		}
		owner.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("", "profile", "description")

		const passphrase = "correct horse battery"
		file := owner.call("POST", base+"/"+backup+"/download", object{"passphrase": passphrase}).want(http.StatusOK)
		if !strings.HasPrefix(file.raw, "age-encryption.org/v1") || !strings.Contains(file.header.Get("Content-Disposition"), "attachment") {
			t.Errorf("the file begins with %q: %v", file.raw[:min(len(file.raw), 40)], file.header)
		}
		up := owner.call("POST", base+"/upload", file.raw, "Content-Type", "application/octet-stream", "Stoa-Archive-Passphrase", passphrase).want(http.StatusCreated).is("upload", "origin")
		owner.archived(id, up.text("id")).is("passed", "check", "state")
		owner.call("POST", base+"/upload", file.raw[:len(file.raw)/2], "Stoa-Archive-Passphrase", passphrase).problem(http.StatusUnprocessableEntity, "archive_damaged")
		owner.call("POST", base+"/upload", file.raw, "Stoa-Archive-Passphrase", "another passphrase").problem(http.StatusUnprocessableEntity, "archive_key_unknown")
		owner.call("POST", base+"/upload", file.raw).problem(http.StatusUnprocessableEntity, "invalid_request")
		owner.call("POST", base+"/"+backup+"/download", object{"passphrase": "short"}).problem(http.StatusUnprocessableEntity, "invalid_request")

		clone := owner.call("POST", base+"/"+backup+"/clone", object{"name": "Copy", "without": []string{"customers"}}, "Idempotency-Key", "k1").want(http.StatusAccepted)
		owner.restored(clone.text("storeId")).is("succeeded", "state")
		owner.call("GET", "/api/stores/"+clone.text("storeId"), nil).want(http.StatusOK).is("Copy", "profile", "name").is("active", "status")

		owner.call("GET", "/api/stores/"+id+"/backup-schedule", nil).want(http.StatusOK).is(false, "own")
		own := object{"hourly": 24, "daily": 7, "weekly": 0, "monthly": 0}
		owner.call("PUT", "/api/stores/"+id+"/backup-schedule", own).want(http.StatusOK).is(true, "own")
		own["hourly"] = 1001
		owner.call("PUT", "/api/stores/"+id+"/backup-schedule", own).problem(http.StatusUnprocessableEntity, "invalid_request")
		owner.call("DELETE", "/api/stores/"+id+"/backup-schedule", nil).want(http.StatusOK).is(false, "own")

		owner.call("POST", base+"/"+uuid.NewString()+"/restore", nil).problem(http.StatusNotFound, "not_found")
		owner.call("GET", base+"/no-id", nil).problem(http.StatusNotFound, "not_found")
		owner.call("DELETE", base+"/"+backup, nil).want(http.StatusNoContent)
		owner.call("GET", base+"/"+backup, nil).problem(http.StatusNotFound, "not_found")
	})
}
