package app_test

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// needNoMaster are the operations that answer without the master database.
var needNoMaster = map[string]int{
	"GET /healthz":                 http.StatusOK,
	"GET /api/storefront/store":    http.StatusOK, // of a store that was requested before
	"GET /api/storefront/products": http.StatusOK,
	"POST /api/webhooks/stripe":    http.StatusUnprocessableEntity, // the event has no valid signature
	"GET /api/supabase/callback":   http.StatusOK,                  // an error page
	"POST /api/auth/refresh":       http.StatusUnauthorized,        // the token was never issued

	"POST /api/auth/passkeys/login/finish": http.StatusUnprocessableEntity, // the credential has no valid form
}

// TestEveryOperationWithoutAMaster checks that without the master database every
// operation answers within its time limit that it is unavailable and when to retry.
// Stores that were requested before are served.
func TestEveryOperationWithoutAMaster(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		if engine != masterdb.Postgres {
			continue
		}
		cfg := testConfig(t, engine)
		unlimited(cfg)
		cfg.PrivateListen = "127.0.0.1:0"
		relay, through := masterdbtest.NewRelay(t, cfg.MasterDBURL.Reveal())
		cfg.MasterDBURL = keyring.NewSecret(through)
		s := startServer(t, cfg)
		w := newLeakWorld(t, s)
		_, _, host := connected(t, s, "shop@example.com")
		front := client{t: t, url: s.URL}
		calls := map[string]func() answer{}
		for _, op := range operations(t, s) {
			store := w.storeFor(op, "operator")
			if op.byChoice || op.inPath {
				store = w.store(w.ids["owner"])
			}
			caller := w.people["operator"]
			body, path := w.fill(op, store, caller)
			header := []string{"X-Store-Id", store}
			if path == "/api/storefront/store" || path == "/api/storefront/products" {
				header = []string{"Host", host}
			}
			calls[op.method+" "+op.path] = func() answer { return caller.call(op.method, path, body, header...) }
		}
		// The preparation takes long enough that the server has processed the change
		// notification of the connected store.
		front.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		for _, fault := range []struct {
			name   string
			begin  func()
			notice time.Duration
		}{
			{"silent", func() { relay.SetSilent(true) }, 3 * time.Second},
			{"refuses", relay.Refuse, 3 * time.Second},
		} {
			fault.begin()
			withoutMaster(t, fault.name, calls, fault.notice+2*time.Second) // all calls at the same time on a busy machine
			for _, path := range []string{"/readyz"} {
				a := front.call("GET", path, nil).problem(http.StatusServiceUnavailable, "platform_unavailable")
				if a.header.Get("Retry-After") == "" {
					t.Errorf("%s says not when to ask again", path)
				}
			}
			private := client{t: t, url: s.PrivateURL}
			private.call("GET", "/health", nil).want(http.StatusServiceUnavailable)
			private.call("GET", "/ask?domain=unseen.example.com", nil).want(http.StatusServiceUnavailable)
			private.call("GET", "/ask?domain="+host, nil).want(http.StatusOK)
			front.call("GET", "/", nil, "Host", "unseen.localhost").want(http.StatusServiceUnavailable)
			withoutMaster(t, fault.name+", known", calls, time.Second+2*time.Second)
			relay.SetSilent(false)
		}
		relay.Listen()
		testkit.Eventually(t, testkit.Timeout, "the master is back", func() bool { return front.call("GET", "/readyz", nil).status == http.StatusOK })
	}
}

// withoutMaster makes all calls concurrently.
func withoutMaster(t *testing.T, when string, calls map[string]func() answer, most time.Duration) {
	t.Helper()
	var all sync.WaitGroup
	var mu sync.Mutex
	var slowest time.Duration
	for name, call := range calls {
		all.Go(func() {
			begin := time.Now()
			a := call()
			took := time.Since(begin)
			mu.Lock()
			defer mu.Unlock()
			slowest = max(slowest, took)
			if want, ok := needNoMaster[name]; ok && a.status == want {
				return
			}
			seconds, err := strconv.Atoi(a.header.Get("Retry-After"))
			if a.status != http.StatusServiceUnavailable || err != nil || seconds < 1 || a.body["code"] != "platform_unavailable" {
				t.Errorf("%s, %s: %d, Retry-After %q: %s", when, name, a.status, a.header.Get("Retry-After"), a.raw)
			}
			if took > most {
				t.Errorf("%s, %s: answered after %v", when, name, took)
			}
		})
	}
	all.Wait()
	t.Logf("%s: %d operations, the slowest took %v", when, len(calls), slowest.Round(time.Millisecond))
}

// TestFrontsOutliveTheMaster checks that a store that was requested before is served
// without the master database, and that its answers contain the age of the cached data.
func TestFrontsOutliveTheMaster(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	_, _, host := connected(t, s, "shop@example.com")
	front := client{t: t, url: s.URL}
	paths := []string{"/api/storefront/store", "/api/storefront/products", "/"}
	for _, path := range paths {
		if a := front.call("GET", path, nil, "Host", host).want(http.StatusOK); a.header.Get("Stoa-Stale-Seconds") != "" {
			t.Errorf("%s: %v", path, a.header)
		}
	}
	// Without the table the server cannot resolve hostnames. Closing the database
	// instead would keep the server from stopping.
	rename := func(from, to string) {
		if err := s.Master.Tx(context.Background(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(context.Background(), `ALTER TABLE `+from+` RENAME TO `+to)
			return err
		}); err != nil {
			t.Error(err)
		}
	}
	rename("store_hostnames", "away")
	defer rename("away", "store_hostnames")
	testkit.Eventually(t, testkit.Timeout, "what is known is old", func() bool { // the cache is stale: on SQLite its time to live is 5 s
		return front.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK).header.Get("Stoa-Stale-Seconds") != ""
	})
	for _, path := range paths {
		age, err := strconv.Atoi(front.call("GET", path, nil, "Host", host).want(http.StatusOK).header.Get("Stoa-Stale-Seconds"))
		if err != nil || age < 4 || age > 60 {
			t.Errorf("%s: %d s old, %v", path, age, err)
		}
	}
	cold := front.call("GET", "/api/storefront/store", nil, "Host", "other.localhost").problem(http.StatusServiceUnavailable, "platform_unavailable")
	if cold.header.Get("Retry-After") == "" {
		t.Error("a store that is not known: no Retry-After")
	}
	if n := s.Hostnames.StaleLookups(); n < 4 {
		t.Errorf("%d stale answers are counted", n)
	}
}

// TestMasterThatIsFull checks that with a full master disk every write is refused with
// the time to retry, that the health checks report the cause, and that everything works
// again once there is space.
func TestMasterThatIsFull(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c := client{t: t, url: s.URL}
		_, _, host := connected(t, s, "shop@example.com")
		n := 0
		signUp := func() answer {
			n++
			return c.call("POST", "/api/auth/register", object{"email": "full" + strconv.Itoa(n) + "@example.com", "password": testPassword, "firstName": "A", "lastName": "B"})
		}
		fill, free := fullMaster(t, s.Master)
		var refused answer
		testkit.Eventually(t, testkit.Timeout, "a user cannot be stored", func() bool {
			fill()
			refused = signUp()
			return refused.status != http.StatusCreated
		})
		refused.problem(http.StatusServiceUnavailable, "platform_unavailable")
		if refused.header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		var health answer
		testkit.Eventually(t, testkit.Timeout, "it is not ready, and says so to the operator", func() bool {
			fill()
			signUp() // a job's write, for which PostgreSQL has room in this test, ends what this one began
			health = client{t: t, url: s.PrivateURL}.call("GET", "/health", nil)
			return health.status == http.StatusServiceUnavailable && c.call("GET", "/readyz", nil).status == http.StatusServiceUnavailable
		})
		if s.Master.Engine == masterdb.SQLite { // the disk of the PostgreSQL server is not full in this test
			if err := s.Master.CheckWrite(context.Background()); stoa.CodeOf(err) != stoa.PlatformUnavailable {
				t.Errorf("a look by writing: %v", err)
			}
		}
		if !strings.Contains(health.raw, "no room left") {
			t.Errorf("the operator is not told the cause: %s", health.raw)
		}
		c.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		free()
		signUp().want(http.StatusCreated)
		if err := s.Master.CheckWrite(context.Background()); err != nil {
			t.Error(err)
		}
		testkit.Eventually(t, testkit.Timeout, "it is ready", func() bool { return c.call("GET", "/readyz", nil).status == http.StatusOK })
	}, unlimited, func(cfg *config.Config) { cfg.PrivateListen = "127.0.0.1:0" })
}

// fullMaster returns fill, which makes the master fail as one with a full disk does, and
// free, which ends that. The limit of SQLite belongs to a connection, and a cancelled write
// replaces that connection, so a test that waits for a failure calls fill again each time.
func fullMaster(t *testing.T, db *masterdb.DB) (fill, free func()) {
	t.Helper()
	ctx := context.Background()
	if db.Engine == masterdb.SQLite {
		limit := func(pages string) {
			if _, err := db.Writer().ExecContext(ctx, `PRAGMA max_page_count = `+pages); err != nil {
				t.Fatal(err)
			}
		}
		// SQLite raises a limit below the size of the database to that size.
		return func() { limit("1") }, func() { limit("1073741823") }
	}
	exec := func(statement string) {
		if _, err := db.Pool().Exec(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$`)
	return func() {
			exec(`CREATE OR REPLACE TRIGGER no_room BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION no_room()`)
		},
		func() { exec(`DROP TRIGGER no_room ON users`) }
}
