package tenantdb

import (
	"github.com/pressly/goose/v3"
)

// sqliteDialect is the dialect of SQLite.
var sqliteDialect = dialect{
	folder:     "sqlite",
	migrations: goose.DialectSQLite3,
	driver:     "sqlite3",
	cutText:    `substr(%[1]s, 1, %[2]s)`,
	cutAny:     `substr(concat(%[1]s, ''), 1, %[2]s)`,
	embedded:   true,
	marker: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row integer NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id text NOT NULL, created_at timestamp NOT NULL)`,
	parts: `
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
	archive: ArchiveSQL{
		Version:    `sqlite_version()`,
		TableNamed: `SELECT name FROM sqlite_schema WHERE type = 'table' AND name = ?`,
		Referrers: `SELECT '' AS schema_name, m.name AS name, f."from" AS field, f."table" AS target
			FROM sqlite_schema m JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table' AND f.seq = 0`,
		Quote:    `"`,
		Bytes:    `octet_length(%s)`,
		JSONText: `%s`,
		Upsert:   `ON CONFLICT (%s) DO UPDATE SET`,
		Proposed: `excluded.%s`,
	},
	recorder: sqliteRecorder{},
}
