package tenantdb_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPostgresIgnoresEnvironment checks that a connection uses the host of the
// credentials and Stoa's parameters, whatever the process's environment
// contains.
func TestPostgresIgnoresEnvironment(t *testing.T) { //nolint:paralleltest // it sets the environment
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	service := filepath.Join(t.TempDir(), "service.conf")
	testkit.Must(t, os.WriteFile(service, []byte("[evil]\nhost=192.0.2.1\nuser=evil\ndbname=evil\nsslmode=require\n"+
		"default_query_exec_mode=simple_protocol\nsearch_path=evil\nkrbspn=evil\n"), 0o600))
	home := t.TempDir()
	testkit.Must(t, os.Mkdir(filepath.Join(home, ".postgresql"), 0o700))
	for _, name := range []string{".pgpass", ".pg_service.conf", ".postgresql/root.crt", ".postgresql/postgresql.crt", ".postgresql/postgresql.key"} {
		testkit.Must(t, os.WriteFile(filepath.Join(home, name), []byte("*:*:*:*:evil\n[evil]\n"), 0o600))
	}
	for name, value := range map[string]string{
		"HOME": home, "PGHOST": "192.0.2.1", "PGPORT": "1", "PGDATABASE": "evil", "PGUSER": "evil", "PGPASSWORD": "evil", "PGPASSFILE": service,
		"PGAPPNAME": "evil", "PGCONNECT_TIMEOUT": "evil", "PGSSLMODE": "verify-full", "PGSSLKEY": "/evil", "PGSSLCERT": "/evil",
		"PGSSLCERTMODE": "require", "PGSSLSNI": "evil", "PGSSLROOTCERT": "/evil", "PGSSLPASSWORD": "evil", "PGSSLNEGOTIATION": "direct",
		"PGTARGETSESSIONATTRS": "standby", "PGSERVICE": "evil", "PGSERVICEFILE": service, "PGTZ": "Asia/Tokyo",
		"PGOPTIONS": "-c search_path=evil -c work_mem=65kB", "PGMINPROTOCOLVERSION": "evil", "PGMAXPROTOCOLVERSION": "evil",
		"PGCHANNELBINDING": "require", "PGREQUIREAUTH": "gss",
	} {
		t.Setenv(name, value)
	}
	db := tenantdbtest.Open(t, c)
	testkit.Must(t, db.Ping(t.Context()))
	var who string
	testkit.Must(t, db.Get(t.Context(), &who, `SELECT current_user || '@' || current_database()`))
	if want := c.User + "@" + c.Database; who != want {
		t.Errorf("connected as %s, want %s", who, want)
	}
	var ours []string
	testkit.Must(t, db.Select(t.Context(), &ours, `SELECT name || '=' || setting FROM pg_settings WHERE source = 'client' ORDER BY name`))
	want := new(tenantdb.SessionState).Startup()
	slices.Sort(want)
	slices.Sort(ours)
	if diff := cmp.Diff(want, ours); diff != "" {
		t.Error(diff)
	}
}
