package tenantdb

import (
	"context"
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Structure describes the schema of a database. It maps each part, such as
// "column products.slug", to its definition.
type Structure map[string]string

//go:embed structure
var structures embed.FS

// Drift lists the differences between the structure s and the expected one:
// parts that are missing, parts whose definition differs and, if extras is set,
// parts that are not expected. The list is sorted.
func (s Structure) Drift(expected Structure, extras bool) []string {
	var drift []string
	for what, want := range expected {
		switch got, ok := s[what]; {
		case !ok && hasTable(s, what):
			drift = append(drift, what+" is missing")
		case ok && got != want:
			drift = append(drift, fmt.Sprintf("%s is %q, want %q", what, got, want))
		}
	}
	for what := range s {
		if _, ok := expected[what]; !ok && extras && hasTable(expected, what) {
			drift = append(drift, what+" should not be there")
		}
	}
	slices.Sort(drift)
	return drift
}

// hasTable reports whether s has the table of a part, or the part is a table
// itself. Drift does not list the parts of a missing table.
func hasTable(s Structure, what string) bool {
	_, ok := s["table "+tableOf(what)]
	return ok || strings.HasPrefix(what, "table ")
}

func tableOf(what string) string {
	_, name, _ := strings.Cut(what, " ")
	table, _, _ := strings.Cut(name, ".")
	return table
}

// Expected returns the structure that the built-in migrations create on a
// server's engine. The versions of a server report most of it in the same way;
// the rest is omitted: see Structure.
func Expected(engine credential.EngineName) (Structure, error) {
	var s Structure
	text, err := structures.ReadFile("structure/" + dialectFolders[engine] + ".json")
	if err == nil {
		err = json.Unmarshal(text, &s)
	}
	return s, err
}

// part is a row of partsQueries.
type part struct {
	What string `max:"400"` // two or three names
	Made string `max:"4000"`
}

// maxParts limits the number of parts of a schema that are read. Stoa's own
// schema has about 200.
const maxParts = 20_000

// partsQueries list the parts of a schema. They omit names that the server
// generates and texts that differ between its versions.
var partsQueries = map[credential.EngineName]string{
	credential.SQLite: `
		SELECT 'table ' || m.name AS what, '' AS made FROM sqlite_schema m WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!'
		UNION ALL SELECT 'column ' || m.name || '.' || c.name, lower(c.type) || CASE WHEN c."notnull" THEN ' not null' ELSE '' END
			|| coalesce(' default ' || c.dflt_value, '') || CASE c.hidden WHEN 0 THEN '' ELSE ' generated' END
			FROM sqlite_schema m JOIN pragma_table_xinfo(m.name) c WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!'
		UNION ALL SELECT 'index ' || m.name || '.' || CASE i.origin WHEN 'c' THEN i.name ELSE i.origin END || ' on ' || (
				SELECT group_concat(coalesce(x.name, '(expression)'), ', ' ORDER BY x.seqno) FROM pragma_index_info(i.name) x),
			CASE WHEN i."unique" THEN 'unique' ELSE '' END || CASE WHEN i.partial THEN ' partial' ELSE '' END
			FROM sqlite_schema m JOIN pragma_index_list(m.name) i WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite!_%' ESCAPE '!'
		UNION ALL SELECT 'reference ' || m.name || '.' || f."from", f."table" || '.' || coalesce(f."to", 'id') || ' on delete ' || lower(f.on_delete)
			FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'`,
	credential.PostgreSQL: `
		WITH t AS (SELECT c.oid, c.relname FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			WHERE n.nspname = current_schema() AND c.relkind IN ('r', 'p') AND NOT ` + fromExtension + `)
		SELECT 'table ' || relname AS what, '' AS made FROM t
		UNION ALL SELECT 'column ' || t.relname || '.' || a.attname, format_type(a.atttypid, a.atttypmod)
			|| CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
			|| CASE WHEN a.attgenerated <> '' THEN ' generated' ELSE coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '') END
			FROM t JOIN pg_catalog.pg_attribute a ON a.attrelid = t.oid AND a.attnum > 0 AND NOT a.attisdropped
			LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = t.oid AND d.adnum = a.attnum
		UNION ALL SELECT 'index ' || t.relname || '.' || c.relname, CASE WHEN i.indisunique THEN 'unique ' ELSE '' END
			|| substring(pg_get_indexdef(i.indexrelid) FROM ' USING (.*)$') || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
			FROM t JOIN pg_catalog.pg_index i ON i.indrelid = t.oid JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
		UNION ALL SELECT 'constraint ' || t.relname || '.' || k.conname, CASE k.contype WHEN 'c' THEN 'check' ELSE pg_get_constraintdef(k.oid) END
			FROM t JOIN pg_catalog.pg_constraint k ON k.conrelid = t.oid AND k.contype IN ('p', 'u', 'f', 'c')`,
	credential.MySQL: `
		SELECT concat('table ', table_name) AS what, '' AS made FROM information_schema.tables
			WHERE table_schema = database() AND table_type = 'BASE TABLE'
		UNION ALL SELECT concat('column ', table_name, '.', column_name), concat(
			CASE WHEN data_type = 'json' THEN 'longtext' ELSE column_type END,
			CASE is_nullable WHEN 'NO' THEN ' not null' ELSE '' END,
			CASE WHEN column_default IS NULL OR column_default = 'NULL' THEN '' ELSE concat(' default ', trim(BOTH '''' FROM column_default)) END,
			CASE WHEN extra LIKE '%GENERATED%' AND extra NOT LIKE 'DEFAULT%' THEN ' generated' ELSE '' END)
			FROM information_schema.columns WHERE table_schema = database()
		UNION ALL SELECT concat('index ', table_name, '.', index_name), concat(CASE WHEN max(non_unique) = 0 THEN 'unique ' ELSE '' END,
			group_concat(coalesce(column_name, '(expression)') ORDER BY seq_in_index SEPARATOR ', '))
			FROM information_schema.statistics WHERE table_schema = database() GROUP BY table_name, index_name
		UNION ALL SELECT concat('reference ', k.table_name, '.', k.column_name), concat(k.referenced_table_name, '.', k.referenced_column_name,
			' on delete ', lower(r.delete_rule))
			FROM information_schema.key_column_usage k JOIN information_schema.referential_constraints r
			ON r.constraint_schema = k.constraint_schema AND r.constraint_name = k.constraint_name AND r.table_name = k.table_name
			WHERE k.table_schema = database() AND k.referenced_table_name IS NOT NULL`,
}

// displayWidth matches the display width that MariaDB reports for an integer
// type and MySQL does not.
var displayWidth = regexp.MustCompile(`^(smallint|mediumint|int|bigint)\(\d+\)`)

// Structure reads the current schema of the database, without the version
// tables, the marker table and those of a move.
func (db *DB) Structure(ctx context.Context) (Structure, error) { return db.structure(ctx, db.Select) }

// Structure does the same as DB.Structure in the snapshot.
func (s *Snapshot) Structure(ctx context.Context) (Structure, error) {
	return s.db.structure(ctx, s.Select)
}

func (db *DB) structure(ctx context.Context, read func(ctx context.Context, dst any, query string, args ...any) error) (Structure, error) {
	var parts []part
	query := `SELECT substr(what, 1, 401) AS what, substr(made, 1, 4001) AS made FROM (` + partsQueries[db.Engine] + `) parts LIMIT ?`
	if err := read(ctx, &parts, query, maxParts+1); err != nil {
		return nil, err
	}
	if len(parts) > maxParts {
		return nil, db.wrap(&contentError{reason: fmt.Sprintf("the schema has more than %d parts", maxParts)})
	}
	s := Structure{}
	for _, p := range parts {
		s[p.What] = strings.TrimSpace(displayWidth.ReplaceAllString(p.Made, "$1"))
	}
	maps.DeleteFunc(s, func(what, _ string) bool {
		table := tableOf(what)
		return table == VersionTable || table == CustomVersionTable || table == MarkerTable || table == MoveControlTable || table == MoveJournalTable
	})
	return s, nil
}
