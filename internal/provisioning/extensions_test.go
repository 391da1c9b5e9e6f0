package provisioning

import (
	"os"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
)

// TestConnectWithExtensions checks that a database whose schema contains only objects of
// extensions is connected like an empty one.
func TestConnectWithExtensions(t *testing.T) {
	for name, env := range map[string]string{"PostgreSQL": tenantdbtest.PostgresEnv, "PostgreSQL 18": "STOA_TEST_POSTGRES18_URL"} {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(tenantdbtest.PostgresEnv, os.Getenv(env))
			b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))).start(t)
			p, s := b.store(t)
			c := credentials(t, credential.PostgreSQL)
			tenantdbtest.AdminIn(t, c.Database, `CREATE EXTENSION pg_stat_statements; CREATE EXTENSION pg_buffercache`,
				`CREATE TABLE spatial_ref_sys (srid integer PRIMARY KEY); ALTER EXTENSION pg_buffercache ADD TABLE spatial_ref_sys`)
			b.succeeded(t, p, b.connect(t, p, s.ID, c))
		})
	}
}
