package app_test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// seenWithin is the maximum time after which every replica acts on a change.
const seenWithin = time.Second

// previousRelease builds the release before this one and returns its program. Until
// releases are tagged, it is the newest commit without the last migration of the master
// database. STOA_TEST_PREVIOUS names another commit.
func previousRelease(t *testing.T) string {
	t.Helper()
	root := repository(t)
	git := func(args ...string) string {
		cmd := exec.CommandContext(t.Context(), "git", args...)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			t.Skipf("git %s: %v: there is no history of the project here", args[0], err)
		}
		return strings.TrimSpace(string(out))
	}
	commit := os.Getenv("STOA_TEST_PREVIOUS")
	if commit == "" {
		migrations, err := filepath.Glob(filepath.Join(root, "internal/masterdb/migrations/postgres/*.sql"))
		if err != nil || len(migrations) == 0 {
			t.Fatalf("no migrations: %v", err)
		}
		last, err := filepath.Rel(root, slices.Max(migrations))
		if err != nil {
			t.Fatal(err)
		}
		added := git("log", "-m", "--first-parent", "--no-renames", "--diff-filter=A", "--format=%H", "-1", "--", last)
		if added == "" || git("rev-parse", "--is-shallow-repository") == "true" {
			t.Skip("the history of the project here is too short")
		}
		commit = git("rev-parse", added+"^")
	}
	source, program := t.TempDir(), filepath.Join(t.TempDir(), "stoa-previous")
	git("archive", "--format=tar", "--output="+filepath.Join(source, "source.tar"), commit)
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", source, "-xf", filepath.Join(source, "source.tar")).CombinedOutput(); err != nil {
		t.Fatalf("commit %s: %v\n%s", commit, err, out)
	}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "./cmd/stoa")
	build.Dir = source
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("commit %s: %v\n%s", commit, err, out)
	}
	t.Logf("the previous release is commit %s", commit)
	return program
}

// TestUpgrade checks that replicas are upgraded one by one, from the previous release to
// this one and back, under load, with a migration of the master database and one of the
// stores' databases, while others are killed: no request fails that may be repeated, and
// every replica sees changes of the others, whatever release each is of. `make upgrades`
// goes on for 30 minutes.
func TestUpgrade(t *testing.T) {
	previous := previousRelease(t)
	f := newFaultSuite(t, 3*time.Second, previous)
	if f.schemaVersion() >= latestSchema(t) {
		t.Fatal("the previous release has this release's schema: there is nothing to upgrade")
	}
	ends := time.Now()
	if !testing.Short() {
		ends = ends.Add(30 * time.Minute)
	}
	var rows []string
	for round := 1; round == 1 || time.Now().Before(ends); round++ {
		f.addTenantMigration(round)
		for _, to := range []struct{ name, program string }{{"upgrade", ""}, {"rollback", previous}} {
			name := fmt.Sprintf("%s %d", to.name, round)
			rows = append(rows, f.try(scenario{name: name, fault: func(f *faultSuite, _ bool) { f.replaceReplicas(to.program) }}, false))
		}
	}
	t.Logf("\n%-30s %8s %7s %8s %8s %6s %8s %9s\n%s", "scenario", "fronts", "failed", "spends", "attempts", "lost", "gap", "recovery", strings.Join(rows, "\n"))
	f.program = ""
	f.settle()
}

// replaceReplicas restarts the replicas one by one with a release. After each, another
// replica is killed and comes back as what it was, and changes are checked.
func (f *faultSuite) replaceReplicas(program string) {
	was := f.program
	for i, r := range f.replicas {
		f.program = program
		r.restart()
		f.checkChangesAreSeen()
		killed := rand.N(len(f.replicas))
		f.program = was
		if killed <= i {
			f.program = program
		}
		f.replicas[killed].process.kill()
		f.replicas[killed].start()
	}
	f.program = program
	if got, want := f.schemaVersion(), latestSchema(f.t); got != want {
		f.t.Errorf("the schema has version %d, want %d", got, want)
	}
}

// checkChangesAreSeen suspends and resumes a store through each replica, and checks that
// the others soon do the same.
func (f *faultSuite) checkChangesAreSeen() {
	f.t.Helper()
	session := client{t: f.t, url: f.proxy, http: f.http}
	token := session.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).want(http.StatusOK).text("accessToken")
	for _, r := range f.replicas {
		at := client{t: f.t, url: "http://localhost:" + r.port(), token: token, http: f.http}
		for _, change := range []struct{ action, front string }{{"suspend", "503 store_suspended"}, {"resume", "200"}} {
			at.call("POST", "/api/stores/"+f.quiet.store+"/"+change.action, nil).want(http.StatusOK)
			changed := time.Now()
			for _, other := range f.replicas {
				eventually(f.t, change.action+" is seen", func() bool { return f.load.front("http://"+other.address, f.quiet.host) == change.front })
			}
			if d := time.Since(changed); d > seenWithin {
				f.t.Errorf("%s through %s was seen everywhere after %v, want %v", change.action, r.address, d, seenWithin)
			}
		}
	}
}

func (r *replica) port() string {
	_, port, _ := net.SplitHostPort(r.address)
	return port
}

func (f *faultSuite) tenantMigrations() string {
	return filepath.Join(filepath.Dir(f.dir), "tenant-migrations")
}

// addTenantMigration adds an operator's migration of the stores' databases, which every
// replica that starts from now on has.
func (f *faultSuite) addTenantMigration(n int) {
	f.t.Helper()
	for _, engine := range []string{"sqlite", "postgres", "mysql"} {
		dir := filepath.Join(f.tenantMigrations(), engine)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			f.t.Fatal(err)
		}
		text := fmt.Sprintf("-- +goose Up\nCREATE TABLE upgrade_%d (id integer PRIMARY KEY);\n", n)
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%05d_upgrade.sql", n)), []byte(text), 0o600); err != nil {
			f.t.Fatal(err)
		}
	}
	if n == 1 {
		f.settings = append(f.settings, "STOA_TENANT_MIGRATIONS="+f.tenantMigrations())
	}
}

func (f *faultSuite) schemaVersion() int64 {
	return int64(f.ask(f.primary, `SELECT max(version_id) FROM goose_db_version`))
}

func latestSchema(t *testing.T) int64 {
	t.Helper()
	version, err := masterdb.LatestVersion()
	if err != nil {
		t.Fatal(err)
	}
	return version
}
