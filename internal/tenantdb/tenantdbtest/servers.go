package tenantdbtest

import (
	"os"
	"testing"
)

// PostgresServers maps each PostgreSQL server to the environment variable that
// names it.
var PostgresServers = map[string]string{"PostgreSQL": PostgresEnv, "PostgreSQL 18": "STOA_TEST_POSTGRES18_URL"}

// EachPostgres runs test on each available PostgreSQL server.
func EachPostgres(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	for name, env := range PostgresServers {
		if os.Getenv(env) == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Setenv(PostgresEnv, os.Getenv(env))
			test(t)
		})
	}
}
