package app_test

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// databaseAt returns the connection settings of a PostgreSQL server at the address,
// without TLS.
func databaseAt(address string) object {
	return object{"type": "postgresql", "connectionString": "postgres://u:p@" + address + "/d?sslmode=disable"}
}

// serverThat starts a listener that runs serve on each connection.
func serverThat(t *testing.T, serve func(net.Conn)) (address string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return l.Addr().String()
}

// TestDatabaseOfAnotherProtocol checks that a server that does not speak PostgreSQL is
// reported as a fault of the settings, not as a failure of the platform.
func TestDatabaseOfAnotherProtocol(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	body := databaseAt(serverThat(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }))
	path := "/api/stores/" + id
	c.call("POST", path+"/database/test", body).want(http.StatusOK).is(false, "ok").is("database_unreachable", "error", "code")
	c.call("POST", path+"/connect-database", body).problem(http.StatusUnprocessableEntity, "database_unreachable")
	c.call("POST", path+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
	c.call("POST", path+"/database/rotate-credentials", body).want(http.StatusUnprocessableEntity)
}

// TestDatabaseLimit checks that one user's calls that connect to a database server are
// counted together, and separately from other users' calls.
func TestDatabaseLimit(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	cfg.RateLimitDatabase = 4
	s := startServer(t, cfg)
	owner, id := register(t, s, "owner@example.com")
	other, otherID := register(t, s, "other@example.com")
	path, body := "/api/stores/"+id, databaseAt(closedPort(t))
	for range 4 {
		owner.call("POST", path+"/database/test", body).want(http.StatusOK).is("database_unreachable", "error", "code")
	}
	owner.call("POST", path+"/database/test", body).limited("database")
	for _, call := range []struct {
		path string
		body any
	}{
		{"/connect-database", body}, {"/connect-database", object{"type": "managed"}}, {"/provisioning/retry", nil},
		{"/database/rotate-credentials", body}, {"/supabase/projects", object{"organization": "acme", "region": "eu-central-1"}},
	} {
		owner.call("POST", path+call.path, call.body).limited("database")
	}
	owner.call("GET", path, nil).want(http.StatusOK)
	other.call("POST", "/api/stores/"+otherID+"/database/test", body).want(http.StatusOK)
}

// TestDatabaseTestsAtTheSameTime checks that few of a user's requests may wait for a
// database server at the same time, since that server decides how long they take.
func TestDatabaseTestsAtTheSameTime(t *testing.T) {
	t.Parallel()
	const most = 4
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	owner, id := register(t, s, "owner@example.com")
	other, otherID := register(t, s, "other@example.com")
	came, release := make(chan struct{}, 2*most), make(chan struct{})
	body := databaseAt(serverThat(t, func(net.Conn) {
		came <- struct{}{}
		<-release
	}))
	answers := make(chan answer, most)
	for range most {
		go func() { answers <- owner.call("POST", "/api/stores/"+id+"/database/test", body) }()
	}
	for range most {
		<-came
	}
	refused := owner.call("POST", "/api/stores/"+id+"/database/test", body).problem(http.StatusTooManyRequests, "rate_limited")
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	owner.call("POST", "/api/stores/"+id+"/database/rotate-credentials", body).problem(http.StatusTooManyRequests, "rate_limited")
	done := make(chan answer, 1)
	go func() { done <- other.call("POST", "/api/stores/"+otherID+"/database/test", body) }()
	<-came
	close(release)
	for range most {
		(<-answers).want(http.StatusOK).is("database_unreachable", "error", "code")
	}
	(<-done).want(http.StatusOK)
	owner.call("POST", "/api/stores/"+id+"/database/test", body).want(http.StatusOK)
}
