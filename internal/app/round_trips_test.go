package app_test

import (
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestRoundTrips counts the round trips to the master that each call of the table in
// docs/round-trips.md makes, and fails when they are more than the table says, or fewer.
func TestRoundTrips(t *testing.T) {
	t.Parallel()
	documented := documentedRoundTrips(t)
	s, counter := startCounted(t)
	c, store, host := connected(t, s, "owner@example.com")
	c = c.proven()
	c.buy(store, 1000)
	key := c.withKey(store, "credits:read", "credits:spend")
	operator, _ := register(t, s, "operator@example.com")
	err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE users SET role = 'admin' WHERE email = 'operator@example.com'`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	anyone := client{t: t, url: s.URL}
	get := func(path string) func(string) {
		return func(string) { c.call("GET", path, nil).want(http.StatusOK) }
	}
	number := 0
	fresh := func() string { number++; return strconv.Itoa(number) }
	for _, op := range []struct {
		name    string
		prepare func() string // what call needs
		call    func(prepared string)
	}{
		{"GET /api/storefront/store", nil, func(string) {
			anyone.call("GET", "/api/storefront/store", nil, "Host", host).want(http.StatusOK)
		}},
		{"GET /api/auth/me", nil, get("/api/auth/me")},
		{"GET /api/credits/balance", nil, get("/api/credits/balance?storeId=" + store)},
		{"GET /api/credits/balance, by an API key", nil, func(string) { key.call("GET", "/api/credits/balance", nil).want(http.StatusOK) }},
		{"POST /api/credits/spend", nil, func(string) {
			c.call("POST", "/api/credits/spend", object{"amount": 1}, "X-Store-Id", store).want(http.StatusOK)
		}},
		{"POST /api/credits/spend, by an API key and with an Idempotency-Key", fresh, func(n string) {
			key.call("POST", "/api/credits/spend", object{"amount": 1}, "Idempotency-Key", "key-"+n).want(http.StatusOK)
		}},
		{"GET /api/stores/{id}", nil, get("/api/stores/" + store)},
		{"POST /api/auth/register", fresh, func(n string) {
			anyone.call("POST", "/api/auth/register", object{
				"email": "n" + n + "@example.com", "password": testPassword, "firstName": "A", "lastName": "B", "storeName": "Shop " + n,
			}).want(http.StatusCreated)
		}},
		{"POST /api/stores/{id}/connect-database, managed SQLite", func() string {
			return c.call("POST", "/api/stores", object{"name": "Another " + fresh()}).want(http.StatusCreated).text("id")
		}, func(id string) {
			c.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
		}},
		{"GET /api/stores", nil, get("/api/stores")},
		{"GET /api/stores/{id}/api-keys", nil, get("/api/stores/" + store + "/api-keys")},
		{"GET /api/stores/{id}/audit", nil, get("/api/stores/" + store + "/audit")},
		{"GET /api/stores/{id}/backups", nil, get("/api/stores/" + store + "/backups")},
		{"GET /api/stores/{id}/hostnames", nil, get("/api/stores/" + store + "/hostnames")},
		{"GET /api/stores/{id}/invitations", nil, get("/api/stores/" + store + "/invitations")},
		{"GET /api/stores/{id}/members", nil, get("/api/stores/" + store + "/members")},
		{"GET /api/stores/{id}/moves", nil, get("/api/stores/" + store + "/moves")},
		{"GET /api/stores/{id}/provisioning", nil, get("/api/stores/" + store + "/provisioning")},
		{"GET /api/stores/{id}/webhooks", nil, get("/api/stores/" + store + "/webhooks")},
		{"GET /api/credits/transactions", nil, get("/api/credits/transactions?storeId=" + store)},
		{"GET /api/credits/purchases", nil, get("/api/credits/purchases?storeId=" + store)},
		{"GET /api/credits/holds", nil, get("/api/credits/holds?storeId=" + store)},
		{"GET /api/auth/sessions", nil, get("/api/auth/sessions")},
		{"GET /api/auth/passkeys", nil, get("/api/auth/passkeys")},
		{"GET /api/stores/{id}/events", nil, get("/api/stores/" + store + "/events")},
		{"GET /api/operator/stores", nil, func(string) { operator.call("GET", "/api/operator/stores", nil).want(http.StatusOK) }},
		{"GET /api/operator/audit", nil, func(string) { operator.call("GET", "/api/operator/audit", nil).want(http.StatusOK) }},
	} {
		const tries, most = 7, 25 // the first ones prepare the statements; more only while others disturb
		want, found := documented[op.name]
		var fewest []masterdbtest.RoundTrip
		for i := 0; i < tries || i < most && len(fewest) > want; i++ {
			prepared := ""
			if op.prepare != nil {
				prepared = op.prepare()
			}
			waitForQuiet(t, counter)
			op.call(prepared)
			if trips := waitedFor(counter.RoundTrips()); i == 0 || len(trips) < len(fewest) {
				fewest = trips
			}
		}
		if delete(documented, op.name); !found || len(fewest) != want {
			t.Errorf("%s: %d round trips, docs/round-trips.md says %d:", op.name, len(fewest), want)
			for _, trip := range fewest {
				t.Log(short(trip.Statements))
			}
		}
	}
	for name := range documented {
		t.Errorf("docs/round-trips.md has %q, which was not called", name)
	}
}

// startCounted starts a server on PostgreSQL whose statements to the master are counted.
func startCounted(t *testing.T) (*server, *masterdbtest.StatementCounter) {
	t.Helper()
	masterdbtest.NeedsPostgres(t)
	cfg := testConfig(t, masterdb.Postgres)
	unlimited(cfg)
	counter, url := masterdbtest.NewStatementCounter(t, cfg.MasterDBURL.Reveal())
	cfg.MasterDBURL = keyring.NewSecret(url)
	return startServer(t, cfg), counter
}

// waitForQuiet waits until the master has received nothing for a moment, such as what follows
// the call before. It gives up after some seconds: something is always done now and then.
func waitForQuiet(t *testing.T, counter *masterdbtest.StatementCounter) {
	t.Helper()
	for range 50 {
		if _, err := counter.Reset(); err != nil {
			t.Fatal(err)
		}
		<-time.After(40 * time.Millisecond)
		if len(counter.RoundTrips()) == 0 {
			return
		}
	}
	if _, err := counter.Reset(); err != nil {
		t.Fatal(err)
	}
}

// documentedRoundTrips reads the table of docs/round-trips.md.
func documentedRoundTrips(t *testing.T) map[string]int {
	t.Helper()
	raw, err := os.ReadFile("../../docs/round-trips.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]int{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)`(.*?) \\| ([0-9]+) \\|").FindAllStringSubmatch(string(raw), -1) {
		if rows[row[1]+row[2]], err = strconv.Atoi(row[3]); err != nil {
			t.Fatal(err)
		}
	}
	return rows
}

// background are parts of the statements that no call waits for: they look for events,
// deliveries, jobs and the state of processes.
var background = []string{
	"FROM events WHERE position IS NULL", "(SELECT 1 FROM events", "event_stream", "published_credits", "-- name: JobGetAvailable", "-- name: JobSetStateIfRunning",
	"-- name: QueueCreateOrSetUpdatedAt", "-- name: Leader", "SELECT b.store_id FROM credit_balances b", "FROM processes", "UPDATE processes", "email_requests r", "change_log WHERE",
	"store_traffic", "claimed_until <",
}

// readsRun is how the reading of a provisioning run begins.
const readsRun = "SELECT id, store_id, state, step, attempt"

// waitedFor returns the round trips without those of the background, whose transactions are
// told by one of their statements, and without those that prepare a known statement on one more
// connection: a pool grows when the machine is slow. A call that waits for a run reads it at the beginning and at
// the end, and in between as often as it is woken or a second has passed: how often that
// is depends on the machine, so only the first and the last reading count.
func waitedFor(trips []masterdbtest.RoundTrip) (kept []masterdbtest.RoundTrip) {
	transactions := map[int]int{} // by connection, the number of the open transaction
	members, dropped := make([]int, len(trips)), map[int]bool{}
	for i, trip := range trips {
		open, inside := transactions[trip.Connection]
		if !inside {
			open = i + 1
		}
		members[i] = open
		text := strings.Join(trip.Statements, "\n")
		if slices.ContainsFunc(background, func(part string) bool { return strings.Contains(text, part) }) {
			dropped[open] = true
		}
		if !inside && strings.HasSuffix(text, "commit") && !strings.HasPrefix(text, "begin") {
			dropped[open] = true // its transaction began before the call
		}
		if strings.HasPrefix(text, "begin") {
			transactions[trip.Connection] = open
		}
		if strings.HasSuffix(text, "commit") || strings.HasSuffix(text, "rollback") {
			delete(transactions, trip.Connection)
		}
	}
	isReading := func(trip masterdbtest.RoundTrip) bool {
		return strings.HasPrefix(strings.Join(trip.Statements, ""), readsRun)
	}
	read := false
	for i, trip := range trips {
		if dropped[members[i]] || trip.Warms {
			continue
		}
		if isReading(trip) {
			if read && slices.ContainsFunc(trips[i+1:], isReading) {
				continue
			}
			read = true
		}
		kept = append(kept, trip)
	}
	return kept
}

// short returns the beginning of each statement.
func short(statements []string) string {
	var parts []string
	for _, s := range statements {
		s = strings.Join(strings.Fields(s), " ")
		parts = append(parts, s[:min(len(s), 90)])
	}
	return strings.Join(parts, "\n\t")
}
