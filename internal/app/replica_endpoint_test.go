package app_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestReplicaIsNamed checks that an owner who pastes the address of a standby gets an
// error that says so. Nothing is written, and no run hangs.
func TestReplicaIsNamed(t *testing.T) {
	t.Parallel()
	own := newOwnPostgres(t)
	own.stop()
	signal := filepath.Join(own.data(), "standby.signal")
	if err := os.WriteFile(signal, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	own.give(signal)
	own.start()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, store := register(t, s, "owner@example.com")
	given := object{"type": "postgresql", "connectionString": own.url()}
	tested := c.call("POST", "/api/stores/"+store+"/database/test", given).want(http.StatusOK).
		is(false, "ok").is("database_permission_denied", "error", "code")
	connect := c.call("POST", "/api/stores/"+store+"/connect-database", given).problem(http.StatusUnprocessableEntity, "database_permission_denied")
	for _, message := range []string{tested.text("error", "message"), connect.text("detail")} {
		if !strings.Contains(message, "replica") {
			t.Errorf("it says %q", message)
		}
	}
	c.call("GET", "/api/stores/"+store, nil).want(http.StatusOK).is("pending_database", "status")
}
