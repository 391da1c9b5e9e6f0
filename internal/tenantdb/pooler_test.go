package tenantdb_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
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

// pooled returns credentials of a PostgreSQL database behind a PgBouncer that
// they do not name.
func pooled(t *testing.T, env string) credential.Credentials {
	t.Helper()
	needPooler(t)
	c := tenantdbtest.Create(t, credential.PostgreSQL)
	return behind(t, c, address(t, env))
}

func behind(t *testing.T, c credential.Credentials, address string) credential.Credentials {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	testkit.Must(t, err)
	c.Host = host
	n, err := net.LookupPort("tcp", port)
	testkit.Must(t, err)
	c.Port = n
	return c
}

// lax starts a proxy in front of a pooler. It removes all startup parameters
// except those that every pooler needs, as PgBouncer does with
// ignore_startup_parameters.
func lax(t *testing.T, behind string) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			go relay(client, behind)
		}
	}()
	return l.Addr().String()
}

func relay(client net.Conn, behind string) {
	defer client.Close()
	first, err := pgproto3.NewBackend(client, client).ReceiveStartupMessage()
	if err != nil {
		return
	}
	server, err := net.Dial("tcp", behind)
	if err != nil {
		return
	}
	defer server.Close()
	if start, ok := first.(*pgproto3.StartupMessage); ok {
		for name := range start.Parameters {
			if !slices.Contains([]string{"user", "database", "client_encoding", "application_name"}, name) {
				delete(start.Parameters, name)
			}
		}
	}
	message, err := first.Encode(nil)
	if err != nil {
		return
	}
	_, _ = server.Write(message)
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyAll(server, client)
		_ = server.Close()
	}()
	copyAll(client, server)
	_ = client.Close()
	<-done
}

func copyAll(to, from net.Conn) {
	buf := make([]byte, 1<<16)
	for {
		n, err := from.Read(buf)
		if _, writeErr := to.Write(buf[:n]); err != nil || writeErr != nil {
			return
		}
	}
}

// work does the operations of a store on a database, many at a time.
func work(t *testing.T, db *tenantdb.DB, store stoa.StoreID) {
	t.Helper()
	testkit.Must(t, db.PinSession(t.Context(), store))
	testkit.Must(t, db.Mark(t.Context(), store))
	_, err := db.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, db.SelfTest(t.Context()))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 {
				var n int
				if err := db.Get(t.Context(), &n, `SELECT count(*) FROM `+tenantdb.MarkerTable+` WHERE store_id <> ?`, string(rune('a'+i))); err != nil || n != 1 {
					t.Errorf("got %d, %v", n, err)
				}
				if err := db.Tx(t.Context(), func(tx *tenantdb.Tx) error {
					_, err := tx.Exec(t.Context(), `UPDATE `+tenantdb.MarkerTable+` SET store_id = ? WHERE store_id = ?`, store, store)
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

// TestUnannouncedPoolers checks that a pooler that the credentials do not name
// is detected, whatever it does with startup parameters, and that the store
// works behind it.
func TestUnannouncedPoolers(t *testing.T) {
	t.Parallel()
	needPooler(t)
	for name, c := range map[string]struct {
		env  string
		lax  bool
		want credential.Pooler
	}{
		"transaction mode, refuses parameters": {tenantdbtest.PgBouncerEnv, false, credential.TransactionPooler},
		"transaction mode, ignores parameters": {tenantdbtest.PgBouncerEnv, true, credential.TransactionPooler},
		"session mode, refuses parameters":     {tenantdbtest.PgBouncerSessionEnv, false, credential.SessionPooler},
		"session mode, ignores parameters":     {tenantdbtest.PgBouncerSessionEnv, true, credential.SessionPooler},
		"none":                                 {tenantdbtest.PostgresEnv, false, credential.NoPooler},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			credentials := pooled(t, c.env)
			if c.lax {
				credentials = behind(t, credentials, lax(t, address(t, c.env)))
			}
			store := stoa.NewID[stoa.StoreID]()
			db := tenantdbtest.Open(t, credentials)
			work(t, db, store)
			if got := db.FoundPooler(); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
			work(t, tenantdbtest.Open(t, credentials), store)
		})
	}
}

// TestAnnouncedPooler checks that the pooler that the credentials name is used
// before anything was detected.
func TestAnnouncedPooler(t *testing.T) {
	t.Parallel()
	c := pooled(t, tenantdbtest.PgBouncerEnv)
	c.Pooler = credential.TransactionPooler
	work(t, tenantdbtest.Open(t, c), stoa.NewID[stoa.StoreID]())
}

// TestPoolerComesLater checks that no query fails if a transaction pooler is
// later put in front of a server.
func TestPoolerComesLater(t *testing.T) {
	t.Parallel()
	c := pooled(t, tenantdbtest.PostgresEnv)
	var way atomic.Pointer[string]
	server, pooler := address(t, tenantdbtest.PostgresEnv), lax(t, address(t, tenantdbtest.PgBouncerEnv))
	way.Store(&server)
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, *way.Load())
	}
	db, err := tenantdb.OpenWith(tenantdb.NewEngines(tenantdb.Options{}), c, dial)
	testkit.Must(t, err)
	defer db.Close() //nolint:errcheck // nothing is pending
	store := stoa.NewID[stoa.StoreID]()
	work(t, db, store)
	way.Store(&pooler)
	db.SQL().SetMaxIdleConns(-1) // the next connections are new
	db.SQL().SetMaxIdleConns(8)
	work(t, db, store)
}

// TestPooledMigrationsTakeTurns checks that two migrations through a
// transaction pooler, and one that connects directly, take turns.
func TestPooledMigrationsTakeTurns(t *testing.T) {
	t.Parallel()
	direct := pooled(t, tenantdbtest.PostgresEnv)
	c := behind(t, direct, address(t, tenantdbtest.PgBouncerEnv))
	var wg sync.WaitGroup
	for _, c := range []credential.Credentials{c, direct, c, c} {
		db := tenantdbtest.Open(t, c)
		testkit.Must(t, db.PinSession(t.Context(), stoa.NewID[stoa.StoreID]()))
		wg.Go(func() {
			if v, err := db.Migrate(t.Context()); err != nil || v != tenantdb.LatestVersion() {
				t.Errorf("version %d, %v", v, err)
			}
		})
	}
	wg.Wait()
	var locks int
	testkit.Must(t, tenantdbtest.Open(t, direct).Get(t.Context(), &locks, `SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		WHERE l.locktype = 'advisory' AND d.datname = current_database()`))
	if locks != 0 {
		t.Errorf("%d locks were left behind", locks)
	}
}

// TestPooledLockIsLost checks that a migration ends when the transaction that
// holds its lock ends.
func TestPooledLockIsLost(t *testing.T) {
	t.Parallel()
	direct := pooled(t, tenantdbtest.PostgresEnv)
	c := behind(t, direct, address(t, tenantdbtest.PgBouncerEnv))
	c.Pooler = credential.TransactionPooler
	db := tenantdbtest.Open(t, c)
	locked, unlock, err := db.LockMigration(t.Context())
	testkit.Must(t, err)
	defer unlock()
	tenantdbtest.Admin(t, credential.PostgreSQL, `SELECT pg_terminate_backend(pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database
		WHERE l.locktype = 'advisory' AND d.datname = '`+c.Database+`'`)
	<-locked.Done()
	if cause := context.Cause(locked); cause == nil || errors.Is(cause, context.Canceled) {
		t.Errorf("the cause is %v", cause)
	}
}

// TestStatementPooling checks that a pooler in statement mode, which has no
// transactions, is refused by name.
func TestStatementPooling(t *testing.T) {
	t.Parallel()
	needPooler(t)
	u, err := url.Parse(os.Getenv(tenantdbtest.PgBouncerEnv))
	testkit.Must(t, err)
	u.Path = "/stoa_statement"
	c, err := credential.ParseConnectionString(credential.PostgreSQL, keyring.NewSecret(u.String()))
	testkit.Must(t, err)
	checkRefused(t, tenantdbtest.Open(t, c), "pool_mode", c)
}

// TestPooledConcurrentIndex checks that a migration with a statement that
// cannot run in a transaction runs behind a transaction pooler, and waits only
// for those who use the table.
func TestPooledConcurrentIndex(t *testing.T) {
	t.Parallel()
	c := pooled(t, tenantdbtest.PgBouncerEnv)
	c.Pooler = credential.TransactionPooler
	db := tenantdbtest.Open(t, c)
	_, unlock, err := db.LockMigration(t.Context())
	testkit.Must(t, err)
	defer unlock()
	tenantdbtest.Exec(t, c, `CREATE TABLE things (n int)`, `CREATE INDEX CONCURRENTLY things_n ON things (n)`)
	var valid bool
	testkit.Must(t, db.Get(t.Context(), &valid, `SELECT indisvalid FROM pg_index WHERE indexrelid = 'things_n'::regclass`))
	if !valid {
		t.Error("the index is not valid")
	}
}

// TestPooledLockAtSilentServer checks that a server that stops answering blocks
// neither a caller that waits for the migration lock nor one that releases it.
func TestPooledLockAtSilentServer(t *testing.T) {
	t.Parallel()
	for name, silentAt := range map[string]string{"waiting": "BEGIN", "holding": ""} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := pooled(t, tenantdbtest.PgBouncerEnv)
			c.Pooler = credential.TransactionPooler
			var silent atomic.Bool
			db, err := tenantdb.OpenWith(tenantdb.NewEngines(tenantdb.Options{}), c, func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
				return &muted{Conn: conn, silent: &silent, at: silentAt}, err
			})
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			locked, unlock, err := db.LockMigration(ctx)
			if silentAt != "" {
				if err == nil {
					t.Error("the lock was granted")
				}
				return
			}
			testkit.Must(t, err)
			silent.Store(true)
			unlock()
			if locked.Err() == nil {
				t.Error("the lock is still held")
			}
		})
	}
}

// muted is a connection whose bytes do not arrive once it is silent, beginning
// with those that contain at.
type muted struct {
	net.Conn
	silent *atomic.Bool
	at     string
}

func (m *muted) Write(p []byte) (int, error) {
	if m.at != "" && strings.Contains(strings.ToUpper(string(p)), m.at) {
		m.silent.Store(true)
	}
	if m.silent.Load() {
		return len(p), nil
	}
	return m.Conn.Write(p)
}
