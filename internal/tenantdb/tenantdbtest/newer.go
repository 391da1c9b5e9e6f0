package tenantdbtest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// These environment variables contain the URLs of a newer PostgreSQL and a
// newer MySQL than those of PostgresEnv and MySQLEnv, if available.
const (
	NewerPostgresEnv = "STOA_TEST_POSTGRES18_URL"
	NewerMySQLEnv    = "STOA_TEST_MYSQL9_URL"
)

// OnNewerServers runs the named tests of the calling package again, in a
// separate process, with the newer servers in place of the usual ones. It skips
// the test if there are none.
func OnNewerServers(t *testing.T, tests ...string) {
	t.Helper()
	env := os.Environ()
	found := 0
	for newer, usual := range map[string]string{NewerPostgresEnv: PostgresEnv, NewerMySQLEnv: MySQLEnv} {
		if url := os.Getenv(newer); url != "" {
			env = append(env, usual+"="+url, newer+"=")
			found++
		}
	}
	if found == 0 {
		t.Skip("there are no newer servers")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := exec.CommandContext(t.Context(), self, "-test.v", "-test.short", "-test.parallel=2", "-test.run=^("+strings.Join(tests, "|")+")$")
	run.Env = append(env, PgBouncerEnv+"=", PgBouncerSessionEnv+"=", "STOA_TEST_REQUIRE_SERVERS=")
	out, err := run.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "server is") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+tests[0]) {
		t.Errorf("%v\n%s", err, out)
	}
}
