package stores

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/riverqueue/river"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// trap makes a store's own database refuse or discard the writes of the credit copies,
// without an error.
type trap struct {
	name    string
	engine  credential.EngineName
	spent   int      // so that the copies lag behind
	set     []string // the statements that set the trap
	release []string
}

var traps = []trap{
	{"an update of no row", credential.SQLite, 1, []string{`CREATE TRIGGER refuse BEFORE UPDATE ON credit_copies BEGIN SELECT RAISE(IGNORE); END`}, []string{`DROP TRIGGER refuse`}},
	{"an update of no row", credential.PostgreSQL, 1, []string{
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$`,
		`CREATE TRIGGER refuse BEFORE UPDATE ON credit_copies FOR EACH ROW EXECUTE FUNCTION refuse()`,
	}, []string{`DROP TRIGGER refuse ON credit_copies`}},
	{"a rule instead of the update", credential.PostgreSQL, 1,
		[]string{`CREATE RULE refuse AS ON UPDATE TO credit_copies DO INSTEAD NOTHING`}, []string{`DROP RULE refuse ON credit_copies`}},
	{"an update that is not kept", credential.PostgreSQL, syncBatchSize + 1, []string{
		`CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN OLD; END $$`,
		`CREATE TRIGGER forget BEFORE UPDATE ON credit_copies FOR EACH ROW EXECUTE FUNCTION forget()`,
	}, []string{`DROP TRIGGER forget ON credit_copies`}},
	{"an update that is not kept", credential.MySQL, syncBatchSize + 1,
		[]string{`CREATE TRIGGER forget BEFORE UPDATE ON credit_copies FOR EACH ROW SET NEW.version = OLD.version, NEW.seq = OLD.seq`},
		[]string{`DROP TRIGGER forget`}},
	{"one step of many", credential.MySQL, syncBatchSize + 20,
		[]string{`CREATE TRIGGER forget BEFORE UPDATE ON credit_copies FOR EACH ROW SET NEW.version = OLD.version, NEW.seq = OLD.seq + 1`},
		[]string{`DROP TRIGGER forget`}},
	{"a position that moves by itself", credential.PostgreSQL, 100, []string{
		`ALTER TABLE credit_copies RENAME TO true_copies`,
		`CREATE SEQUENCE moves`,
		`CREATE VIEW credit_copies AS SELECT store_id, version, nextval('moves') AS seq FROM true_copies`,
		`CREATE RULE refuse AS ON UPDATE TO credit_copies DO INSTEAD NOTHING`,
	}, []string{`DROP VIEW credit_copies`, `ALTER TABLE true_copies RENAME TO credit_copies`}},
	{"a row that is never there", credential.PostgreSQL, 1, []string{
		`DELETE FROM credit_copies`,
		`CREATE RULE refuse AS ON INSERT TO credit_copies DO INSTEAD NOTHING`,
	}, []string{`DROP RULE refuse ON credit_copies`}},
}

// TestCopyWithoutProgress checks that a store's database in which the credit copies
// cannot advance costs the master a fixed number of statements for each attempt, and that
// attempts become rare. The owner is told, and the copies continue when they can.
func TestCopyWithoutProgress(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			for _, trap := range traps {
				// Statements are counted on a PostgreSQL master only, so the other
				// master runs only the cases with SQLite.
				if trap.engine != credential.SQLite && (engine == masterdb.SQLite || !slices.Contains(tenantdbtest.Engines(), trap.engine)) {
					continue
				}
				t.Run(string(trap.engine)+"/"+trap.name, func(t *testing.T) {
					url, statements := masterdbtest.URL(t, engine), func() int64 { return 0 }
					if engine == masterdb.Postgres {
						url, statements = countStatements(t, url)
					}
					trap.catch(t, setup(t, masterdbtest.Open(t, url)), statements)
				})
			}
		})
	}
}

// catch runs the credit sync of a store whose database has the trap.
func (c trap) catch(t *testing.T, b replica, statements func() int64) {
	p := b.user(t)
	s, tn := b.open(t, p, c.engine, "Bakery")
	b.migrated(t, s.ID, syncMinSchema)
	b.give(t, s.ID, 5000)
	testkit.Must(t, b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID}))
	b.spendMany(t, p, s.ID, c.spent)
	tenant := b.own(t, s, tn)
	for _, statement := range c.set {
		_, err := tenant.Exec(t.Context(), statement)
		testkit.Must(t, err)
	}
	const tries, most = 12, 40
	before := statements()
	for i := range tries {
		var snooze *river.JobSnoozeError
		if err := b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID}); !errors.As(err, &snooze) {
			t.Fatalf("try %d ends with %v, want that the next one waits", i+1, err)
		}
		longest := syncMaxWait
		if i < 9 {
			longest = min(syncMaxWait, 2<<i*time.Second)
		}
		if wait := snooze.Duration; wait > longest || wait < longest*3/4 {
			t.Errorf("after %d tries the next one waits %s, want up to %s", i+1, wait, longest)
		}
	}
	if n := statements() - before; n > tries*most {
		t.Errorf("%d tries take %d statements of the master, want at most %d each", tries, n, most)
	} else {
		t.Logf("%d tries take %d statements of the master", tries, n)
	}
	b.settleFault(t, s, tenant, c)
}

// settleFault checks that the owner is told of a fault, and that the fault ends with its
// cause.
func (b replica) settleFault(t *testing.T, s Store, tenant *tenantdb.DB, c trap) {
	t.Helper()
	info, err := tenantdb.ReadInfo(t.Context(), b.db, s.ID)
	testkit.Must(t, err)
	if info.Status != tenantdb.StatusFailed || info.LastError != stoa.DatabaseNoProgress {
		t.Errorf("the store's database is %s with %q", info.Status, info.LastError)
	}
	for _, statement := range c.release {
		_, err := tenant.Exec(t.Context(), statement)
		testkit.Must(t, err)
	}
	testkit.Must(t, b.SyncCredits(t.Context(), SyncCredits{StoreID: s.ID}))
	if got := b.converge(t, s.ID); len(got.log) != c.spent {
		t.Errorf("%d spendings are copied, want %d", len(got.log), c.spent)
	}
	if info, err = tenantdb.ReadInfo(t.Context(), b.db, s.ID); err != nil || info.Status != tenantdb.StatusOK {
		t.Errorf("the store's database is still %s with %q, %v", info.Status, info.LastError, err)
	}
}

// own opens the store's database with the merchant's credentials.
func (b replica) own(t *testing.T, s Store, tn tenant) *tenantdb.DB {
	t.Helper()
	c := tn.Credentials
	if c.Engine == credential.SQLite {
		c = credential.ManagedSQLite(s.ID)
	}
	db, err := b.tenants.OpenUnleased(c)
	testkit.Must(t, err)
	t.Cleanup(func() { testkit.Must(t, db.Close()) })
	return db
}

// countStatements starts a proxy in front of a PostgreSQL master and counts the
// statements that the program sends: each query, and each Sync, which ends a query.
func countStatements(t *testing.T, direct string) (through string, count func() int64) {
	t.Helper()
	u, err := url.Parse(direct)
	testkit.Must(t, err)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	target := u.Host
	u.Host = listener.Addr().String()
	var n atomic.Int64
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go carryCounting(client, target, &n)
		}
	}()
	return u.String(), n.Load
}

// carryCounting relays one connection and counts the client's queries. Source: PostgreSQL
// protocol 3.0, "Message Formats".
func carryCounting(client net.Conn, target string, n *atomic.Int64) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(client, server)
		_ = client.Close()
	}()
	for head := make([]byte, 4); ; head = make([]byte, 5) { // the first message has no type
		if _, err := io.ReadFull(client, head); err != nil {
			return
		}
		if len(head) == 5 && strings.IndexByte("QS", head[0]) >= 0 {
			n.Add(1)
		}
		length := int64(binary.BigEndian.Uint32(head[len(head)-4:])) - 4
		if _, err := server.Write(head); err != nil {
			return
		}
		if _, err := io.CopyN(server, client, length); err != nil {
			return
		}
	}
}
