package app_test

import (
	"context"
	"errors"
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
	"github.com/stoahq/stoa/internal/testkit"
)

// seenWithin is the maximum time after which every replica acts on a change.
const seenWithin = time.Second

// previousRelease builds the release before this one and returns its program.
// STOA_TEST_PREVIOUS names a commit; otherwise previousCommit finds it.
func previousRelease(t *testing.T) string {
	t.Helper()
	root, commit := repository(t), os.Getenv("STOA_TEST_PREVIOUS")
	if commit == "" {
		var err error
		if commit, err = previousCommit(t.Context(), root); err != nil {
			testkit.Unavailable(t, err.Error())
		}
	}
	source, program := t.TempDir(), filepath.Join(t.TempDir(), "stoa-previous")
	if _, err := git(t.Context(), root, "archive", "--format=tar", "--output="+filepath.Join(source, "source.tar"), commit); err != nil {
		t.Fatalf("commit %s: %v", commit, err)
	}
	if out, err := exec.CommandContext(t.Context(), "tar", "-C", source, "-xf", filepath.Join(source, "source.tar")).CombinedOutput(); err != nil {
		t.Fatalf("commit %s: %v\n%s", commit, err, out)
	}
	// Without the folder's name in it, what the build cache has of this commit fits.
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-o", program, "./cmd/stoa")
	build.Dir, build.Env = source, append(os.Environ(), "CGO_ENABLED=0") // as releases are built
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("commit %s: %v\n%s", commit, err, out)
	}
	t.Logf("the previous release is commit %s", commit)
	return program
}

// errShortHistory means that the clone has no commit without the last migration.
var errShortHistory = errors.New("the previous release is not in this clone, which needs the history: git fetch --unshallow")

// previousCommit returns the commit of the release before this one. Until releases are
// tagged, it is the newest commit without the last migration of the master database.
func previousCommit(ctx context.Context, root string) (string, error) {
	migrations, err := filepath.Glob(filepath.Join(root, "internal/masterdb/migrations/postgres/*.sql"))
	if err != nil || len(migrations) == 0 {
		return "", fmt.Errorf("no migrations in %s: %w", root, err)
	}
	last, err := filepath.Rel(root, slices.Max(migrations))
	if err != nil {
		return "", err
	}
	added, err := git(ctx, root, "log", "-m", "--first-parent", "--no-renames", "--diff-filter=A", "--format=%H", "-1", "--", last)
	if err != nil {
		return "", fmt.Errorf("the previous release is built from the history, and this is not a git clone: %w", err)
	}
	if added == "" {
		return git(ctx, root, "rev-parse", "HEAD") // the last migration is not committed yet
	}
	// The oldest commit of a shallow clone has no parent and seems to add every file.
	commit, err := git(ctx, root, "rev-parse", "--verify", "--quiet", added+"^")
	if err != nil {
		return "", errShortHistory
	}
	return commit, nil
}

// git runs git in a folder and returns what it prints.
func git(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w", args[0], err)
	}
	return strings.TrimSpace(string(out)), nil
}

// TestPreviousCommit checks which commit is found in a whole clone, in one that is deep
// enough, in one that is too shallow, and beside a migration that is not committed.
func TestPreviousCommit(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		testkit.Unavailable(t, "git is not installed")
	}
	must := func(dir string, args ...string) string {
		t.Helper()
		out, err := git(t.Context(), dir, args...)
		testkit.Must(t, err)
		return out
	}
	origin, clones := t.TempDir(), t.TempDir()
	add := func(file string) string {
		t.Helper()
		path := filepath.Join(origin, "internal/masterdb/migrations/postgres", file)
		testkit.Must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		testkit.Must(t, os.WriteFile(path, []byte(file), 0o600))
		must(origin, "add", ".")
		must(origin, "-c", "user.name=test", "-c", "user.email=test@example.com", "-c", "commit.gpgsign=false", "commit", "--quiet", "-m", file)
		return must(origin, "rev-parse", "HEAD")
	}
	must(origin, "init", "--quiet")
	add("00001_first.sql")
	previous := add("README") // the newest commit before the last migration
	add("00002_last.sql")
	add("later")
	for name, depth := range map[string]string{"deep enough": "3", "too shallow": "2", "newest commit only": "1"} {
		clone := filepath.Join(clones, depth)
		must(clones, "clone", "--quiet", "--depth", depth, "file://"+origin, clone)
		got, err := previousCommit(t.Context(), clone)
		if depth == "3" && (err != nil || got != previous) {
			t.Errorf("%s: %q, %v; want %q", name, got, err, previous)
		}
		if depth != "3" && !errors.Is(err, errShortHistory) {
			t.Errorf("%s: %q, %v; want %v", name, got, err, errShortHistory)
		}
	}
	if got, err := previousCommit(t.Context(), origin); err != nil || got != previous {
		t.Errorf("whole history: %q, %v; want %q", got, err, previous)
	}
	head := must(origin, "rev-parse", "HEAD")
	testkit.Must(t, os.WriteFile(filepath.Join(origin, "internal/masterdb/migrations/postgres/00003_new.sql"), nil, 0o600))
	if got, err := previousCommit(t.Context(), origin); err != nil || got != head {
		t.Errorf("a migration that is not committed: %q, %v; want %q", got, err, head)
	}
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
				testkit.Eventually(f.t, testkit.Timeout, change.action+" is seen", func() bool { return f.load.front("http://"+other.address, f.quiet.host) == change.front })
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
