package tenantdb_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// mysqlPools returns pools to one database, in plaintext and encrypted, with
// and without the screen.
func mysqlPools(t *testing.T) (screened, plain map[string]*sql.DB) {
	t.Helper()
	if !slices.Contains(tenantdbtest.Engines(), credential.MySQL) {
		t.Skip("needs MySQL or MariaDB")
	}
	c := tenantdbtest.Create(t, credential.MySQL)
	c.TLS = credential.TLSDisable
	screened, plain = map[string]*sql.DB{}, map[string]*sql.DB{}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(realCA(t)))
	for name, config := range map[string]*tls.Config{"in clear": nil, "encrypted": {RootCAs: roots, ServerName: c.Host, MinVersion: tls.VersionTLS12}} {
		cfg := mysql.NewConfig()
		cfg.User, cfg.Passwd, cfg.DBName, cfg.TLS = c.User, c.Password.Reveal(), c.Database, config
		cfg.Net, cfg.Addr = "tcp", net.JoinHostPort(c.Host, strconv.Itoa(c.Port))
		cfg.Collation, cfg.ParseTime, cfg.Loc, cfg.ClientFoundRows = "utf8mb4_unicode_ci", true, time.UTC, true
		cfg.Params = map[string]string{"time_zone": "'+00:00'"}
		connector, err := mysql.NewConnector(cfg)
		testkit.Must(t, err)
		plain[name] = sql.OpenDB(connector)
		t.Cleanup(func() { _ = plain[name].Close() })
		if config != nil {
			c.TLS, c.CACertificate = credential.TLSVerify, realCA(t)
		}
		screened[name] = tenantdbtest.Open(t, c).SQL()
		plain[name].SetMaxOpenConns(1)
		screened[name].SetMaxOpenConns(1)
	}
	return screened, plain
}

// resultsOf returns all results of a query, as text.
func resultsOf(t *testing.T, pool *sql.DB, query string, args ...any) (results [][]string) {
	t.Helper()
	rows, err := pool.QueryContext(t.Context(), query, args...)
	testkit.Must(t, err)
	defer rows.Close() //nolint:errcheck // Err returns the error
	for more := true; more; more = rows.NextResultSet() {
		columns, err := rows.Columns()
		testkit.Must(t, err)
		result := slices.Clone(columns)
		values, into := make([]sql.NullString, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		for rows.Next() {
			testkit.Must(t, rows.Scan(into...))
			for _, v := range values {
				result = append(result, strconv.FormatBool(v.Valid)+v.String)
			}
		}
		results = append(results, result)
	}
	testkit.Must(t, rows.Err())
	return results
}

// TestMySQLScreenChangesNothing checks that the screen does not change what a
// real server sends: every type as text and as binary, NULLs, several results,
// rows of many packets.
func TestMySQLScreenChangesNothing(t *testing.T) {
	t.Parallel()
	screened, unscreened := mysqlPools(t)
	plain := unscreened["in clear"]
	exec := func(pool *sql.DB, query string, args ...any) {
		t.Helper()
		if _, err := pool.ExecContext(t.Context(), query, args...); err != nil {
			t.Fatalf("%.40s: %v", query, err)
		}
	}
	exec(plain, `CREATE TABLE types (id INT PRIMARY KEY, t TINYINT, s SMALLINT UNSIGNED, m MEDIUMINT, i INT UNSIGNED ZEROFILL, b BIGINT UNSIGNED,
		f FLOAT, d DOUBLE, n DECIMAL(30,10), y YEAR, da DATE, ti TIME(6), dt DATETIME(6), ts TIMESTAMP NULL, c CHAR(36), v VARCHAR(200), x TEXT,
		l LONGTEXT, bl BLOB, vb VARBINARY(20), bi BIT(12), e ENUM('one','two'), se SET('a','b'), j JSON, g GEOMETRY)`)
	exec(plain, `INSERT INTO types (id) VALUES (0)`) // all other columns are NULL
	id := 0
	for _, pool := range screened {
		id++
		exec(pool, `INSERT INTO types VALUES (?, -1, 65535, -8388608, 42, 18446744073709551615, 1.5, -1e300, '-12345678901234567890.0123456789', 2024,
			'9999-12-31', '-838:59:59.999999', '2024-02-29 23:59:59.000001', '2038-01-19 03:14:07', 'c', 'v', 'x', 'l', x'00ff', x'', b'101', 'two', 'a,b',
			'{"a": [1]}', ST_GeomFromText('POINT(1 2)'))`, id)
	}
	exec(plain, `CREATE PROCEDURE several() BEGIN SELECT 1 AS a; SELECT id FROM types; SELECT 'x' AS b FROM types WHERE id > 9; END`)
	const numbers = `WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 900) `
	for _, q := range []struct {
		query string
		args  []any
	}{
		{`SELECT * FROM types ORDER BY id`, nil},
		{`SELECT * FROM types WHERE id >= ? ORDER BY id`, []any{0}},
		{`SELECT * FROM types WHERE id > ?`, []any{9}},
		{`CALL several()`, nil},
		{`SELECT id FROM types WHERE id = ? AND ? IS NULL`, []any{1, nil}},
		{numbers + `SELECT i, repeat('r', i % 300) FROM n`, nil},
		{numbers + `SELECT i, repeat('r', i % 300), ? FROM n`, []any{"p"}},
		{`SELECT repeat('x', 5000000), repeat('y', 3000000), 'z'`, nil},
		{`SELECT repeat('x', 5000000), repeat('y', ?), 'z'`, []any{3_000_000}},
		{`SELECT repeat('x', 250), repeat('y', 251), repeat('z', 65535), repeat('a', 65536)`, nil}, // values at which the encoding of the length grows
	} {
		want := resultsOf(t, plain, q.query, q.args...)
		for name, pool := range screened {
			if got := resultsOf(t, pool, q.query, q.args...); !slices.EqualFunc(got, want, slices.Equal) {
				t.Errorf("%s: %s gives another result", name, q.query)
			}
		}
	}
	big := strings.Repeat("b", 7_000_000) // takes several packets
	for name, pool := range screened {
		var length, one int
		testkit.Must(t, pool.QueryRowContext(t.Context(), `SELECT length(?) + length(?)`, big, big).Scan(&length))
		if length != 2*len(big) {
			t.Errorf("%s: got %d", name, length)
		}
		if err := pool.QueryRowContext(t.Context(), `SELECT nothing`).Scan(&one); err == nil {
			t.Errorf("%s: no error", name)
		}
		testkit.Must(t, pool.QueryRowContext(t.Context(), `SELECT 1`).Scan(&one)) // on the same connection
	}
}

// TestMySQLScreenAllocations checks that the screen allocates nothing for a
// small query. Recovering from a driver's panics takes one allocation for rows
// and one for a prepared statement.
func TestMySQLScreenAllocations(t *testing.T) { // not parallel: it counts allocations
	screened, plain := mysqlPools(t)
	count := func(pool *sql.DB, query string, args ...any) float64 {
		return fewestAllocations(func() {
			var n int
			testkit.Must(t, pool.QueryRowContext(context.Background(), query, args...).Scan(&n))
		})
	}
	for _, q := range []struct {
		query string
		args  []any
		extra float64
	}{{`SELECT 1`, nil, 1}, {`SELECT 1 + ?`, []any{1}, 2}} {
		for name, pool := range screened {
			without, with := count(plain[name], q.query, q.args...), count(pool, q.query, q.args...)
			t.Logf("%s, %s: %v allocations, %v without the screen", q.query, name, with, without)
			if with > without+q.extra {
				t.Errorf("%s, %s: %v allocations, %v without the screen", q.query, name, with, without)
			}
		}
	}
}
