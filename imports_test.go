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

// layers maps each package to its layer. A package imports only packages of lower layers.
// ARCHITECTURE.md says what each layer contains. Names are import paths below the module,
// without internal/.
var layers = map[string]int{
	".": 0, "sqlite": 0, "passwordhash": 0, "tracing": 0, "client": 0, "client/webhook": 0, "client/internal/generate": 0,
	"masterdb": 1, "keyring": 1, "page": 1, "version": 1,
	"jobs": 2, "events": 2, "mail": 2, "ratelimit": 2, "quotas": 2, "keyrotation": 2, "supabase": 2, "presence": 2, "lease": 2, "tenantdb/dial": 2, "tenantdb/screen": 3, "tenantdb/limit": 4,
	"audit": 3, "tenantdb/credential": 3,
	"authz":   4,
	"credits": 5, "tenantdb": 5, "hostnames": 5, "apikeys": 5, "traffic": 5, "idempotency": 5,
	"tenantdb/managed": 6, "credits/feed": 6, "webhooks": 6, "credits/verify": 6, "storedata": 6, "supabase/link": 6, "archive/container": 6,
	"stores": 7, "payments": 7, "archive": 7,
	"accounts": 8, "masterbackup": 8,
	"provisioning": 9, "fleet": 9,
	"moves": 10, "operations": 10, "backups": 10, "imports": 10, "web": 10, "console/ui": 10,
	"console": 11, "storefront": 11,
	"httpapi": 12,
	"config":  13, "httpapi/errorpages": 13,
	"doctor":   14,
	"app":      15,
	"cli":      16,
	"cmd/stoa": 17,
}

// fixtureCeiling is the layer below which test fixtures may import. Fixtures are packages
// named *test, and packages within them.
const fixtureCeiling = 10

// goPackage is the output of `go list -json` for one package. Imports are those of its
// non-test files: test files may import any package.
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

// TestMayImport checks the rules themselves: with a rule that allows everything the test
// above would always pass.
func TestMayImport(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		importer, imported string
		allowed            bool
	}{
		{"masterdb", ".", true},
		{"cmd/stoa", "cli", true},
		{"cli", "app", true},
		{"app", "config", true},
		{"app", "httpapi", true},
		{"accounts", "stores", true},
		{"authz", "audit", true},
		{"tenantdb", "tenantdb/credential", true},
		{"stores", "hostnames", true},
		{"stores", "accounts", false},
		{"hostnames", "stores", false},
		{"audit", "authz", false},
		{"tenantdb/credential", "tenantdb", false},
		{"tenantdb/managed", "tenantdb", true},
		{"tenantdb", "tenantdb/managed", false},
		{"tenantdb/dial", "tenantdb/credential", false},
		{"accounts", "provisioning", false},
		{"credits", "credits/feed", false},
		{"jobs", "authz", false},
		{"jobs", "presence", false},
		{".", "masterdb", false},
		{"httpapi", "console", true},
		{"console", "httpapi", false},
		{"console", "storefront", false},
		{"config", "app", false},
		{"app", "cli", false},
		{"cli", "cmd/stoa", false},
		{"stores", "masterdb/masterdbtest", false},
		{"cli", "masterdb/masterdbtest", false},
		{"hostnames/hostnamestest", "masterdb/masterdbtest", true},
		{"masterdb/masterdbtest", "jobs", true},
		{"masterdb/masterdbtest", "provisioning", true},
		{"masterdb/masterdbtest", "httpapi", false},
		{"supabase/supabasetest/supabase-dev", "supabase/supabasetest", true},
		{"supabase/supabasetest/supabase-dev", "httpapi", false},
		{"payments/stripetest/stripe-dev", "payments/stripetest", true},
		{"cmd/stoa", "payments/stripetest/stripe-dev", false},
		{"app", "supabase/supabasetest", false},
		{"client", ".", false},
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

// testOnly lists modules for tests and measurements, which the product must not import.
var testOnly = []string{"github.com/Shopify/toxiproxy/", "github.com/google/go-cmp/", "pgregory.net/rapid", "github.com/chromedp/", "github.com/descope/virtualwebauthn"}

func TestTestModulesStayOutside(t *testing.T) {
	t.Parallel()
	for _, p := range listPackages(t) {
		importer := relative(p.ImportPath)
		if isFixture(importer) || isBench(importer) {
			continue
		}
		for _, imported := range p.Imports {
			if slices.ContainsFunc(testOnly, func(prefix string) bool { return strings.HasPrefix(imported, prefix) }) {
				t.Errorf("%s imports %s, which is only for tests", importer, imported)
			}
		}
	}
}

// mayImport returns an error if importer must not import imported.
func mayImport(importer, imported string) error {
	below, err := ceiling(importer)
	if err != nil {
		return err
	}
	switch {
	case isBench(imported):
		return fmt.Errorf("%s imports %s, which only measures", importer, imported)
	case isFixture(imported):
		if !isFixture(importer) {
			return fmt.Errorf("%s imports %s, which is only for tests", importer, imported)
		}
		return nil
	}
	layer, ok := layers[imported]
	if !ok {
		return errNoLayer(imported)
	}
	if layer >= below {
		return fmt.Errorf("%s must not import %s: it imports only layers below %d, and %s is in layer %d",
			importer, imported, below, imported, layer)
	}
	return nil
}

// ceiling returns the layer below which a package may import.
func ceiling(pkg string) (int, error) {
	switch {
	case isBench(pkg):
		return layers["cmd/stoa"], nil // bench uses the packages as the binary does
	case isFixture(pkg):
		return fixtureCeiling, nil
	}
	layer, ok := layers[pkg]
	if !ok {
		return 0, errNoLayer(pkg)
	}
	return layer, nil
}

func errNoLayer(pkg string) error {
	return fmt.Errorf("package %s has no layer: add it to the table in imports_test.go, "+
		"and a row to ARCHITECTURE.md that says what it contains", pkg)
}

func isFixture(pkg string) bool {
	return pkg == "testkit" || slices.ContainsFunc(strings.Split(pkg, "/"), func(part string) bool { return strings.HasSuffix(part, "test") })
}

func isBench(pkg string) bool { return pkg == "bench" || strings.HasPrefix(pkg, "bench/") }

func relative(importPath string) string {
	if importPath == module {
		return "."
	}
	return strings.TrimPrefix(strings.TrimPrefix(importPath, module+"/"), "internal/")
}

// TestArchitectureShowsTheLayers compares the table of the document with that of the
// test.
func TestArchitectureShowsTheLayers(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| (\\d+) \\| `([a-z/]+)`( \\(root\\))? \\|").FindAllStringSubmatch(string(text), -1) {
		layer, err := strconv.Atoi(row[1])
		if err != nil {
			t.Fatal(err)
		}
		if row[3] != "" {
			row[2] = "."
		}
		shown[strings.TrimPrefix(row[2], "internal/")] = layer
	}
	if diff := cmp.Diff(layers, shown); diff != "" {
		t.Errorf("imports_test.go and ARCHITECTURE.md differ (-test +document):\n%s", diff)
	}
}

// listPackages returns the packages of the module and those of bench, which is a separate
// module.
func listPackages(t *testing.T) []goPackage {
	t.Helper()
	touchSources(t)
	var packages []goPackage
	for _, folder := range []string{".", "bench"} {
		cmd := exec.CommandContext(t.Context(), "go", "list", "-C", folder, "-json=ImportPath,Imports", "./...")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("go list: %v\n%s", err, stderr.String())
		}
		for dec := json.NewDecoder(bytes.NewReader(out)); ; {
			var p goPackage
			if err := dec.Decode(&p); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			packages = append(packages, p)
		}
	}
	if len(packages) < 3 {
		t.Fatalf("go list found only %v", packages)
	}
	return packages
}

// touchSources stats every Go file, so that `go test` knows that the result depends on
// them. Otherwise it would cache the result, because it does not see what a child process
// reads.
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
			if errors.Is(err, fs.ErrNotExist) { // a temporary file of an editor
				err = nil
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMigrationsExistForEveryEngine checks that each migration exists for every engine. A
// missing one would otherwise show only where that engine runs.
func TestMigrationsExistForEveryEngine(t *testing.T) {
	t.Parallel()
	for _, dir := range []string{"internal/masterdb/migrations", "internal/tenantdb/migrations"} {
		engines := fileNames(t, dir)
		if len(engines) < 2 {
			t.Fatalf("%s has only the folders %v", dir, engines)
		}
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

// TestServersAreThere fails if STOA_TEST_REQUIRE_SERVERS is set, as by `make test`, and the
// address of a server is missing. Otherwise such a run would silently test fewer engines.
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
