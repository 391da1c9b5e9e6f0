package tenantdb_test

import (
	"context"
	"database/sql"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// refusedGlobals are settings that a session cannot set. The error names them.
var refusedGlobals = map[string]string{
	`max_allowed_packet = 1048576`: "max_allowed_packet", `init_connect = 'USE stoa_elsewhere'`: "init_connect", `init_connect = 'no such statement'`: "init_connect",
}

func TestGlobalSettings(t *testing.T) {
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			admin, at := tenantdbtest.OwnMySQL(t, start)
			set := func(t *testing.T, setting string) {
				t.Helper()
				variable, _, _ := strings.Cut(setting, " ")
				var before string
				err := admin.QueryRowContext(t.Context(), `SELECT coalesce(@@global.`+variable+`, '')`).Scan(&before)
				if strings.HasPrefix(setting, "tx_") && name == "MySQL 9" || err != nil {
					t.Skip(name + " has no such setting")
				}
				t.Cleanup(func() {
					_, err := admin.ExecContext(context.Background(), `SET GLOBAL `+variable+` = DEFAULT`)
					testkit.Must(t, err)
				})
				_, err = admin.ExecContext(t.Context(), `SET GLOBAL `+setting)
				testkit.Must(t, err)
			}
			for _, setting := range some(tenantdbtest.HostileGlobals) {
				t.Run(setting, func(t *testing.T) {
					c := at(t)
					set(t, setting)
					checkKept(t, c)
				})
			}
			for setting, names := range refusedGlobals {
				t.Run(setting, func(t *testing.T) {
					c := at(t)
					set(t, setting)
					checkRefused(t, tenantdbtest.Open(t, c), names, c)
				})
			}
		})
	}
}

// TestTemporaryFilesOfServers checks that no server of the tests has the temporary files of
// another one: a server that starts deletes every temporary table in its folder.
func TestTemporaryFilesOfServers(t *testing.T) { //nolint:paralleltest // it sets a variable
	servers := map[string]*sql.DB{}
	for _, env := range []string{tenantdbtest.MySQLEnv, tenantdbtest.NewerMySQLEnv} {
		if url := os.Getenv(env); url != "" {
			t.Setenv(tenantdbtest.MySQLEnv, url)
			servers[env] = tenantdbtest.MySQL(t)
		}
	}
	for name, start := range tenantdbtest.MySQLServers {
		servers[name], _ = tenantdbtest.OwnMySQL(t, start)
	}
	of := map[string]string{os.TempDir(): "every other program"}
	for name, db := range servers {
		var folder string
		testkit.Must(t, db.QueryRowContext(t.Context(), `SELECT @@tmpdir`).Scan(&folder))
		if other := of[folder]; other != "" {
			t.Errorf("%s and %s share the folder %s", name, other, folder)
		}
		of[folder] = name
	}
}

// TestServerWithoutASetting checks that a server that uses MySQL's protocol and
// lacks one of the variables is used with the essential settings.
func TestServerWithoutASetting(t *testing.T) { //nolint:paralleltest // it affects every connection
	defer tenantdb.LackMySQLSetting()()
	for name, env := range map[string]string{"MariaDB": tenantdbtest.MySQLEnv, "MySQL 9": "STOA_TEST_MYSQL9_URL"} {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(tenantdbtest.MySQLEnv, os.Getenv(env))
			checkKept(t, tenantdbtest.Create(t, credential.MySQL))
		})
	}
}
