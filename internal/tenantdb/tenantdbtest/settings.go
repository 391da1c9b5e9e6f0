package tenantdbtest

// HostileRole lists settings that the owner of a role can set with ALTER ROLE …
// SET. Each of them changes what a client stores, reads or may do. All of them
// together are one more case.
var HostileRole = []string{
	`DateStyle = 'German'`, `DateStyle = 'SQL, DMY'`, `IntervalStyle = 'sql_standard'`, `TimeZone = 'Asia/Kathmandu'`, `TimeZone = 'America/St_Johns'`,
	`client_encoding = 'LATIN1'`, `client_encoding = 'SJIS'`, `standard_conforming_strings = off`, `backslash_quote = off`, `escape_string_warning = on`,
	`bytea_output = 'escape'`, `extra_float_digits = -15`, `array_nulls = off`, `xmlbinary = 'hex'`, `quote_all_identifiers = on`, `transform_null_equals = on`,
	`default_transaction_isolation = 'serializable'`, `default_transaction_isolation = 'repeatable read'`, `default_transaction_read_only = on`,
	`default_transaction_deferrable = on`, `statement_timeout = '1ms'`, `lock_timeout = '1ms'`, `idle_in_transaction_session_timeout = '1ms'`,
	`idle_session_timeout = '300ms'`, `row_security = off`, `synchronous_commit = off`, `check_function_bodies = off`, `gin_fuzzy_search_limit = 1`,
	`exit_on_error = on`, `client_min_messages = 'debug5'`, `search_path = nowhere, public, pg_catalog`, `search_path = public, pg_temp`, `default_text_search_config = 'pg_catalog.russian'`,
	`lc_numeric = 'C'`, `enable_seqscan = off`, `enable_hashjoin = off`, `enable_indexscan = off`, `plan_cache_mode = 'force_generic_plan'`, `jit = on`,
	`work_mem = '64kB'`, `password_encryption = 'md5'`,
}

// HostileGlobals lists settings of a MySQL or MariaDB server that SET GLOBAL
// accepts and that a new session inherits, and statements that init_connect
// runs in each session. A setting that a server does not have is omitted there.
var HostileGlobals = []string{
	`autocommit = 0`, `init_connect = 'SET autocommit = 0'`, `init_connect = 'SET NAMES latin1'`, `init_connect = 'SET sql_mode = ""'`,
	`init_connect = 'SET foreign_key_checks = 0, unique_checks = 0'`, `init_connect = 'SET SESSION TRANSACTION READ ONLY'`,
	`init_connect = 'SET time_zone = "+05:45"'`, `init_connect = 'SET default_storage_engine = MyISAM'`, `init_connect = 'SET sql_select_limit = 1'`,
	`sql_mode = ''`, `sql_mode = 'NO_BACKSLASH_ESCAPES'`, `sql_mode = 'ANSI'`, `sql_mode = 'PAD_CHAR_TO_FULL_LENGTH'`, `time_zone = '-08:00'`,
	`character_set_client = latin1`, `character_set_connection = latin1`, `character_set_results = latin1`, `character_set_server = latin1`,
	`collation_connection = latin1_swedish_ci`, `transaction_isolation = 'SERIALIZABLE'`, `tx_isolation = 'SERIALIZABLE'`, `transaction_isolation = 'READ-UNCOMMITTED'`,
	`transaction_read_only = 1`, `tx_read_only = 1`, `foreign_key_checks = 0`, `unique_checks = 0`, `sql_safe_updates = 1`, `sql_select_limit = 1`,
	`max_join_size = 1`, `group_concat_max_len = 4`, `max_execution_time = 1`, `max_statement_time = 0.0001`, `lock_wait_timeout = 1`, `innodb_lock_wait_timeout = 1`,
	`default_storage_engine = MyISAM`, `default_tmp_storage_engine = MyISAM`, `completion_type = CHAIN`, `completion_type = 2`, `sql_auto_is_null = 1`,
	`wait_timeout = 1`, `net_read_timeout = 1`, `net_write_timeout = 1`, `div_precision_increment = 0`, `explicit_defaults_for_timestamp = 0`,
	`max_sort_length = 8`, `sql_quote_show_create = 0`, `idle_transaction_timeout = 1`, `sql_require_primary_key = 1`, `innodb_strict_mode = 0`,
	`old_mode = 'ZERO_DATE_TIME_CAST'`, `auto_increment_increment = 7`, `max_heap_table_size = 16384`,
}
