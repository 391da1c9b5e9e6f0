package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"io/fs"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// Toy is an engine of this package's tests: SQLite in memory, under another name, which
// nothing but its own type and the line below knows.
const Toy credential.EngineName = "toy"

func init() {
	registered[Toy] = registration{&toyDialect, func(Options) Engine { return toyEngine{} }}
}

var toyDialect = dialect{
	folder:     sqliteDialect.folder, // what it understands; there is no self-test
	migrations: sqliteDialect.migrations,
	driver:     "sqlite3",
	cutText:    sqliteDialect.cutText,
	cutAny:     sqliteDialect.cutAny,
	embedded:   true,
	marker:     `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row integer PRIMARY KEY, store_id text NOT NULL, created_at timestamp NOT NULL)`,
	parts:      sqliteDialect.parts,
	archive:    sqliteDialect.archive,
	recorder:   sqliteDialect.recorder,
}

// DialectNames returns the names of the dialects, and whether their databases are embedded.
func DialectNames() map[string]bool {
	names := map[string]bool{}
	for _, r := range registered {
		names[r.dialect.folder] = r.dialect.embedded
	}
	return names
}

// mayBeZero are the fields of dialect and of ArchiveSQL whose zero value means something, and
// ofServers those which embedded engines do not have.
var (
	mayBeZero = []string{"isolation", "snapshot", "beginSnapshot", "embedded", "native", "sharedNames", "foldsNames", "Unsafe", "CopyIn", "texts"}
	ofServers = []string{"selfTest", "selfTests"}
)

// missing lists the parts that an engine lacks: every field of its dialect that is not above,
// its migrations, their structure, and itself.
func (r registration) missing() (parts []string) {
	for _, of := range []reflect.Value{reflect.ValueOf(r.dialect).Elem(), reflect.ValueOf(r.dialect.archive)} {
		for i := range of.NumField() {
			name := of.Type().Field(i).Name
			optional := slices.Contains(mayBeZero, name) || r.dialect.embedded && slices.Contains(ofServers, name)
			if of.Field(i).IsZero() && !optional {
				parts = append(parts, name)
			}
		}
	}
	if !slices.Equal(migrationFiles(r.dialect), migrationFiles(&sqliteDialect)) {
		parts = append(parts, "files of migrations")
	}
	if _, err := structures.ReadFile("structure/" + r.dialect.folder + ".json"); err != nil {
		parts = append(parts, "file of the structure")
	}
	if r.engine == nil || r.engine(Options{}) == nil {
		parts = append(parts, "engine")
	}
	return parts
}

// migrationFiles returns the names of the files of a dialect's migrations: none without a folder.
func migrationFiles(d *dialect) (names []string) {
	entries, _ := fs.ReadDir(Migrations, "migrations/"+d.folder)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestEveryEngineIsComplete checks that no part of an engine is missing, and that a part which
// is missing is found.
func TestEveryEngineIsComplete(t *testing.T) {
	t.Parallel()
	for name, r := range registered {
		if parts := r.missing(); parts != nil {
			t.Errorf("%s has no %s", name, strings.Join(parts, ", "))
		}
	}
	want := []string{
		"folder", "migrations", "driver", "cutText", "cutAny", "marker", "selfTest", "selfTests", "parts", "archive", "recorder",
		"Version", "TableNamed", "Referrers", "Quote", "Bytes", "JSONText", "Upsert", "Proposed", "files of migrations", "file of the structure", "engine",
	}
	if diff := cmp.Diff(want, registration{dialect: &dialect{}}.missing()); diff != "" {
		t.Errorf("what an engine without any part lacks (-want +got):\n%s", diff)
	}
}

// TestEveryEngineIsRegistered checks that the registry has a line for each engine, and for
// Supabase, whose databases are PostgreSQL's.
func TestEveryEngineIsRegistered(t *testing.T) {
	t.Parallel()
	for _, name := range append([]credential.EngineName{credential.Supabase, Toy}, credential.Engines...) {
		r, ok := registered[name]
		if !ok {
			t.Errorf("%s has no line in registered", name)
		} else if name != Toy && r.dialect.embedded != name.Embedded() {
			t.Errorf("%s: the dialect says embedded = %t", name, r.dialect.embedded)
		}
	}
	if len(registered) != len(credential.Engines)+2 {
		t.Errorf("%d engines are registered, credential.Engines lists %v", len(registered), credential.Engines)
	}
}

// toyEngine keeps its databases in a folder of the test.
type toyEngine struct{}

func (toyEngine) file(c credential.Credentials) sqliteEngine { return sqliteEngine{dir: c.Host} }

func (e toyEngine) Open(c credential.Credentials, d dial.Func, s *sessionState) (*sql.DB, error) {
	return e.file(c).Open(c, d, s)
}

func (e toyEngine) Session(c credential.Credentials, d dial.Func, s *sessionState) (*sql.DB, error) {
	return e.Open(c, d, s)
}

func (toyEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	in := Inspection{Version: "toy 1", Minimum: "toy 1", Supported: true, MayCreate: true, Unicode: true}
	return in, in.listTables(ctx, db, `SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite!_%' ESCAPE '!' ORDER BY name LIMIT ?`)
}

func (toyEngine) pin(context.Context, *DB, stoa.StoreID) error { return nil }
func (toyEngine) warnings(context.Context, *DB) ([]Warning, error) {
	return []Warning{{Code: "toy"}}, nil
}
func (toyEngine) sessions(credential.Credentials) bool { return true }
func (e toyEngine) migrator(c credential.Credentials, _ *sessionState) migrator {
	return migrator{dialect: &toyDialect, turn: func(ctx context.Context) (func(), error) { return e.file(c).turn(ctx, c) }}
}

func (toyEngine) Fault(err error) *stoa.Error {
	if errors.Is(err, sql.ErrConnDone) {
		return unreachable(err)
	}
	return sqliteEngine{}.Fault(err)
}
