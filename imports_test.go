package stoa_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const module = "github.com/stoahq/stoa"

// floors is the house: a package may import only packages on lower floors.
// ARCHITECTURE.md says what lives in each.
var floors = map[string]int{
	".":        0,
	"masterdb": 1, "keyring": 1, "page": 1,
	"jobs": 2, "access": 2, "mail": 2, "limits": 2, "quotas": 2, "reseal": 2, "supabase": 2, "presence": 2, "lease": 2,
	"credits": 3, "tenantdb": 3, "hostnames": 3, "apikeys": 3,
	"credits/feed": 4, "credits/verify": 4,
	"shop": 4, "cloud": 4,
	"payments":     5,
	"stores":       5,
	"accounts":     6,
	"provisioning": 7, "fleet": 7,
	"httpapi": 8, "web": 8,
	"cmd/stoa": 9,
}

// supportCeiling: test-support packages, named *test or within such a one, see
// everything below it.
const supportCeiling = 8

// sameFloor are the imports allowed between neighbours, from importer to imported.
var sameFloor = map[[2]string]bool{
	{"httpapi", "web"}: true, // the API's server also hands out the pages
}

// goPackage is what `go list -json` says of one package. Imports are those of
// its ordinary files: test files may import anything.
type goPackage struct {
	ImportPath string
	Imports    []string
}

func TestImportsGoDown(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		importer := relative(p.ImportPath)
		if _, err := ceiling(importer); err != nil {
			t.Error(err)
			continue
		}
		for _, imported := range p.Imports {
			if imported != module && !strings.HasPrefix(imported, module+"/") {
				continue
			}
			if err := mayImport(importer, relative(imported)); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestMayImport holds the rules themselves: a rule that allows everything
// would let the test above pass for ever.
func TestMayImport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		importer, imported string
		allowed            bool
	}{
		{"masterdb", ".", true},
		{"cmd/stoa", "httpapi", true},
		{"accounts", "stores", true},
		{"stores", "accounts", false},
		{"accounts", "provisioning", false},
		{"jobs", "access", false},
		{".", "masterdb", false},
		{"httpapi", "web", true},
		{"web", "httpapi", false},
		{"httpapi", "cmd/stoa", false},
		{"stores", "masterdb/masterdbtest", false},
		{"cmd/stoa", "masterdb/masterdbtest", false},
		{"hostnames/hostnamestest", "masterdb/masterdbtest", true},
		{"masterdb/masterdbtest", "jobs", true},
		{"masterdb/masterdbtest", "provisioning", true},
		{"masterdb/masterdbtest", "httpapi", false},
		{"supabase/supabasetest/supabase-dev", "supabase/supabasetest", true},
		{"supabase/supabasetest/supabase-dev", "httpapi", false},
		{"payments/stripetest/stripe-dev", "payments/stripetest", true},
		{"cmd/stoa", "payments/stripetest/stripe-dev", false},
		{"cmd/stoa", "supabase/supabasetest", false},
		{"cmd/stoa", "supabase/supabasetest/supabase-dev", false},
		{"bench", ".", true},
		{"bench", "credits", true},
		{"bench", "cmd/stoa", false},
		{"bench", "masterdb/masterdbtest", false},
		{"credits", "bench", false},
		{"cmd/stoa", "bench", false},
		{"util", ".", false},
		{"credits", "util", false},
	} {
		if err := mayImport(c.importer, c.imported); (err == nil) != c.allowed {
			t.Errorf("mayImport(%q, %q) = %v, want allowed = %v", c.importer, c.imported, err, c.allowed)
		}
	}
}

// testOnly are modules for tests and measurements: the product has no use for
// them.
var testOnly = []string{"github.com/Shopify/toxiproxy/", "github.com/google/go-cmp/", "pgregory.net/rapid", "github.com/chromedp/"}

func TestTestModulesStayOutside(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		importer := relative(p.ImportPath)
		if isSupport(importer) || isBench(importer) {
			continue
		}
		for _, imported := range p.Imports {
			if slices.ContainsFunc(testOnly, func(prefix string) bool { return strings.HasPrefix(imported, prefix) }) {
				t.Errorf("%s imports %s, which is only for tests", importer, imported)
			}
		}
	}
}

// mayImport says why importer must not import imported, or nil.
func mayImport(importer, imported string) error {
	below, err := ceiling(importer)
	if err != nil {
		return err
	}
	switch {
	case isBench(imported):
		return fmt.Errorf("%s imports %s, which stands outside the house", importer, imported)
	case isSupport(imported):
		if !isSupport(importer) {
			return fmt.Errorf("%s imports %s, which is only for tests", importer, imported)
		}
		return nil
	case sameFloor[[2]string{importer, imported}]:
		return nil
	}
	floor, ok := floors[imported]
	if !ok {
		return errNoFloor(imported)
	}
	if floor >= below {
		return fmt.Errorf("%s must not import %s: it sees only what is below floor %d, and %s is on floor %d",
			importer, imported, below, imported, floor)
	}
	return nil
}

// ceiling returns the floor below which a package may import.
func ceiling(pkg string) (int, error) {
	switch {
	case isBench(pkg):
		return floors["cmd/stoa"], nil // it uses the house as the binary does
	case isSupport(pkg):
		return supportCeiling, nil
	}
	floor, ok := floors[pkg]
	if !ok {
		return 0, errNoFloor(pkg)
	}
	return floor, nil
}

func errNoFloor(pkg string) error {
	return fmt.Errorf("package %s stands on no floor: add it to the table in imports_test.go, "+
		"and to ARCHITECTURE.md a sentence that says what lives there and why no existing room fits", pkg)
}

func isSupport(pkg string) bool {
	return slices.ContainsFunc(strings.Split(pkg, "/"), func(part string) bool { return strings.HasSuffix(part, "test") })
}

func isBench(pkg string) bool { return pkg == "bench" || strings.HasPrefix(pkg, "bench/") }

func relative(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(importPath, module+"/")
}

// TestArchitectureShowsTheFloors: the table people read is the table in force.
func TestArchitectureShowsTheFloors(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d+) \\| `([a-z/]+)`( \\(root\\))? \\|").FindAllStringSubmatch(string(text), -1) {
		floor, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if row[3] != "" {
			row[2] = "."
		}
		shown[row[2]] = floor
	}
	if diff := cmp.Diff(floors, shown); diff != "" {
		t.Errorf("imports_test.go and ARCHITECTURE.md differ (-test +document):\n%s", diff)
	}
}

func listPackages(t *testing.T) []goPackage {
	t.Helper()
	touchSources(t)
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	var packages []goPackage
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 3 {
		t.Fatalf("go list found only %v", packages)
	}
	return packages
}

// touchSources looks at every Go file, so that `go test` knows that the
// result depends on them: it caches results and does not see what a child
// process reads.
func touchSources(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || name == "bin"):
			return fs.SkipDir
		case strings.HasSuffix(name, ".go"):
			_, err = os.Stat(name)
			if errors.Is(err, fs.ErrNotExist) { // an editor's temporary file
				err = nil
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMigrationsExistForEveryEngine: a schema change that one engine lacks
// would show only where that engine runs.
func TestMigrationsExistForEveryEngine(t *testing.T) {
	t.Parallel()
	for dir, engines := range map[string][]string{
		"masterdb/migrations": {"postgres", "sqlite"},
		"tenantdb/migrations": {"postgres", "mysql", "sqlite"},
	} {
		want := fileNames(t, path.Join(dir, engines[0]))
		if len(want) == 0 {
			t.Errorf("%s/%s is empty", dir, engines[0])
		}
		for _, engine := range engines[1:] {
			if diff := cmp.Diff(want, fileNames(t, path.Join(dir, engine))); diff != "" {
				t.Errorf("%s: %s and %s differ (-%[2]s +%[3]s):\n%[4]s", dir, engines[0], engine, diff)
			}
		}
	}
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestServersAreThere turns a run that promises every engine and would
// silently test fewer into a failure. `make test` makes that promise.
func TestServersAreThere(t *testing.T) {
	t.Parallel()
	if os.Getenv("STOA_TEST_REQUIRE_SERVERS") == "" {
		t.Skip("STOA_TEST_REQUIRE_SERVERS is not set: tests run on the engines at hand")
	}
	for _, name := range []string{"STOA_TEST_POSTGRES_URL", "STOA_TEST_MYSQL_URL", "STOA_TEST_PGBOUNCER_URL", "STOA_TEST_PGBOUNCER_SESSION_URL", "STOA_TEST_REDIS_URL", "STOA_TEST_CA", "STOA_TEST_CHROMIUM"} {
		if os.Getenv(name) == "" {
			t.Errorf("%s is not set; run the tests with scripts/with-servers", name)
		}
	}
}
