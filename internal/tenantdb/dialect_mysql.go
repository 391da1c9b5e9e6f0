package tenantdb

import (
	"github.com/pressly/goose/v3"
)

// mysqlDialect is the dialect of MySQL and MariaDB.
var mysqlDialect = dialect{
	folder:        "mysql",
	migrations:    goose.DialectMySQL,
	driver:        "mysql",
	cutText:       `substr(%[1]s, 1, %[2]s)`,
	cutAny:        `substr(concat(%[1]s, ''), 1, %[2]s)`,
	beginSnapshot: `START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY`,
	foldsNames:    true,
	marker: `CREATE TABLE IF NOT EXISTS ` + MarkerTable + ` (single_row SMALLINT NOT NULL PRIMARY KEY CHECK (single_row = 1),
		store_id VARCHAR(36) NOT NULL, created_at DATETIME(6) NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci`,
	selfTest: `CREATE TABLE %s (id BIGINT NOT NULL PRIMARY KEY, words MEDIUMTEXT NOT NULL, amount BIGINT NOT NULL, truth BOOLEAN NOT NULL,
		moment DATETIME(6) NOT NULL, document JSON NOT NULL) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci`,
	selfTests: `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database() AND table_name LIKE 'stoa!_selftest!_%' ESCAPE '!' LIMIT 100`,
	parts: `
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
	archive: ArchiveSQL{
		Version:    `version()`,
		TableNamed: `SELECT table_name AS name FROM information_schema.tables WHERE table_schema = database() AND table_name = ?`,
		// An owner can convert a table to an engine without transactions.
		Unsafe: `SELECT substr(table_name, 1, 64) AS t FROM information_schema.tables
			WHERE table_schema = database() AND table_type = 'BASE TABLE' AND engine <> 'InnoDB' ORDER BY table_name LIMIT 10000`,
		Referrers: `SELECT CASE WHEN table_schema = database() THEN '' ELSE table_schema END AS schema_name, table_name AS name, column_name AS field,
				referenced_table_name AS target
			FROM information_schema.key_column_usage WHERE referenced_table_schema = database() AND ordinal_position = 1`,
		Quote:    "`",
		Bytes:    `length(%s)`,
		JSONText: `%s`,
		Upsert:   `ON DUPLICATE KEY UPDATE`,
		Proposed: `VALUES(%s)`,
	},
	recorder: mysqlRecorder{},
}
