package tenantdb_test

import (
	"crypto/rand"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestRoleStatementWithoutInheritance checks that a user who may create roles
// and does not inherit from them can create a store's role and schema, if the
// server allows that.
func TestRoleStatementWithoutInheritance(t *testing.T) {
	tenantdbtest.EachPostgres(t, func(t *testing.T) {
		c := tenantdbtest.Create(t, credential.PostgreSQL)
		role := tenantdb.SupabaseRole(stoa.NewID[stoa.StoreID]())
		name := "stoa_t_" + strings.ToLower(rand.Text()[:14])
		inherit := "NOINHERIT"
		if name := t.Name(); strings.HasSuffix(name, "/PostgreSQL") { // PostgreSQL 15: the user must inherit
			inherit = "INHERIT"
		}
		tenantdbtest.AdminIn(t, c.Database, `CREATE ROLE `+name+` LOGIN CREATEROLE PASSWORD 'p' `+inherit, `GRANT CREATE ON DATABASE `+c.Database+` TO `+name)
		t.Cleanup(func() {
			tenantdbtest.AdminIn(t, c.Database, `DROP OWNED BY `+role+`; DROP ROLE `+role, `DROP OWNED BY `+name+`; DROP ROLE `+name)
		})
		c.User, c.Password = name, keyring.NewSecret("p")
		db := tenantdbtest.Open(t, c)
		statement, err := tenantdb.RoleStatement(role, credential.NewPassword())
		testkit.Must(t, err)
		for range 2 {
			_, err := db.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
	})
}
