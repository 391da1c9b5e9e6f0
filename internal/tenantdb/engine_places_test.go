package tenantdb_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// registries are the files with a line for each engine, and the words by which ARCHITECTURE.md
// names them under "How to add an engine". A test beside each fails if an engine has no line:
// TestEveryEngineHasFacts, TestEveryEngineIsComplete and TestEveryServerIsAHost.
var registries = map[string]string{
	"tenantdb/engine.go":             "`registered`",
	"tenantdb/managed/managed.go":    "`hosts`",
	"tenantdb/credential/engines.go": "`engines`",
}

// namesOneEngine are the other files that name an engine, and why none of them needs a line
// for another one.
var namesOneEngine = map[string]string{
	"tenantdb/supabase.go":        "makes its credentials",
	"tenantdb/extensions.go":      "PostgreSQL's",
	"tenantdb/exposure.go":        "PostgreSQL's",
	"tenantdb/postgres.go":        "PostgreSQL's",
	"tenantdb/tables.go":          "types of columns, the same on all engines",
	"tenantdb/scratch.go":         "makes a file",
	"tenantdb/managed_server.go":  "managed databases without a server are files",
	"tenantdb/managed/orphans.go": "finds files",
	"moves/moves.go":              "managed databases may always be files",
	"archive/deferred.go":         "indexes and references of PostgreSQL, created late",
	"imports/record.go":           "schemas of PostgreSQL",
	"cli/demo.go":                 "has a flag for each of two servers",
	"cli/stores_move.go":          "knows MariaDB as MySQL",
}

// TestEnginesAreKnownInFewPlaces checks that no file names an engine beside those above. A
// file that asks what a database is like uses the dialect, or the engine's facts.
func TestEnginesAreKnownInFewPlaces(t *testing.T) {
	t.Parallel()
	name := regexp.MustCompile(`credential\.(SQLite|PostgreSQL|MySQL|Supabase)\b`)
	found := map[string]bool{}
	testkit.Must(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (strings.HasSuffix(d.Name(), "test") || d.Name() == "testkit"):
			return fs.SkipDir
		case d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(path)
		if file := strings.TrimPrefix(path, "../"); name.Match(text) || file == "tenantdb/credential/engines.go" {
			found[file] = true
		}
		return err
	}))
	want := map[string]bool{}
	for file := range registries {
		want[file] = true
	}
	for file := range namesOneEngine {
		want[file] = true
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Errorf("files that name an engine (-listed +found): ask the dialect or credential.EngineName, or list the file here and in ARCHITECTURE.md:\n%s", diff)
	}
}

// TestMasterKnowsEveryEngine checks that a CHECK of the master admits every engine and every
// kind of database, and nothing else.
func TestMasterKnowsEveryEngine(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		query := `SELECT sql FROM sqlite_schema WHERE name = 'store_databases'`
		if db.Engine == masterdb.Postgres {
			query = `SELECT string_agg(pg_get_constraintdef(oid), chr(10)) FROM pg_catalog.pg_constraint WHERE conrelid = 'store_databases'::regclass AND contype = 'c'`
		}
		var text string
		testkit.Must(t, db.Get(t.Context(), &text, query))
		kinds := append([]string{string(credential.Managed)}, credential.OwnKinds()...)
		var engines []string
		for _, engine := range credential.Engines {
			engines = append(engines, string(engine))
		}
		for column, want := range map[string][]string{"kind": kinds, "engine": engines} {
			check := regexp.MustCompile(`\b` + column + `\)*(?: IN| = ANY) \(.*`).FindString(text)
			var admitted []string
			for _, m := range regexp.MustCompile(`'([a-z]+)'`).FindAllStringSubmatch(check, -1) {
				admitted = append(admitted, m[1])
			}
			if diff := cmp.Diff(want, admitted); diff != "" {
				t.Errorf("the CHECK of %s, %q (-want +got):\n%s", column, check, diff)
			}
		}
	})
}

// ownFiles are the files of an engine as ARCHITECTURE.md names them, and their folders.
// Embedded engines have none of managed.
var ownFiles = map[string][]string{
	"`NAME.go`":             {".", "credential"},
	"`managed/NAME.go`":     {"."},
	"`dialect_NAME.go`":     {"."},
	"`recorder_NAME.go`":    {"."},
	"`migrations/NAME`":     {"."},
	"`structure/NAME.json`": {"."},
}

// TestArchitectureSaysWhatAnEngineNeeds compares the list of the document with the files that
// every engine has and the lines of the registries.
func TestArchitectureSaysWhatAnEngineNeeds(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	testkit.Must(t, err)
	_, list, _ := strings.Cut(string(text), "**an engine**:\n")
	list, _, _ = strings.Cut(list, "\n\n")
	words := map[string]bool{ // and where they are, or what tests find
		"`Engine`": true, "`tenantdb`": true, "`tenantdb/credential`": true, "`httpapi`": true, "`CHECK`": true,
	}
	for word, folders := range ownFiles {
		words[word] = true
		for name, embedded := range tenantdb.DialectNames() {
			for _, folder := range folders {
				if embedded && strings.Contains(word, "managed") {
					continue
				}
				file := filepath.Join(folder, strings.ReplaceAll(strings.Trim(word, "`"), "NAME", name))
				if _, err := os.Stat(file); err != nil {
					t.Errorf("%s has no file of its own: %v", name, err)
				}
			}
		}
	}
	for _, word := range registries {
		words[word] = true
	}
	shown := map[string]bool{}
	for _, word := range regexp.MustCompile("`[^`]+`").FindAllString(list, -1) {
		shown[word] = true
	}
	if diff := cmp.Diff(words, shown); diff != "" {
		t.Errorf("the list of an engine in ARCHITECTURE.md (-needed +shown):\n%s", diff)
	}
}
