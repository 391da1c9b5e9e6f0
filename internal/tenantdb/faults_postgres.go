package tenantdb

import (
	"errors"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
)

// postgresFaults maps SQLSTATEs to faults. A key of two or three characters
// stands for all SQLSTATEs that begin with it. Stoa does not expect an error
// that is missing here: see ServerFault. docs/database-errors.md has a row for
// each key.
// Source: PostgreSQL manual, appendix A; PgBouncer, whose own errors are 08P01.
var postgresFaults = map[string]serverFault{
	"08":    faultUnreachable, // connection exceptions
	"08P01": faultOverloaded,  // PgBouncer: no more connections, or none became free in time
	"0A000": faultLimit,       // feature_not_supported
	"22021": faultEncoding,    // character_not_in_repertoire
	"22P05": faultEncoding,    // untranslatable_character
	"25001": faultWaited,      // active_sql_transaction: a pooler's session was left in one
	"25006": faultReadOnly,
	"25P02": faultWaited,   // in_failed_sql_transaction
	"25P03": faultStarting, // idle_in_transaction_session_timeout ended the session
	"25P04": faultWaited,   // transaction_timeout
	"28":    faultAuth,     // invalid authorization
	"28000": faultAdmitted, // pg_hba.conf, or a role that may not log in
	"3D000": faultNoDatabase,
	"3F000": faultMissing, // invalid_schema_name
	"40":    faultWaited,  // serialization failures and deadlocks, after the retries failed
	"42501": faultPermission,
	"42P06": faultMade, // duplicate_schema
	"42P07": faultMade, // duplicate_table
	"42701": faultMade, // duplicate_column
	"42710": faultMade, // duplicate_object
	"42723": faultMade, // duplicate_function
	"42703": faultMissing,
	"42704": faultMissing,
	"42883": faultMissing,
	"42P01": faultMissing,
	"53":    faultOverloaded,
	"53100": faultFull,
	"53200": faultMemory,
	"54":    faultTooLarge, // program_limit_exceeded
	"55":    faultWaited,   // object_in_use and the like
	"55000": faultStarting, // object_not_in_prerequisite_state: the database accepts no connections at present
	"55P03": faultWaited,   // lock_not_available
	"57014": faultWaited,   // query_canceled
	"57P":   faultStarting, // shut down, crashed, not ready, idle for too long
	"57P04": faultNoDatabase,
	"58":    faultDamaged,  // system_error: the server's files
	"58000": faultStarting, // system_error without details; the archive or the network storage
	"F0":    faultDamaged,  // config_file_error
	"P0001": faultTrigger,  // RAISE
	"P0":    faultTrigger,
	"XX001": faultDamaged, // data_corrupted
	"XX002": faultDamaged, // index_corrupted
}

var faultEncoding = serverFault{stoa.TenantError, false, "The database cannot keep every character. It must be in UTF-8: create it with ENCODING 'UTF8', then connect again."}

// postgresFault looks up a SQLSTATE: first the whole code, then its prefixes.
func postgresFault(code string) (serverFault, bool) {
	if len(code) != 5 {
		return serverFault{}, false
	}
	for _, key := range []string{code, code[:3], code[:2]} {
		if f, ok := postgresFaults[key]; ok {
			return f, true
		}
	}
	return serverFault{}, false
}

// IsState reports whether err is a PostgreSQL server's error with that SQLSTATE.
func IsState(err error, state string) bool {
	var pgErr *pgconn.PgError
	return errors.As(err, &pgErr) && pgErr.Code == state
}
