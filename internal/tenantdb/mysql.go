package tenantdb

import (
	"context"
	"crypto/sha1" //nolint:gosec // only for a name
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
)

// MySQLRelease returns the release of a server that reports a version. The minimum is the
// oldest version that enforces CHECK constraints and has the JSON functions that Stoa uses.
func MySQLRelease(version string) Release {
	if strings.Contains(version, "MariaDB") {
		return Release{Product: "MariaDB", Version: version, Minimum: "10.6"}
	}
	return Release{Product: "MySQL", Version: version, Minimum: "8.0.16"}
}

type mysqlEngine struct{ log *slog.Logger }

// Open sets every field of the configuration explicitly. A merchant's DSN never
// reaches the driver, because its parameters can read local files.
func (e mysqlEngine) Open(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	encryption, err := c.TlsConfig()
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(newMySQLConnector(mysqlConfig(c), dial, encryption, state, e.log)), nil
}

// mysqlConfig returns the driver's configuration for a database.
func mysqlConfig(c credential.Credentials) *mysql.Config {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Passwd, cfg.DBName = c.User, c.Password.Reveal(), c.Database
	cfg.Addr = net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	cfg.Collation = "utf8mb4_unicode_ci"
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.ClientFoundRows = true   // rows matched, as on the other engines
	cfg.Logger = discardLogger{} // faults are returned; the driver's log would repeat them
	cfg.Params = mysqlSettings
	return cfg
}

type discardLogger struct{}

func (discardLogger) Print(...any) {}

func (mysqlEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	var in Inspection
	var version string
	if err := db.Get(ctx, &version, `SELECT version()`); err != nil {
		return in, err
	}
	in.setRelease(MySQLRelease(version))
	// MySQL has no function that reports this right. The first CREATE TABLE
	// reports it.
	in.MayCreate = true
	// A store's tables declare their character set. The database's default
	// character set applies only to other tables.
	in.Unicode = true
	if err := db.Get(ctx, &in.Encoding, `SELECT @@character_set_database`); err != nil {
		return in, err
	}
	var readOnly string // a number on MySQL, a word on newer MariaDB; compatible servers may lack it
	err := db.Get(ctx, &readOnly, `SELECT concat(@@global.read_only, @@global.innodb_read_only)`)
	if err != nil && !IsMySQL(err, unknownVariable) {
		return in, err
	}
	if err == nil && strings.Trim(strings.ReplaceAll(readOnly, "OFF", ""), "0") != "" {
		return in, faultReadOnly.because(nil)
	}
	err = in.listTables(ctx, db, `SELECT table_name AS table_name FROM information_schema.tables
		WHERE table_schema = database() ORDER BY table_name LIMIT ?`)
	return in, err
}

// Session implements Engine.
func (e mysqlEngine) Session(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error) {
	return e.Open(c, dial, state)
}

// pin implements Engine.
func (mysqlEngine) pin(ctx context.Context, db *DB, _ stoa.StoreID) error {
	return db.checkMySQL(ctx)
}

// warnings implements Engine.
func (mysqlEngine) warnings(ctx context.Context, db *DB) ([]Warning, error) {
	return db.mysqlWarnings(ctx)
}

// sessions implements Engine. MySQL commits the statements of a schema change
// one by one. Migrations that can run twice complete what an interruption left.
func (mysqlEngine) sessions(credential.Credentials) bool { return true }

func (mysqlEngine) migrator(credential.Credentials, *sessionState) migrator {
	return migrator{dialect: &mysqlDialect, take: acquireLock, give: releaseLocks, prepare: repairVersionTable}
}

// acquireLock waits for the migration lock until ctx is done.
func acquireLock(ctx context.Context, conn *sql.Conn) error {
	var database string
	if err := conn.QueryRowContext(ctx, `SELECT database()`).Scan(&database); err != nil {
		return err
	}
	var granted sql.NullInt64
	// The name applies to the whole server. MySQL 9.6 and newer have no sha1().
	name := fmt.Sprintf("stoa.%x", sha1.Sum([]byte(database))) //nolint:gosec // only a name; earlier releases use the same one
	if err := conn.QueryRowContext(ctx, `SELECT GET_LOCK(?, 3600)`, name).Scan(&granted); err != nil {
		return err
	}
	if granted.Int64 != 1 {
		return NoProgress(errors.New("GET_LOCK did not grant the migration lock"))
	}
	return nil
}

func releaseLocks(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, `DO RELEASE_ALL_LOCKS()`)
	return err
}

// repairVersionTable adds the row that goose inserts right after it creates its
// table. goose refuses to work without this row, which is missing after an
// interruption between the two statements.
func repairVersionTable(ctx context.Context, conn *sql.Conn, table string) error {
	//nolint:gosec // the table is one of two constants
	_, err := conn.ExecContext(ctx, `INSERT INTO `+table+` (version_id, is_applied)
		SELECT 0, true FROM DUAL WHERE NOT EXISTS (SELECT 1 FROM `+table+`)`)
	var myErr *mysql.MySQLError
	if errors.As(err, &myErr) && myErr.Number == 1146 { // ER_NO_SUCH_TABLE: no migration has begun
		return nil
	}
	return err
}

// Fault implements Engine. It uses mysqlFaults.
func (mysqlEngine) Fault(err error) *stoa.Error {
	var setting *settingError
	if errors.As(err, &setting) {
		return setting.fault()
	}
	if IsMySQL(err, newAborting) {
		return initConnectFailed(err)
	}
	var myErr *mysql.MySQLError
	if errors.As(err, &myErr) {
		if fault, ok := mysqlFaults[myErr.Number]; ok {
			return fault.because(err)
		}
	}
	if fault := networkFault(err); fault != nil {
		return fault
	}
	var connectErr *mysqlConnectError
	switch {
	case errors.Is(err, mysql.ErrMalformPkt), errors.Is(err, mysql.ErrPktSync), errors.Is(err, mysql.ErrPktSyncMul):
		return protocolBroken(err)
	case errors.As(err, &connectErr), errors.Is(err, mysql.ErrInvalidConn):
		return unreachable(err)
	}
	return nil
}
