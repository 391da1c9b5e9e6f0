package tenantdb_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// These tests check dangerous features that parameters or a server can turn on
// in a driver. Stoa's drivers do not use them. TestParseConnectionStringRefuses
// checks that the parameters are refused.

// mysqlOK returns the packet that ends a command. Source: MySQL protocol,
// "OK_Packet".
func mysqlOK(sequence byte) []byte { return mysqlPacket(sequence, []byte{0, 0, 0, 2, 0, 0, 0}) }

// TestMySQLSendsNoFile checks a hostile MySQL server, which may answer any
// query with a request for a local file.
// Source: MySQL manual, "Security Considerations for LOAD DATA LOCAL".
func TestMySQLSendsNoFile(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	testkit.Must(t, os.WriteFile(file, []byte("the file's content"), 0o600))
	heard := make(chan []byte, 8)
	c := at(t, credential.MySQL, credential.TLSDisable, func(c net.Conn) {
		_, _ = c.Write(mysqlGreeting("mysql_native_password"))
		packet := make([]byte, 4096)
		_, _ = c.Read(packet)
		_, _ = c.Write(mysqlOK(2))
		_, _ = c.Read(packet) // the first statement
		_, _ = c.Write(mysqlPacket(1, append([]byte{0xfb}, file...)))
		_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
		answer := make([]byte, 4)
		_, err := io.ReadFull(c, answer) // an empty packet: no such file
		_, _ = c.Write(mysqlOK(3))
		rest, _ := io.ReadAll(io.LimitReader(c, 100))
		heard <- append(answer, rest...)
		if err != nil {
			heard <- []byte(err.Error())
		}
	})
	db := tenantdbtest.Open(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := db.Ping(ctx); err == nil {
		t.Error("a server that answers so is taken for good")
	}
	if answer := <-heard; len(answer) < 4 || answer[0] != 0 || strings.Contains(string(answer), "content") {
		t.Errorf("the server was told %q", answer)
	}
}

// TestMySQLWeakMethods checks that the client does not answer a MySQL server
// that requests another log-in method that reveals the password or an
// equivalent of it.
func TestMySQLWeakMethods(t *testing.T) {
	t.Parallel()
	for _, method := range []string{"mysql_clear_password", "mysql_old_password", "dialog"} {
		t.Run(method, func(t *testing.T) {
			t.Parallel()
			heard := make(chan []byte, 8)
			c := at(t, credential.MySQL, credential.TLSDisable, func(c net.Conn) {
				_, _ = c.Write(mysqlGreeting("mysql_native_password"))
				packet := make([]byte, 4096)
				_, _ = c.Read(packet)
				_, _ = c.Write(mysqlPacket(2, append(append([]byte{0xfe}, method...), "\x0012345678901234567890\x00"...)))
				answer, _ := io.ReadAll(c)
				heard <- answer
			})
			checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), stoa.DatabaseUnreachable, c)
			if answer := <-heard; len(answer) != 0 {
				t.Errorf("the server was told %q", answer)
			}
		})
	}
}

// TestParametersAreNoSQL checks that a parameter is never interpreted as SQL.
func TestParametersAreNoSQL(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := things(t, tenantdbtest.Create(t, engine))
			for _, name := range []string{`'; DROP TABLE things; --`, `\'; DROP TABLE things; --`, `' OR '1'='1`, "a\\", `"`, "`", "?", "$1", ":x", "é'\u2019"} {
				testkit.Must(t, exec(t, db, `UPDATE things SET name = ? WHERE id = ?`, name, "1"))
				var got string
				testkit.Must(t, db.Get(t.Context(), &got, `SELECT name FROM things WHERE name = ? AND id = ?`, name, "1"))
				if got != name {
					t.Errorf("%q came back as %q", name, got)
				}
			}
		})
	}
}

// TestStatementsWithParametersAreOne checks that nothing after a semicolon runs in a
// statement with parameters.
func TestStatementsWithParametersAreOne(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			if engine == credential.SQLite {
				t.Skip("the file and all its statements are Stoa's own")
			}
			db := things(t, tenantdbtest.Create(t, engine))
			if err := exec(t, db, `UPDATE things SET n = 5 WHERE id = ?; DELETE FROM things`, "1"); err == nil {
				t.Error("two statements run")
			}
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM things WHERE n < 5`))
			if n != 2 {
				t.Errorf("%d of 2 rows are as they were", n)
			}
		})
	}
}

// TestCancelUsesTheDialer checks that the connection that requests the
// cancellation of a query uses the dialer like all other connections.
func TestCancelUsesTheDialer(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.All() {
		if engine == credential.SQLite {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			c := tenantdbtest.Create(t, engine)
			var dials atomic.Int32
			db, err := tenantdb.NewEngines(tenantdb.Options{Supabase: tenantdbtest.SupabaseRules()})[c.Rules()].
				Open(c, func(ctx context.Context, network, address string) (net.Conn, error) {
					dials.Add(1)
					return (&net.Dialer{}).DialContext(ctx, network, address)
				}, new(tenantdb.SessionState))
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			testkit.Must(t, db.PingContext(t.Context()))
			endless := map[credential.EngineName]string{credential.PostgreSQL: `SELECT pg_sleep($1)::text`, credential.MySQL: `SELECT SLEEP(?)`}[c.Engine]
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done, other := make(chan error, 1), tenantdbtest.Open(t, c)
			go func() {
				var s string
				done <- db.QueryRowContext(ctx, endless, 120).Scan(&s)
			}()
			running := func() (n int) {
				testkit.Must(t, other.Get(t.Context(), &n, underWay[c.Engine]))
				return n
			}
			testkit.Eventually(t, testkit.Timeout, "the query runs", func() bool { return running() == 1 })
			cancel()
			if err := <-done; !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			testkit.Eventually(t, testkit.Timeout, "the server has ended the query", func() bool { return running() == 0 })
			if n := dials.Load(); n != 2 {
				t.Errorf("%d dials for a connection and its cancellation", n)
			}
		})
	}
}

// TestPostgresWeakMethods checks a PostgreSQL server that requests the password
// in a way that would reveal it.
func TestPostgresWeakMethods(t *testing.T) {
	t.Parallel()
	for name, request := range map[string]pgproto3.BackendMessage{
		"cleartext":  &pgproto3.AuthenticationCleartextPassword{},
		"GSS":        &pgproto3.AuthenticationGSS{},
		"other SASL": &pgproto3.AuthenticationSASL{AuthMechanisms: []string{"OAUTHBEARER", "PLAIN"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heard := make(chan []byte, 8)
			c := at(t, credential.PostgreSQL, credential.TLSDisable, func(c net.Conn) {
				b := pgproto3.NewBackend(c, c)
				_, _ = b.ReceiveStartupMessage()
				b.Send(request)
				_ = b.Flush()
				answer, _ := io.ReadAll(c)
				heard <- answer
			})
			checkFault(t, tenantdbtest.Open(t, c).Ping(t.Context()), stoa.DatabaseUnreachable, c)
			if answer := <-heard; len(answer) != 0 {
				t.Errorf("the server was told %q", answer)
			}
		})
	}
}

// TestNothingIsFilledIn checks that Open leaves unset what credentials leave
// empty. A driver would otherwise use the machine that it runs on, or its
// user's files.
func TestNothingIsFilledIn(t *testing.T) {
	t.Parallel()
	for _, field := range []string{"host", "user", "password", "database"} {
		for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL, credential.Supabase} {
			c := full()
			c.Kind, c.CACertificate = credential.Kind(engine), ""
			if c.Engine = engine; engine == credential.Supabase {
				c.Engine = credential.PostgreSQL
			}
			switch field {
			case "host":
				c.Host = ""
			case "user":
				c.User = ""
			case "password":
				c.Password = keyring.Secret{}
			case "database":
				c.Database = ""
			}
			var e *stoa.Error
			if err := c.Validate(); !errors.As(err, &e) || !slices.ContainsFunc(e.Fields, func(f stoa.FieldError) bool { return f.Field == field }) {
				t.Errorf("%s without %s: %v", engine, field, err)
			}
		}
	}
}
