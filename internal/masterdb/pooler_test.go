package masterdb_test

import (
	"context"
	"errors"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
)

// poolerURL returns the URL of the given database at the test's pooler, which the
// environment variable env names.
func poolerURL(t *testing.T, env, database string) string {
	t.Helper()
	u, err := url.Parse(os.Getenv(env))
	if err != nil || u.Host == "" {
		t.Skipf("%s is not set", env)
	}
	u.Path = "/" + database
	return u.String()
}

const (
	transactionMode = "STOA_TEST_PGBOUNCER_URL"
	sessionMode     = "STOA_TEST_PGBOUNCER_SESSION_URL"
)

// TestPooledMaster checks that a master behind a pooler that shares sessions is not opened,
// and that the error says what to do.
func TestPooledMaster(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ url, want string }{
		"transaction mode":                {poolerURL(t, transactionMode, "postgres"), "pooler in session mode"},
		"transaction mode, one at most":   {poolerURL(t, transactionMode, "stoa_single"), "pooler in session mode"},
		"statement mode":                  {poolerURL(t, transactionMode, "stoa_statement"), "statement mode"},
		"statement mode, session default": {poolerURL(t, sessionMode, "stoa_statement"), "statement mode"},
		"session mode":                    {poolerURL(t, sessionMode, "postgres"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db, err := masterdb.Open(t.Context(), c.url)
			if err == nil {
				defer db.Close()
			}
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// TestSharesSessions checks that a pooler is distinguished from a server, whichever session
// it hands out next, and also with other clients on the same pooler.
func TestSharesSessions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		url             string
		proxied, shares bool
	}{
		"a server":         {poolerURL(t, "STOA_TEST_POSTGRES_URL", "postgres"), false, false},
		"transaction mode": {poolerURL(t, transactionMode, "postgres"), true, true},
		"session mode":     {poolerURL(t, sessionMode, "postgres"), true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			others, stop := context.WithCancel(t.Context())
			done := make(chan struct{})
			go func() { // other clients connect and disconnect
				defer close(done)
				conn := connect(t, c.url)
				for others.Err() == nil {
					_, _ = conn.Exec(others, `SELECT 1`)
				}
			}()
			defer func() { stop(); <-done }()
			for range 20 {
				first, second := connect(t, c.url), connect(t, c.url)
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				proxied, err := masterdb.Proxied(ctx, first)
				shares, sharesErr := masterdb.SharesSessions(ctx, first, second)
				cancel()
				for _, conn := range []*pgx.Conn{first, second} { // the pool has few sessions
					_ = conn.Close(t.Context())
				}
				if err := errors.Join(err, sharesErr); err != nil || proxied != c.proxied || shares != c.shares {
					t.Fatalf("proxied: %t, shares: %t, %v", proxied, shares, err)
				}
			}
		})
	}
}

func connect(t *testing.T, url string) *pgx.Conn {
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Error(err)
		return nil
	}
	t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(t.Context())) })
	return conn
}
