package tenantdb

import (
	"context"
	"database/sql"
	"errors"
	"testing"

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
	embedded:   true,
	marker:     `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row integer PRIMARY KEY, store_id text NOT NULL, created_at timestamp NOT NULL)`,
	parts:      sqliteDialect.parts,
	archive:    sqliteDialect.archive,
}

// TestEveryEngineIsRegistered checks that the registry has a line for each engine, and for
// Supabase, whose databases are PostgreSQL's.
func TestEveryEngineIsRegistered(t *testing.T) {
	t.Parallel()
	for _, name := range append([]credential.EngineName{credential.Supabase, Toy}, credential.Engines...) {
		r, ok := registered[name]
		if !ok || r.dialect.archive == (ArchiveSQL{}) {
			t.Errorf("%s has no line in registered, or no SQL of archives in its dialect", name)
		}
		if name != Toy && r.dialect.embedded != name.Embedded() {
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
