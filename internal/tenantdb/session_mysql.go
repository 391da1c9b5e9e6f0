package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa"
)

// mysqlSettings are set by each connection in one statement, after the server
// has run its init_connect. The driver sends SET with each name and value; the
// only value here ends in further assignments. Variables that exist on one
// server only are in comments that only this server executes. Any user may set
// all of them.
// Source: MySQL manual, "Server System Variables" and "Comments"; MariaDB
// knowledge base, "Server System Variables" and "Comment Syntax".
var mysqlSettings = map[string]string{"time_zone": strings.Join(append([]string{"'+00:00'"}, mysqlAssignments...), ", ") +
	` /*!80000 , transaction_isolation = 'REPEATABLE-READ', transaction_read_only = 0, max_execution_time = 0 */` +
	` /*M! , tx_isolation = 'REPEATABLE-READ', tx_read_only = 0, max_statement_time = 0, idle_transaction_timeout = 0, idle_write_transaction_timeout = 0, sql_if_exists = 0 */`}

var mysqlAssignments = append(slices.Clone(mysqlEssentials),
	"completion_type = 0",
	"unique_checks = 1",
	"default_storage_engine = InnoDB", "default_tmp_storage_engine = InnoDB",
	"sql_safe_updates = 0", "sql_select_limit = 18446744073709551615", "sql_big_selects = 1",
	"sql_auto_is_null = 0", "sql_quote_show_create = 1",
	"group_concat_max_len = 1048576", "div_precision_increment = 4", "max_sort_length = 1024",
	"lock_wait_timeout = 86400", "innodb_lock_wait_timeout = 50",
	// wait_timeout is longer than a store's connection is kept unused.
	"wait_timeout = 28800", "net_read_timeout = 60",
	// What is made of a stream of rows may let the server wait.
	"net_write_timeout = 600",
)

// mysqlEssentials are the assignments of variables that every server has and
// whose values are required.
var mysqlEssentials = []string{
	"autocommit = 1",
	"sql_mode = 'TRADITIONAL,NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY'",
	// These are set here too, because some servers ignore what the client's
	// greeting requests.
	"character_set_client = utf8mb4", "character_set_results = utf8mb4", "collation_connection = utf8mb4_unicode_ci",
	"foreign_key_checks = 1",
}

// essentialMySQLSettings are for a server that uses MySQL's protocol and lacks
// a variable of the others. Such a server refuses the whole statement of
// mysqlSettings.
var essentialMySQLSettings = map[string]string{"time_zone": strings.Join(append([]string{"'+00:00'"}, mysqlEssentials...), ", ")}

// unknownVariable is ER_UNKNOWN_SYSTEM_VARIABLE.
const unknownVariable = 1193

// mysqlSessionLook contains what the server reports about a session's settings.
type mysqlSessionLook struct {
	Database   string `max:"64"`
	Autocommit string
	TimeZone   string `db:"zone"`
	Client     string
	Results    string
	Connection string
	Mode       string `max:"2000"`
	Keys       string
	Storage    string // Storage and Completion are read only on a server that has all variables
	Completion string
	Packet     int64
}

// These are the required values of Storage and Completion. A server without
// these variables has no other value.
const (
	storageEngine  = "InnoDB"
	completionType = "NO_CHAIN"
)

// minPacket is the minimum length that a server must allow for one value and
// its statement, in bytes.
const minPacket = 4 << 20

// checkMySQL checks that a session's settings have the values that were set,
// because a proxy may not pass them to the server.
func (db *DB) checkMySQL(ctx context.Context) error {
	var found mysqlSessionLook
	more := `, @@session.default_storage_engine AS storage, @@session.completion_type AS completion`
	if db.pinned.plain.Load() {
		more = ""
		found.Storage, found.Completion = storageEngine, completionType
	}
	err := db.account.getRow(ctx, db.sqlx, &found, `SELECT coalesce(database(), '') AS `+"`database`"+`, @@session.autocommit AS autocommit, @@session.time_zone AS zone,
		@@session.character_set_client AS client, coalesce(@@session.character_set_results, '') AS results, @@session.character_set_connection AS connection,
		@@session.sql_mode AS mode, @@session.foreign_key_checks AS `+"`keys`"+`, @@session.max_allowed_packet AS packet`+more, nil)
	if errors.Is(err, ErrNotFound) {
		return &contentError{reason: "no row about the session"}
	}
	if err != nil {
		return err
	}
	return found.Check(db.credentials.Database)
}

func (l mysqlSessionLook) Check(database string) error {
	for _, s := range []struct{ name, value, want string }{
		{name: "autocommit", value: l.Autocommit, want: "1"}, {name: "time_zone", value: l.TimeZone, want: "+00:00"},
		{name: "character_set_client", value: l.Client, want: "utf8mb4"}, {name: "character_set_results", value: l.Results, want: "utf8mb4"}, {name: "character_set_connection", value: l.Connection, want: "utf8mb4"},
		{name: "foreign_key_checks", value: l.Keys, want: "1"}, {name: "default_storage_engine", value: l.Storage, want: storageEngine}, {name: "completion_type", value: l.Completion, want: completionType},
	} {
		if !strings.EqualFold(s.value, s.want) {
			return &settingError{name: s.name, value: s.value, remedy: fmt.Sprintf("Have the server, or the proxy before it, keep SET SESSION %s = %s; then try again.", s.name, s.want)}
		}
	}
	mode := strings.Split(l.Mode, ",")
	for _, bad := range []string{"NO_BACKSLASH_ESCAPES", "ANSI_QUOTES", "PIPES_AS_CONCAT"} {
		if slices.Contains(mode, bad) {
			return &settingError{name: "sql_mode", value: l.Mode, remedy: "Have the server, or the proxy before it, keep SET SESSION sql_mode; then try again."}
		}
	}
	switch {
	case !slices.Contains(mode, "STRICT_TRANS_TABLES"):
		return &settingError{name: "sql_mode", value: l.Mode, remedy: "Have the server, or the proxy before it, keep SET SESSION sql_mode; then try again."}
	case l.Packet < minPacket:
		return &settingError{name: "max_allowed_packet", value: fmt.Sprint(l.Packet), remedy: fmt.Sprintf("Set it to %d or more in the server's configuration, then try again.", minPacket)}
	case !strings.EqualFold(l.Database, database):
		return &settingError{name: "init_connect", value: l.Database, remedy: "It changes the database of a new connection. Remove the USE statement from it, then try again."}
	}
	return nil
}

// newAborting is ER_NEW_ABORTING_CONNECTION.
const newAborting = 1184

// initConnectFailed returns the fault of a server whose init_connect ends every
// connection of a user who may not set server variables.
func initConnectFailed(err error) *stoa.Error {
	e := &settingError{name: "init_connect", value: "(fails)", remedy: "Correct its statement, or remove it: SET GLOBAL init_connect = ''; then try again."}
	return stoa.Errorf(stoa.DatabaseSettingRefused, "%s", e.fault().Message).WithCause(errors.Join(e, err))
}

// IsMySQL reports whether err is a server error with one of the numbers.
func IsMySQL(err error, numbers ...uint16) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer) && slices.Contains(numbers, answer.Number)
}
