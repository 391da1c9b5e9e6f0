package tenantdb

import (
	"database/sql"

	"github.com/pressly/goose/v3"
)

// postgresDialect is the dialect of PostgreSQL and Supabase.
var postgresDialect = dialect{
	folder:     "postgres",
	migrations: goose.DialectPostgres,
	driver:     "pgx",
	// The planner drops a cast to a length that the column cannot exceed, so that a read of
	// Stoa's own schema costs the server nothing.
	cutText:     `CAST(%[1]s AS varchar(%[2]s))`,
	cutAny:      `CAST(%[1]s AS varchar(%[2]s))`,
	isolation:   sql.LevelReadCommitted,
	snapshot:    sql.LevelRepeatableRead,
	native:      true,
	sharedNames: true,
	marker: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row smallint NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id varchar(36) NOT NULL, created_at timestamptz NOT NULL)`,
	selfTest: `CREATE TABLE %s (id bigint NOT NULL PRIMARY KEY, words text NOT NULL, amount bigint NOT NULL, truth boolean NOT NULL,
		moment timestamptz NOT NULL, document jsonb NOT NULL)`,
	selfTests: `SELECT relname::text AS name FROM pg_catalog.pg_class WHERE relkind = 'r' AND relname LIKE 'stoa!_selftest!_%' ESCAPE '!'
		AND relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) LIMIT 100`,
	parts: `
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
	archive: ArchiveSQL{
		Version:    `current_setting('server_version')`,
		TableNamed: `SELECT relname::text AS name FROM pg_catalog.pg_class WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()) AND relname = ?`,
		Referrers: `SELECT CASE WHEN n.nspname = current_schema() THEN '' ELSE n.nspname::text END AS schema_name, c.relname::text AS name, a.attname::text AS field,
				r.relname::text AS target
			FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_class c ON c.oid = k.conrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_catalog.pg_class r ON r.oid = k.confrelid JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace AND rn.nspname = current_schema()
			JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.conkey[1]
			WHERE k.contype = 'f'
			UNION ALL SELECT CASE WHEN n.nspname = current_schema() THEN '' ELSE n.nspname::text END, c.relname::text, 'tableoid', r.relname::text
			FROM pg_catalog.pg_inherits i JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
			JOIN pg_catalog.pg_class r ON r.oid = i.inhparent JOIN pg_catalog.pg_namespace rn ON rn.oid = r.relnamespace AND rn.nspname = current_schema()`,
		Quote:    `"`,
		Bytes:    `octet_length(%s)`,
		JSONText: `%s::text`,
		Upsert:   `ON CONFLICT (%s) DO UPDATE SET`,
		Proposed: `excluded.%s`,
		CopyIn:   true,
	},
	recorder: postgresRecorder{},
}
