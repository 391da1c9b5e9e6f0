package tenantdb_test

import (
	"context"
	"crypto/tls"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// servers returns the available engines that have their own server.
func servers() []credential.EngineName {
	return slices.DeleteFunc(tenantdbtest.Engines(), func(e credential.EngineName) bool { return e == credential.SQLite })
}

// checkFault fails the test unless err has code, hides the password and has a
// message for a person: without an address, a name or the driver's words.
func checkFault(t *testing.T, err error, code stoa.Code, c credential.Credentials) {
	t.Helper()
	var e *stoa.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Fatalf("got %v, want %s", err, code)
	}
	if text := fmt.Sprintf("%v %+v %#v", err, *e, err); strings.Contains(text, c.Password.Reveal()) {
		t.Errorf("password in %s", text)
	}
	for _, private := range []string{c.Host, c.User, c.Database, "dial", "SQLSTATE", "EOF"} {
		if strings.Contains(e.Message, private) {
			t.Errorf("%q in the message %q", private, e.Message)
		}
	}
}

func TestFaultsOfServers(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		change func(*testing.T, *credential.Credentials)
		want   stoa.Code
	}{
		{"wrong password", func(_ *testing.T, c *credential.Credentials) { c.Password = keyring.NewSecret(marker) }, stoa.DatabaseAuthFailed},
		{"unknown user", func(_ *testing.T, c *credential.Credentials) { c.User = "nobody-" + c.User }, stoa.DatabaseAuthFailed},
		{"closed port", func(t *testing.T, c *credential.Credentials) { c.Port = closedPort(t) }, stoa.DatabaseUnreachable},
		{"no such name", func(_ *testing.T, c *credential.Credentials) { c.Host = "nowhere.invalid" }, stoa.DatabaseUnreachable},
		{"unknown authority", func(_ *testing.T, c *credential.Credentials) { c.TLS = credential.TLSVerify }, stoa.DatabaseTLSFailed},
		{"private address", func(_ *testing.T, c *credential.Credentials) { c.Host = "10.255.255.1" }, stoa.DatabaseHostForbidden},
		{"metadata address", func(_ *testing.T, c *credential.Credentials) { c.Host = "169.254.169.254" }, stoa.DatabaseHostForbidden},
		{"mapped address", func(_ *testing.T, c *credential.Credentials) { c.Host = "::ffff:169.254.169.254" }, stoa.DatabaseHostForbidden},
		{"plaintext to a public address", func(_ *testing.T, c *credential.Credentials) { c.Host = "8.8.8.8" }, stoa.DatabaseTLSFailed},
	}
	for _, engine := range servers() {
		for _, tt := range tests {
			t.Run(string(engine)+" "+tt.name, func(t *testing.T) {
				t.Parallel()
				c := tenantdbtest.Create(t, engine)
				tt.change(t, &c)
				db := tenantdbtest.Open(t, c)
				checkFault(t, db.Ping(t.Context()), tt.want, c)
				var n int
				checkFault(t, db.Get(t.Context(), &n, `SELECT 1`), tt.want, c)
				checkFault(t, db.Tx(t.Context(), func(*tenantdb.Tx) error { return nil }), tt.want, c)
			})
		}
	}
}

func TestUnknownDatabase(t *testing.T) {
	t.Parallel()
	for engine, want := range map[credential.EngineName]stoa.Code{
		credential.PostgreSQL: stoa.DatabaseUnreachable,
		// For a user without a right on the name, this server reports no more
		// than that.
		credential.MySQL: stoa.DatabasePermissionDenied,
	} {
		if !slices.Contains(tenantdbtest.Engines(), engine) {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, engine)
			c.Database += "_gone"
			checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), want, c)
		})
	}
}

// TestGuest checks that a user who may not create tables gets an error: from
// Inspect if the server can report it, and from the migration in any case. It
// also checks that other users' tables are seen even by a user who may not read
// them.
func TestGuest(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, engine)
			guest := tenantdbtest.Guest(t, c)
			db := tenantdbtest.Open(t, guest)
			in, err := db.Inspect(t.Context())
			testkit.Must(t, err)
			if want := engine == credential.MySQL; in.MayCreate != want {
				t.Errorf("MayCreate is %v", in.MayCreate)
			}
			_, err = db.Migrate(t.Context())
			checkFault(t, err, stoa.DatabasePermissionDenied, guest)

			tenantdbtest.Exec(t, c, `CREATE TABLE theirs (n integer)`)
			in, err = db.Inspect(t.Context())
			testkit.Must(t, err)
			if !slices.Contains(in.Tables, "theirs") {
				t.Errorf("tables of others are not seen: %v", in.Tables)
			}
		})
	}
}

func TestReadOnlyServer(t *testing.T) {
	t.Parallel()
	if !slices.Contains(tenantdbtest.Engines(), credential.PostgreSQL) {
		t.Skip("needs PostgreSQL")
	}
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	db := tenantdbtest.Open(t, c)
	var sessions []int
	err := db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		var pid int
		testkit.Must(t, tx.Get(t.Context(), &pid, `SELECT pg_backend_pid()`))
		sessions = append(sessions, pid)
		_, err := tx.Exec(t.Context(), `SET TRANSACTION READ ONLY`)
		testkit.Must(t, err)
		_, err = tx.Exec(t.Context(), `CREATE TABLE t (n integer)`)
		return err
	})
	checkFault(t, err, stoa.DatabasePermissionDenied, c)
	if len(sessions) != 2 || sessions[0] == sessions[1] {
		t.Errorf("tried in the sessions %v, want two", sessions)
	}
}

func closedPort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	testkit.Must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// at returns credentials for a server that the test implements with serve,
// which handles the server's side of each connection.
func at(t *testing.T, engine credential.EngineName, mode credential.TLSMode, serve func(net.Conn)) credential.Credentials {
	t.Helper()
	port, accepted := listen(t)
	go func() {
		for c := range accepted {
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	n, err := strconv.Atoi(port)
	testkit.Must(t, err)
	return credential.Credentials{
		Kind: credential.Kind(engine), Engine: engine, Host: "127.0.0.1", Port: n, Database: "private-d", User: "private-u",
		Password: keyring.NewSecret(marker), TLS: mode,
	}
}

// mysqlPacket frames a payload. Source: MySQL protocol, "Packets".
func mysqlPacket(sequence byte, payload []byte) []byte {
	return append([]byte{byte(len(payload)), byte(len(payload) >> 8), 0, sequence}, payload...)
}

// mysqlGreeting returns the first packet of a server that supports TLS.
// Source: MySQL protocol, "Protocol::HandshakeV10".
func mysqlGreeting(plugin string) []byte {
	p := append([]byte{10}, "8.0.36\x00"...)
	p = append(p, 1, 0, 0, 0)
	p = append(p, "12345678\x00"...)
	p = append(p, 0x08, 0x8a, 45, 2, 0, 0x08, 0, 21) // SSL, PROTOCOL_41, SECURE_CONNECTION; PLUGIN_AUTH
	p = append(p, make([]byte, 10)...)
	p = append(p, "123456789012\x00"...)
	return mysqlPacket(0, append(append(p, plugin...), 0))
}

func mysqlRefusal(number uint16) []byte {
	return mysqlPacket(0, append([]byte{0xff, byte(number), byte(number >> 8)}, "refused"...))
}

func TestServerCertificateIsNotTrusted(t *testing.T) {
	t.Parallel()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	s.Close()
	for engine, preamble := range map[credential.EngineName]func(net.Conn){
		credential.PostgreSQL: func(c net.Conn) {
			_, _ = io.ReadFull(c, make([]byte, 8)) // SSLRequest
			_, _ = c.Write([]byte("S"))
		},
		credential.MySQL: func(c net.Conn) {
			_, _ = c.Write(mysqlGreeting("caching_sha2_password"))
			_, _ = io.ReadFull(c, make([]byte, 36)) // SSLRequest
		},
	} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c := at(t, engine, credential.TLSVerify, func(conn net.Conn) {
				preamble(conn)
				encrypted := tls.Server(conn, s.TLS)
				_, _ = io.Copy(io.Discard, encrypted)
			})
			err := tenantdbtest.Open(t, c).Ping(t.Context())
			checkFault(t, err, stoa.DatabaseTLSFailed, c)
			if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestStrangeServers checks that a hostile or broken server, or an endpoint
// that is no database server, causes an error for its owner. It causes no panic
// and receives no password in clear text.
func TestStrangeServers(t *testing.T) {
	t.Parallel()
	heard := make(chan []byte, 16) // a driver may retry
	tests := []struct {
		name   string
		engine credential.EngineName
		serve  func(net.Conn)
		want   stoa.Code
	}{
		{"closes at once", credential.PostgreSQL, func(net.Conn) {}, stoa.DatabaseUnreachable},
		{"closes at once", credential.MySQL, func(net.Conn) {}, stoa.DatabaseUnreachable},
		{"speaks HTTP", credential.PostgreSQL, say("HTTP/1.1 400 Bad Request\r\n\r\n"), stoa.DatabaseUnreachable},
		{"speaks HTTP", credential.MySQL, say("HTTP/1.1 400 Bad Request\r\n\r\n"), stoa.DatabaseUnreachable},
		{"error without a code", credential.PostgreSQL, postgresError(""), stoa.DatabaseUnreachable},
		{"error with a short code", credential.PostgreSQL, postgresError("5"), stoa.DatabaseUnreachable},
		{"error with an unknown code", credential.PostgreSQL, postgresError("XX000"), stoa.DatabaseUnreachable},
		{"starting up", credential.PostgreSQL, postgresError("57P03"), stoa.DatabaseUnreachable},
		{"too many connections", credential.PostgreSQL, postgresError("53300"), stoa.DatabaseUnreachable},
		{"not in pg_hba.conf", credential.PostgreSQL, postgresError("28000"), stoa.DatabaseAuthFailed},
		{"claims a gigabyte", credential.PostgreSQL, func(c net.Conn) {
			_, _ = io.WriteString(c, "R\x3f\xff\xff\xff")
			_, _ = io.Copy(io.Discard, c)
		}, stoa.DatabaseUnreachable},
		{"wants the password in clear", credential.PostgreSQL, func(c net.Conn) {
			b := pgproto3.NewBackend(c, c)
			_, _ = b.ReceiveStartupMessage()
			b.Send(&pgproto3.AuthenticationCleartextPassword{})
			_ = b.Flush()
			answer, _ := io.ReadAll(c)
			heard <- answer
		}, stoa.DatabaseUnreachable},
		{"unknown error", credential.MySQL, say(string(mysqlRefusal(1105))), stoa.DatabaseUnreachable},
		{"does not admit this host", credential.MySQL, say(string(mysqlRefusal(1130))), stoa.DatabaseUnreachable},
		{"has blocked this host", credential.MySQL, say(string(mysqlRefusal(1129))), stoa.DatabaseUnreachable},
		{"too many connections", credential.MySQL, say(string(mysqlRefusal(1040))), stoa.DatabaseUnreachable},
		{"wants the password in clear", credential.MySQL, func(c net.Conn) {
			_, _ = c.Write(mysqlGreeting("mysql_clear_password"))
			answer := make([]byte, 4096)
			n, _ := c.Read(answer)
			heard <- answer[:n]
		}, stoa.DatabaseUnreachable},
	}
	for _, tt := range tests {
		t.Run(string(tt.engine)+" "+tt.name, func(t *testing.T) {
			t.Parallel()
			c := at(t, tt.engine, credential.TLSDisable, tt.serve)
			// This is less than the time after which a silent server is given
			// up.
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			checkFault(t, tenantdbtest.Open(t, c).Ping(ctx), tt.want, c)
			if ctx.Err() != nil {
				t.Error("took too long")
			}
			if strings.Contains(tt.name, "in clear") {
				if answer := <-heard; strings.Contains(string(answer), marker) {
					t.Errorf("the server was told %q", answer)
				}
			}
		})
	}
}

func say(text string) func(net.Conn) {
	return func(c net.Conn) { _, _ = io.WriteString(c, text) }
}

func postgresError(code string) func(net.Conn) {
	return func(c net.Conn) {
		b := pgproto3.NewBackend(c, c)
		_, _ = b.ReceiveStartupMessage()
		b.Send(&pgproto3.ErrorResponse{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: code, Message: "no"})
		_ = b.Flush()
	}
}

// TestSilentServer checks that a server that accepts the connection and then
// sends nothing blocks no caller, not even one without a deadline.
func TestSilentServer(t *testing.T) {
	for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
		for _, mode := range []credential.TLSMode{credential.TLSDisable, credential.TLSVerify} {
			t.Run(string(engine)+" "+string(mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					c := credential.Credentials{
						Engine: engine, Host: "db.example.com", Port: 1, Database: "d", User: "u", Password: keyring.NewSecret(marker), TLS: mode,
					}
					db, err := tenantdb.NewEngines(tenantdb.Options{})[engine].Open(c, func(context.Context, string, string) (net.Conn, error) {
						ours, theirs := net.Pipe()
						go func() { _, _ = io.Copy(io.Discard, theirs) }()
						return ours, nil
					}, new(tenantdb.SessionState))
					testkit.Must(t, err)
					begin := time.Now()
					err = db.PingContext(context.Background())
					if took := time.Since(begin); err == nil || took > 15*time.Second {
						t.Errorf("after %v: %v", took, err)
					}
					if fault := tenantdb.NewEngines(tenantdb.Options{})[engine].Fault(err); stoa.CodeOf(fault) != stoa.DatabaseUnreachable {
						t.Errorf("got %v", err)
					}
					testkit.Must(t, db.Close())
				})
			})
		}
	}
}

// TestCancelledWhileConnecting checks that a call that is cancelled while a
// connection is made does not count against the database.
func TestCancelledWhileConnecting(t *testing.T) {
	t.Parallel()
	for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			arrived := make(chan struct{}, 1)
			c := at(t, engine, credential.TLSDisable, func(c net.Conn) {
				arrived <- struct{}{}
				_, _ = io.Copy(io.Discard, c)
			})
			ctx, cancel := context.WithCancel(t.Context())
			go func() {
				<-arrived
				cancel()
			}()
			err := tenantdbtest.Open(t, c).Ping(ctx)
			if !errors.Is(err, context.Canceled) || stoa.CodeOf(err) != stoa.Internal {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestFaultCodes(t *testing.T) {
	t.Parallel()
	my := func(n uint16) error { return &mysql.MySQLError{Number: n} }
	pg := func(code string) error { return &pgconn.PgError{Code: code} }
	none := stoa.Code("")
	for _, tt := range []struct {
		engine credential.EngineName
		err    error
		want   stoa.Code
	}{
		{credential.MySQL, my(1045), stoa.DatabaseAuthFailed},
		{credential.MySQL, my(1698), stoa.DatabaseAuthFailed},
		{credential.MySQL, my(1862), stoa.DatabaseAuthFailed}, // password expired
		{credential.MySQL, my(1820), stoa.DatabaseAuthFailed}, // password must be changed first
		{credential.MySQL, my(3118), stoa.DatabaseAuthFailed}, // account locked
		{credential.MySQL, my(4151), stoa.DatabaseAuthFailed}, // the same on MariaDB
		{credential.MySQL, my(1049), stoa.DatabaseUnreachable},
		{credential.MySQL, my(1044), stoa.DatabasePermissionDenied},
		{credential.MySQL, my(1142), stoa.DatabasePermissionDenied},
		{credential.MySQL, my(1290), stoa.DatabasePermissionDenied}, // --read-only
		{credential.MySQL, my(1836), stoa.DatabasePermissionDenied}, // read-only mode
		{credential.MySQL, my(3159), stoa.DatabaseTLSFailed},        // require_secure_transport
		{credential.MySQL, my(1053), stoa.DatabaseUnreachable},
		{credential.MySQL, my(1226), stoa.DatabaseUnreachable},
		{credential.MySQL, my(1062), none},
		{credential.MySQL, my(1146), stoa.TenantError},
		{credential.MySQL, my(1213), stoa.TenantError},
		{credential.MySQL, mysql.ErrInvalidConn, stoa.DatabaseUnreachable},
		{credential.MySQL, driver.ErrBadConn, stoa.DatabaseUnreachable},
		{credential.MySQL, context.DeadlineExceeded, stoa.DatabaseUnreachable},
		{credential.MySQL, errors.New("anything"), none},
		{credential.PostgreSQL, pg("28P01"), stoa.DatabaseAuthFailed},
		{credential.PostgreSQL, pg("3D000"), stoa.DatabaseUnreachable},
		{credential.PostgreSQL, pg("42501"), stoa.DatabasePermissionDenied},
		{credential.PostgreSQL, pg("25006"), stoa.DatabasePermissionDenied}, // a standby, or a role that only reads
		{credential.PostgreSQL, pg("53100"), stoa.DatabaseUnreachable},
		{credential.PostgreSQL, pg("57P01"), stoa.DatabaseUnreachable},
		{credential.PostgreSQL, pg("08006"), stoa.DatabaseUnreachable},
		{credential.PostgreSQL, pg("57014"), stoa.TenantError}, // query cancelled
		{credential.PostgreSQL, pg("23505"), none},
		{credential.PostgreSQL, pg("42P01"), stoa.TenantError},
		{credential.PostgreSQL, pg("40001"), stoa.TenantError},
		{credential.PostgreSQL, pg(""), none},
		{credential.PostgreSQL, pg("ZZ999"), none},
		{credential.MySQL, my(65000), none},
		{credential.PostgreSQL, driver.ErrBadConn, stoa.DatabaseUnreachable},
		{credential.PostgreSQL, io.ErrUnexpectedEOF, stoa.DatabaseUnreachable},
		{credential.PostgreSQL, context.DeadlineExceeded, stoa.DatabaseUnreachable},
		{credential.PostgreSQL, errors.New("anything"), none},
	} {
		t.Run(fmt.Sprint(tt.engine, " ", tt.err), func(t *testing.T) {
			t.Parallel()
			got := tenantdb.NewEngines(tenantdb.Options{})[tt.engine].Fault(fmt.Errorf("wrapped: %w", tt.err))
			if got == nil && tt.want == none {
				return
			}
			if got == nil || got.Code != tt.want || !errors.Is(got, tt.err) {
				t.Errorf("got %v, want %q", got, tt.want)
			}
		})
	}
}

func TestAtLeast(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		version, minimum string
		want             bool
	}{
		{"8.0.16", "8.0.16", true},
		{"8.0.15", "8.0.16", false},
		{"8.4.0", "8.0.16", true},
		{"5.7.44-log", "8.0.16", false},
		{"8.0.36-0ubuntu0.22.04.1", "8.0.16", true},
		{"10.11.19-MariaDB-0+deb12u1", "10.6", true},
		{"10.5.22-MariaDB", "10.6", false},
		{"11.4.2-MariaDB", "10.6", true},
		{"15.18 (Debian 15.18-0+deb12u1)", "13", true},
		{"9.6.24", "13", false},
		{"18beta1", "13", true},
		{"", "13", false},
	} {
		if got := tenantdb.AtLeast(tt.version, tt.minimum); got != tt.want {
			t.Errorf("atLeast(%q, %q) = %v", tt.version, tt.minimum, got)
		}
	}
}
