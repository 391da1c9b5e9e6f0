package supabasetest_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/testkit"
)

const password = "of a role"

var modes = []credential.Pooler{credential.SessionPooler, credential.TransactionPooler}

// at opens a connection as a client of Supabase does, and verifies the server's
// certificate.
func at(t *testing.T, s *supabasetest.Server, url string) (*pgx.Conn, error) {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	testkit.Must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(s.Rules().Roots))
	cfg.TLSConfig, cfg.Fallbacks = &tls.Config{RootCAs: pool, ServerName: supabasetest.PoolerHost, MinVersion: tls.VersionTLS12}, nil
	cfg.DefaultQueryExecMode, cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = pgx.QueryExecModeExec, 0, 0
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err == nil {
		t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	}
	return conn, err
}

func mustAt(t *testing.T, s *supabasetest.Server, url string) *pgx.Conn {
	t.Helper()
	conn, err := at(t, s, url)
	testkit.Must(t, err)
	return conn
}

// makeRole creates a role through the query endpoint, as the platform does.
func makeRole(t *testing.T, s *session, ref string) (role string) {
	t.Helper()
	role = "stoa_" + ref[:12]
	s.query(t, ref, strings.ReplaceAll(`CREATE ROLE $ LOGIN PASSWORD '`+password+`'; GRANT $ TO CURRENT_USER;
		CREATE SCHEMA $ AUTHORIZATION $; ALTER ROLE $ SET search_path = $`, "$", role)).want(t, 201)
	return role
}

// TestNewRoleLogsIn checks that a new role can log in through both poolers, in its own
// schema, and that the API's roles have no access to what it creates.
func TestNewRoleLogsIn(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	role := makeRole(t, s, ref)
	for _, mode := range modes {
		conn := mustAt(t, s.Server, s.ConnectionString(ref, role, password, mode))
		var user, schema string
		testkit.Must(t, conn.QueryRow(t.Context(), `SELECT current_user, current_schema`).Scan(&user, &schema))
		if user != role || schema != role {
			t.Errorf("%s: %s in %s", mode, user, schema)
		}
		_, err := conn.Exec(t.Context(), `CREATE TABLE IF NOT EXISTS mine AS SELECT 1 AS n`)
		testkit.Must(t, err)
	}
	r := s.query(t, ref, `SET ROLE anon; SELECT * FROM `+role+`.mine`).want(t, 400)
	if !strings.Contains(string(r.body), "42501") {
		t.Errorf("anon: %s", r.body)
	}
	owner := mustAt(t, s.Server, s.ConnectionString(ref, "postgres", s.Projects()[0].Password, credential.SessionPooler))
	testkit.Must(t, owner.Ping(t.Context()))
}

// TestModes checks that two clients of the transaction pooler share a session between
// transactions, and that two of the session pooler never do.
func TestModes(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	role := makeRole(t, s, ref)
	for _, mode := range modes {
		pid := func(conn *pgx.Conn) (pid int) {
			testkit.Must(t, conn.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&pid))
			return pid
		}
		one := mustAt(t, s.Server, s.ConnectionString(ref, role, password, mode))
		two := mustAt(t, s.Server, s.ConnectionString(ref, role, password, mode))
		tx, err := one.Begin(t.Context())
		testkit.Must(t, err)
		var first int
		testkit.Must(t, tx.QueryRow(t.Context(), `SELECT pg_backend_pid()`).Scan(&first))
		if during := pid(two); during == first {
			t.Errorf("%s: two transactions in one session", mode)
		}
		testkit.Must(t, tx.Commit(t.Context()))
		testkit.Must(t, two.Ping(t.Context()))
		shared := pid(one) == pid(two)
		if shared != (mode == credential.TransactionPooler) {
			t.Errorf("%s: shared %t", mode, shared)
		}
	}
}

func TestPoolersRefuse(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	role := makeRole(t, s, ref)
	s.query(t, ref, `CREATE ROLE `+role+`_not NOLOGIN PASSWORD '`+password+`'; GRANT `+role+`_not TO CURRENT_USER`).want(t, 201)
	stranger := strings.Repeat("x", 20)
	for _, mode := range modes {
		fine := s.ConnectionString(ref, role, password, mode)
		for _, tt := range []struct{ name, url, code, message string }{
			{"another project", s.ConnectionString(stranger, role, password, mode), "XX000", "(ENOTFOUND) tenant/user " + role + "." + stranger + " not found"},
			{"no project", strings.Replace(fine, "."+ref, "", 1), "XX000", "(ENOTFOUND) "},
			{"wrong password", s.ConnectionString(ref, role, "wrong", mode), "28P01", "password authentication failed"},
			{"no such role", s.ConnectionString(ref, "nobody", password, mode), "28P01", "password authentication failed"},
			{"another database", strings.Replace(fine, "/postgres", "/template1", 1), "3D000", ""},
		} {
			_, err := at(t, s.Server, tt.url)
			checkRefusal(t, string(mode)+" "+tt.name, err, tt.code, tt.message)
		}
		_, err := pgx.Connect(t.Context(), fine+"?sslmode=disable")
		checkRefusal(t, "plaintext", err, "XX000", "(ESSLREQUIRED) ")
		_, err = at(t, s.Server, s.ConnectionString(ref, role+"_not", password, mode))
		if err == nil {
			t.Errorf("%s: a role that may not log in did", mode)
		}
	}
}

// TestPoolersShutOutNoise checks that a client that does not speak PostgreSQL's protocol
// is disconnected.
func TestPoolersShutOutNoise(t *testing.T) {
	t.Parallel()
	s := supabasetest.New(t, supabasetest.Options{})
	for _, noise := range []string{"GET / HTTP/1.1\r\n\r\n", "\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x08\x00\x03\x00\x00", "\xff\xff\xff\xff\x00\x03\x00\x00"} {
		conn, err := net.Dial("tcp", net.JoinHostPort(supabasetest.PoolerHost, strconv.Itoa(s.Rules().TransactionPort)))
		testkit.Must(t, err)
		testkit.Must(t, conn.SetDeadline(time.Now().Add(20*time.Second)))
		_, err = conn.Write([]byte(noise))
		testkit.Must(t, err)
		_, err = io.Copy(io.Discard, conn)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%q keeps the connection", noise)
		}
		conn.Close()
	}
}

func checkRefusal(t *testing.T, name string, err error, code, message string) {
	t.Helper()
	var pgErr *pgconn.PgError
	if !errors.As(err, &pgErr) || pgErr.Severity != "FATAL" || pgErr.Code != code || !strings.HasPrefix(pgErr.Message, message) {
		t.Errorf("%s: got %v, want %s %s", name, err, code, message)
	}
}

// TestCircuitBreaker checks that a client that repeatedly sends a wrong password is
// refused for two minutes, also with the right one.
func TestCircuitBreaker(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	role := makeRole(t, s, ref)
	fine := s.ConnectionString(ref, role, password, credential.TransactionPooler)
	for range 10 {
		_, err := at(t, s.Server, s.ConnectionString(ref, role, "wrong", credential.TransactionPooler))
		checkRefusal(t, "wrong password", err, "28P01", "")
	}
	_, err := at(t, s.Server, fine)
	checkRefusal(t, "shut out", err, "XX000", "(ECIRCUITBREAKER) ")
	s.Pass(2 * time.Minute)
	mustAt(t, s.Server, fine)
}

func TestSessionPoolIsFull(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	role := makeRole(t, s, ref)
	for range supabasetest.SessionPoolSize {
		mustAt(t, s.Server, s.ConnectionString(ref, role, password, credential.SessionPooler))
	}
	_, err := at(t, s.Server, s.ConnectionString(ref, role, password, credential.SessionPooler))
	checkRefusal(t, "full", err, "XX000", "(EMAXCONNSESSION) ")
	mustAt(t, s.Server, s.ConnectionString(ref, role, password, credential.TransactionPooler))
}

// TestPausedProject checks that the connections of a paused project are closed, and that
// clients can connect again when it is restored.
func TestPausedProject(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	url := s.ConnectionString(ref, makeRole(t, s, ref), password, credential.TransactionPooler)
	conn := mustAt(t, s.Server, url)
	s.SetStatus(ref, "INACTIVE")
	if err := conn.Ping(t.Context()); err == nil {
		t.Error("a connection outlives the project's pause")
	}
	_, err := at(t, s.Server, url)
	checkRefusal(t, "paused", err, "XX000", "(ENOTFOUND) ")
	s.Restore(ref)
	s.Pass(2 * time.Minute)
	mustAt(t, s.Server, url)
}

// TestCancelPasses checks that a cancelled query also ends at the server.
func TestCancelPasses(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	conn := mustAt(t, s.Server, s.ConnectionString(ref, makeRole(t, s, ref), password, credential.TransactionPooler))
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(t.Context(), `SELECT pg_sleep(60)`)
		done <- err
	}()
	deadline := time.After(30 * time.Second)
	for { // wait until the query can be cancelled
		testkit.Must(t, conn.PgConn().CancelRequest(t.Context()))
		select {
		case err := <-done:
			var pgErr *pgconn.PgError
			if !errors.As(err, &pgErr) || pgErr.Code != "57014" {
				t.Errorf("got %v", err)
			}
			return
		case <-deadline:
			t.Fatal("the query goes on")
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// TestEngineComesThrough checks that the platform's own engine migrates and reads through
// the poolers.
func TestEngineComesThrough(t *testing.T) {
	t.Parallel()
	s, ref := withDatabase(t)
	c, err := s.Rules().Parse(keyring.NewSecret(s.ConnectionString(ref, makeRole(t, s, ref), password, credential.TransactionPooler)))
	testkit.Must(t, err)
	m := tenantdb.NewManager(nil, nil, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: s.Rules()})
	defer m.Close(context.WithoutCancel(t.Context())) //nolint:errcheck // no database is leased
	db, err := m.OpenUnleased(c)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // no statement is pending
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, db.Ping(t.Context()))
}
