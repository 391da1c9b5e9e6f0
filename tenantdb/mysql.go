package tenantdb

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/pressly/goose/v3"

	"github.com/stoahq/stoa"
)

// The oldest versions with enforced CHECK constraints and the JSON functions
// in use.
const (
	minMySQL   = "8.0.16"
	minMariaDB = "10.6"
)

type mysqlEngine struct{}

// Open sets every field of the configuration by hand. A merchant's DSN never
// reaches the driver: its parameters can read local files.
func (mysqlEngine) Open(c Credentials, dial DialFunc) (*sql.DB, error) {
	cfg := mysql.NewConfig()
	var err error
	if cfg.TLS, err = c.tlsConfig(); err != nil {
		return nil, err
	}
	cfg.User, cfg.Passwd, cfg.DBName = c.User, c.Password.Reveal(), c.Database
	cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
	cfg.DialFunc = dial
	cfg.Timeout = 10 * time.Second
	cfg.Collation = "utf8mb4_unicode_ci"
	cfg.ParseTime, cfg.Loc = true, time.UTC
	cfg.ClientFoundRows = true // rows matched, as on the other engines
	cfg.Logger = silent{}      // faults are returned; the driver's own log would say them twice
	// The session's zone and mode must not depend on the server's settings.
	cfg.Params = map[string]string{
		"time_zone": "'+00:00'",
		"sql_mode":  "'TRADITIONAL,NO_ENGINE_SUBSTITUTION,ONLY_FULL_GROUP_BY'",
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

type silent struct{}

func (silent) Print(...any) {}

func (mysqlEngine) Inspect(ctx context.Context, db *DB) (Inspection, error) {
	var in Inspection
	if err := db.Get(ctx, &in.Version, `SELECT version()`); err != nil {
		return in, err
	}
	minimum := minMySQL
	in.Minimum = "MySQL " + minMySQL
	if strings.Contains(in.Version, "MariaDB") {
		minimum, in.Minimum = minMariaDB, "MariaDB "+minMariaDB
	}
	in.Supported = atLeast(in.Version, minimum)
	// MySQL has no function that answers this; the first CREATE TABLE does.
	in.MayCreate = true
	err := db.Select(ctx, &in.Tables, `SELECT table_name AS table_name FROM information_schema.tables
		WHERE table_schema = database() ORDER BY table_name`)
	return in, err
}

func (mysqlEngine) Migrations(db *sql.DB) (*goose.Provider, error) {
	return newProvider(goose.DialectMySQL, db, "mysql")
}

// Fault reads MySQL's error numbers; MariaDB shares these.
// Source: MySQL server error message reference.
func (mysqlEngine) Fault(err error) *stoa.Error {
	var myErr *mysql.MySQLError
	if errors.As(err, &myErr) {
		switch myErr.Number {
		case 1045, 1698: // ER_ACCESS_DENIED_ERROR, ER_ACCESS_DENIED_NO_PASSWORD_ERROR
			return authFailed(err)
		case 1049: // ER_BAD_DB_ERROR
			return noSuchDatabase(err)
		case 1044, 1142, 1227, 1370: // database, table, privilege, routine access denied
			return permissionDenied(err)
		case 1040, 1203, 1226: // too many connections: server, user, resource limit
			return overloaded(err)
		case 1053, 1152, 1927: // shutdown in progress, aborted, killed
			return unreachable(err)
		}
		return nil
	}
	if errors.Is(err, mysql.ErrNoTLS) {
		return networkFault(errors.Join(errNoTLS, err))
	}
	if fault := networkFault(err); fault != nil {
		return fault
	}
	for _, lost := range []error{mysql.ErrInvalidConn, driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF} {
		if errors.Is(err, lost) {
			return unreachable(err)
		}
	}
	return nil
}
