package tenantdb

// mysqlFaults maps error numbers of MySQL, MariaDB and servers that use their
// protocol to faults. Stoa does not expect an error that is missing here: see
// ServerFault. docs/database-errors.md has a row for each number.
// Source: MySQL server error message reference; MariaDB error codes; TiDB error
// codes (from 8000).
var mysqlFaults = map[uint16]serverFault{
	1020: faultWaited, // ER_CHECKREAD, after the retries failed
	1021: faultFull,   // ER_DISK_FULL
	1030: faultDamaged,
	1034: faultDamaged, // ER_NOT_KEYFILE
	1035: faultDamaged,
	1037: faultMemory, // ER_OUTOFMEMORY
	1038: faultMemory,
	1040: faultOverloaded, // ER_CON_COUNT_ERROR
	1041: faultMemory,
	1044: faultPermission,
	1045: faultAuth,
	1049: faultNoDatabase,
	1050: faultMade, // ER_TABLE_EXISTS_ERROR
	1053: faultStarting,
	1054: faultMissing,
	1060: faultMade,
	1061: faultMade,
	1114: faultFull, // ER_RECORD_FILE_FULL
	1118: faultTooLarge,
	1129: faultNotAdmitted, // ER_HOST_IS_BLOCKED
	1130: faultNotAdmitted,
	1142: faultPermission,
	1143: faultPermission,
	1146: faultMissing,
	1152: faultStarting, // ER_ABORTING_CONNECTION
	1153: faultTooLarge, // ER_NET_PACKET_TOO_LARGE
	1158: faultUnreachable,
	1159: faultUnreachable,
	1160: faultUnreachable,
	1161: faultUnreachable,
	1194: faultDamaged, // ER_CRASHED_ON_USAGE
	1195: faultDamaged,
	1203: faultOverloaded,
	1205: faultWaited, // ER_LOCK_WAIT_TIMEOUT
	1206: faultWaited, // ER_LOCK_TABLE_FULL
	1213: faultWaited, // ER_LOCK_DEADLOCK, after the retries failed
	1226: faultOverloaded,
	1227: faultPermission,
	1235: faultLimit, // ER_NOT_SUPPORTED_YET
	1251: faultLogin, // ER_NOT_SUPPORTED_AUTH_MODE
	1275: faultLogin,
	1289: faultLimit,
	1290: faultReadOnly,
	1305: faultMissing,
	1317: faultWaited, // ER_QUERY_INTERRUPTED
	1370: faultPermission,
	1412: faultWaited,  // ER_TABLE_DEF_CHANGED, after the retries failed
	1449: faultTrigger, // ER_NO_SUCH_USER: of a trigger's definer
	1524: faultLogin,   // ER_PLUGIN_IS_NOT_LOADED
	1614: faultWaited,  // ER_XA_RBDEADLOCK
	1615: faultWaited,  // ER_NEED_REPREPARE, after the retries failed
	1644: faultTrigger, // SIGNAL
	1698: faultAuth,
	1792: faultReadOnly,
	1820: faultExpired,
	1836: faultReadOnly,
	1862: faultExpired,
	1878: faultFull,
	1927: faultStarting, // MariaDB: ER_CONNECTION_KILLED
	1969: faultWaited,   // MariaDB: ER_STATEMENT_TIMEOUT
	3024: faultWaited,   // ER_QUERY_TIMEOUT
	3118: faultLocked,
	3159: faultTLSRequired,
	3169: faultStarting, // ER_SESSION_WAS_KILLED
	3572: faultWaited,   // ER_LOCK_NOWAIT
	3819: faultTrigger,  // a CHECK that is not Stoa's
	4025: faultTrigger,  // the same on MariaDB
	4031: faultStarting, // ER_CLIENT_INTERACTION_TIMEOUT
	4151: faultLocked,   // the same on MariaDB
	8027: faultWaited,   // TiDB: the schema changes too fast
	8028: faultWaited,
	9001: faultStarting, // TiDB: its components do not answer
	9002: faultStarting,
	9003: faultOverloaded,
	9007: faultWaited, // TiDB: write conflict
}
