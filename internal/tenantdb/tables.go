package tenantdb

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"modernc.org/sqlite"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// ColumnType is the type of a column, independent of the engine.
type ColumnType string

// These are the column types of Stoa's tables and of archives.
const (
	TypeUUID      ColumnType = "uuid"
	TypeText      ColumnType = "text"
	TypeInteger   ColumnType = "integer" // 64 bits, signed
	TypeBoolean   ColumnType = "boolean"
	TypeTimestamp ColumnType = "timestamp" // UTC, in microseconds
	TypeDecimal   ColumnType = "decimal"   // with a fixed scale
	TypeJSON      ColumnType = "json"
	TypeBytes     ColumnType = "bytes"
)

// Table is a table that the built-in migrations create. It is the same on every engine.
type Table struct {
	Name      string
	Columns   []Column // without generated columns
	Generated []string // columns whose values the database computes
	Key       []string // columns of the primary key
}

// Column is a column of a Table.
type Column struct {
	Name       string
	Type       ColumnType
	Scale      int // of a decimal
	MaxChars   int // of a text; 0: no limit
	Nullable   bool
	References string // name of the table that a foreign key leads to; "" without one
}

// Tables returns the tables that the built-in migrations up to and including version
// create. A table comes after the tables that it references.
func Tables(ctx context.Context, version int64) ([]Table, error) {
	if version < 1 || version > LatestVersion() {
		return nil, fmt.Errorf("tenantdb: no schema version %d", version)
	}
	if known, ok := tablesOf.Load(version); ok {
		return known.([]Table), nil
	}
	tables, err := readTables(ctx, version)
	if err == nil {
		err = addTypes(tables)
	}
	if err != nil {
		return nil, fmt.Errorf("tables of schema version %d: %w", version, err)
	}
	tables = inLoadOrder(tables)
	tablesOf.Store(version, tables)
	return tables, nil
}

// tablesOf caches the tables of each version: callers do not change them.
var tablesOf sync.Map // of int64 to []Table

// readTables runs the migrations in an SQLite database in memory and reads what they
// have created: everything but the types, which SQLite does not distinguish.
func readTables(ctx context.Context, version int64) ([]Table, error) {
	connector, err := sqlite.NewConnector("file::memory:")
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(connector)
	defer pool.Close() //nolint:errcheck // the database is in memory
	pool.SetMaxOpenConns(1)
	builtin, err := sqliteDialect.builtin()
	if err != nil {
		return nil, err
	}
	s := &session{DB: pool, migrator: migrator{dialect: &sqliteDialect}}
	if _, err := s.up(ctx, builtin, VersionTable, version, nil); err != nil {
		return nil, err
	}
	rows, err := pool.QueryContext(ctx, `SELECT m.name, c.name, c."notnull", c.hidden, c.pk,
			coalesce((SELECT f."table" FROM pragma_foreign_key_list(m.name) f WHERE f."from" = c.name LIMIT 1), '')
		FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c
		WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!' AND m.name <> ? ORDER BY m.rowid, c.cid`, VersionTable)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // rows.Err returns the error
	var tables []Table
	keys := map[string]int{} // position of a column in its key
	for rows.Next() {
		var (
			table       string
			c           Column
			notNull     bool
			hidden, key int
		)
		if err := rows.Scan(&table, &c.Name, &notNull, &hidden, &key, &c.References); err != nil {
			return nil, err
		}
		if len(tables) == 0 || tables[len(tables)-1].Name != table {
			tables = append(tables, Table{Name: table})
		}
		t := &tables[len(tables)-1]
		if hidden != 0 {
			t.Generated = append(t.Generated, c.Name)
			continue
		}
		c.Nullable = !notNull
		t.Columns = append(t.Columns, c)
		if key > 0 {
			t.Key = append(t.Key, c.Name)
			keys[table+"."+c.Name] = key
		}
	}
	for _, t := range tables {
		slices.SortFunc(t.Key, func(a, b string) int { return cmp.Compare(keys[t.Name+"."+a], keys[t.Name+"."+b]) })
	}
	return tables, rows.Err()
}

// addTypes takes the columns' types from the structure that the migrations create on
// PostgreSQL, which distinguishes all of them.
func addTypes(tables []Table) error {
	expected, err := Expected(credential.PostgreSQL)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if len(t.Key) == 0 {
			return fmt.Errorf("table %s has no primary key", t.Name)
		}
		for i := range t.Columns {
			c := &t.Columns[i]
			declared := expected["column "+t.Name+"."+c.Name]
			if !c.setType(declared) {
				return fmt.Errorf("column %s.%s has the type %q, which archives cannot contain", t.Name, c.Name, declared)
			}
		}
	}
	return nil
}

// setType sets the type that PostgreSQL declares. It returns false for an unknown type.
func (c *Column) setType(declared string) bool {
	name, arguments, _ := strings.Cut(declared, "(")
	arguments, _, _ = strings.Cut(arguments, ")")
	name = strings.TrimSuffix(name, " not null")
	if before, _, ok := strings.Cut(name, " default "); ok {
		name = strings.TrimSuffix(before, " not null")
	}
	switch name {
	case "uuid":
		c.Type = TypeUUID
	case "character varying", "text":
		c.Type = TypeText
		c.MaxChars, _ = strconv.Atoi(arguments)
	case "smallint", "integer", "bigint":
		c.Type = TypeInteger
	case "boolean":
		c.Type = TypeBoolean
	case "timestamp with time zone":
		c.Type = TypeTimestamp
	case "jsonb":
		c.Type = TypeJSON
	case "bytea":
		c.Type = TypeBytes
	case "numeric":
		_, scale, ok := strings.Cut(arguments, ",")
		c.Type = TypeDecimal
		c.Scale, _ = strconv.Atoi(scale)
		return ok
	default:
		return false
	}
	return true
}

// inLoadOrder sorts tables so that each comes after those that it references. A
// reference to the table itself does not count. Migrations cannot create other cycles,
// because a table must exist before it is referenced.
func inLoadOrder(tables []Table) []Table {
	sorted := make([]Table, 0, len(tables))
	done := map[string]bool{}
	var visit func(t Table)
	visit = func(t Table) {
		if done[t.Name] {
			return
		}
		done[t.Name] = true
		for _, c := range t.Columns {
			if i := slices.IndexFunc(tables, func(o Table) bool { return o.Name == c.References }); i >= 0 {
				visit(tables[i])
			}
		}
		sorted = append(sorted, t)
	}
	for _, t := range tables {
		visit(t)
	}
	return sorted
}
