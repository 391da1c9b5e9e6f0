package tenantdb_test

import (
	"os"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// schemasOf returns the names of the schemas that contain a store's tables.
func schemasOf(t *testing.T, db *tenantdb.DB) (schemas []string) {
	t.Helper()
	testkit.Must(t, db.Select(t.Context(), &schemas, `SELECT n.nspname::text FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relname = 'stores' ORDER BY 1`))
	return schemas
}

// TestSchemaOfCredentials checks that the tables are created in the schema of
// the connection string, whether it exists or must be created.
func TestSchemaOfCredentials(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"public", "shop", "Shop-2"} {
		for _, exists := range []bool{false, true} {
			c := tenantdbtest.Create(t, credential.PostgreSQL)
			if exists && name != "public" {
				tenantdbtest.Exec(t, c, `CREATE SCHEMA "`+name+`"`)
			}
			tenantdbtest.Exec(t, c, `CREATE SCHEMA other`, `ALTER ROLE `+c.User+` SET search_path = other`) // the user's default schema is another one
			c.Schema = name
			testkit.Must(t, c.Validate())
			db := tenantdbtest.Open(t, c)
			in, err := db.Inspect(t.Context())
			testkit.Must(t, err)
			if !in.MayCreate || len(in.Tables) != 0 {
				t.Errorf("%s: %+v", name, in)
			}
			testkit.Must(t, db.EnsureSchema(t.Context()))
			testkit.Must(t, db.EnsureSchema(t.Context()))
			_, err = db.Migrate(t.Context())
			testkit.Must(t, err)
			if got := schemasOf(t, db); len(got) != 1 || got[0] != name {
				t.Errorf("tables in %v, want %s", got, name)
			}
		}
	}
}

func TestSchemaMissing(t *testing.T) {
	t.Parallel()
	c := tenantdbtest.Guest(t, tenantdbtest.Create(t, credential.PostgreSQL))
	c.Schema = "shop"
	_, err := tenantdbtest.Open(t, c).Inspect(t.Context())
	checkFault(t, err, stoa.DatabasePermissionDenied, c)
	checkFault(t, tenantdbtest.Open(t, c).EnsureSchema(t.Context()), stoa.DatabasePermissionDenied, c)
	// A transaction pooler accepts no search_path. Stoa checks which one is in
	// effect.
	c = tenantdbtest.Create(t, credential.PostgreSQL)
	c.Schema, c.Pooler = "shop", credential.TransactionPooler
	_, err = tenantdbtest.Open(t, c).Inspect(t.Context())
	checkFault(t, err, stoa.DatabasePermissionDenied, c)
}

// TestEndpointIsLeftOutElsewhere checks that servers other than Neon's, which
// accept no endpoint, can be reached with one in the credentials.
func TestEndpointIsLeftOutElsewhere(t *testing.T) {
	t.Parallel()
	created := []credential.Credentials{tenantdbtest.Create(t, credential.PostgreSQL)}
	if os.Getenv(tenantdbtest.PgBouncerEnv) != "" {
		c := tenantdbtest.Create(t, credential.Supabase)
		c.Kind = credential.KindPostgreSQL
		created = append(created, c)
	}
	for i, c := range created {
		c.Endpoint = "ep-cool-name-123456"
		testkit.Must(t, c.Validate())
		testkit.Must(t, tenantdbtest.Open(t, c).Ping(t.Context()))
		if i > 0 {
			continue // a pooler reports an unknown user in its own way
		}
		c.User += "_no"
		checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), stoa.DatabaseAuthFailed, c)
	}
}
