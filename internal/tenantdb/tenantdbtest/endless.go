package tenantdbtest

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// EndlessSettings makes a server's table of settings one with more rows than anybody can read.
// Each has its own key, or all have the key k.
func EndlessSettings(t testing.TB, db *tenantdb.DB, ownKeys bool) {
	t.Helper()
	names := strings.Split("a b c d e f g h i j k l", " ")
	postgresKey, mysqlKey := `'k'`, `'k'`
	if ownKeys {
		postgresKey, mysqlKey = `('k' || n)`, `concat('k', `+strings.Join(names, ".n, ")+`.n)`
	}
	statements := map[credential.EngineName][]string{
		credential.PostgreSQL: {`DROP TABLE settings`,
			`CREATE VIEW settings AS SELECT ` + postgresKey + `::varchar(120) AS setting_key, '{}'::jsonb AS setting_value, now() AS created_at, now() AS updated_at
				FROM (SELECT generate_series(1, 1000000000000) AS n) g`},
		credential.MySQL: {`DROP TABLE settings`, `CREATE TABLE digits (n integer)`,
			`INSERT INTO digits VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)`,
			`CREATE VIEW settings AS SELECT ` + mysqlKey + ` AS setting_key, '{}' AS setting_value, now(6) AS created_at, now(6) AS updated_at
				FROM digits ` + strings.Join(names, ", digits ")},
	}
	for _, statement := range statements[db.Engine] {
		_, err := db.Exec(t.Context(), statement)
		testkit.Must(t, err)
	}
}
