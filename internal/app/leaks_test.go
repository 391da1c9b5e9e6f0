package app_test

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// callers are the columns of testdata/leaks.txt.
var callers = []string{
	"none", "malformed", "expired", "revoked", // callers without a valid token
	"stranger", "foreign", // another user, and another store's key with every scope
	"owner", "admin", "member", "viewer", "operator",
	"key", "narrow", // the store's own key with every scope, and one with a single scope that does not apply
}

//go:embed testdata/leaks.txt
var leaksTable string

// expectations reads the table: an operation, and a status for each caller. "-" means
// that the caller has no particular role for the operation.
func expectations(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for line := range strings.Lines(leaksTable) {
		fields := strings.Fields(strings.ReplaceAll(line, "|", " "))
		if len(fields) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if len(fields) != 2+len(callers) {
			t.Fatalf("this line has %d statuses, there are %d callers: %s", len(fields)-2, len(callers), line)
		}
		out[fields[0]+" "+fields[1]] = fields[2:]
	}
	return out
}

// leakRow formats a line of the table.
func leakRow(operation string, statuses []string) string {
	method, path, _ := strings.Cut(operation, " ")
	s := statuses
	return fmt.Sprintf("%-6s %-50s | %s | %s | %s | %s", method, path, strings.Join(s[:4], " "), strings.Join(s[4:6], " "), strings.Join(s[6:11], " "), strings.Join(s[11:], " "))
}

// TestWhoMayDoWhat calls every operation of the OpenAPI document as every kind of
// caller and compares the statuses with the table. An operation without a line fails.
// The test prints the missing line; add it if it is correct.
func TestWhoMayDoWhat(t *testing.T) {
	t.Parallel()
	onMasters(t, shortOn(masterdb.SQLite), func(t *testing.T, s *server) {
		table := expectations(t)
		w := newLeakWorld(t, s)
		for _, op := range operations(t, s) {
			name := op.method + " " + op.path
			if _, known := bodies[name]; !known && op.method != http.MethodGet {
				t.Errorf("%s has no body in the table of bodies", name)
			}
			got := make([]string, len(callers))
			for i, caller := range callers {
				got[i] = w.try(op, caller)
			}
			want, known := table[name]
			delete(table, name)
			if !known {
				t.Errorf("%s has no line in testdata/leaks.txt. It would be:\n%s", name, leakRow(name, got))
			} else if !slices.Equal(got, want) {
				t.Errorf("got, and want:\n%s\n%s", leakRow(name, got), leakRow(name, want))
			}
			checkLeakRules(t, op, got)
		}
		for name := range table {
			t.Errorf("testdata/leaks.txt has a line for %s, which is no operation", name)
		}
	}, unlimited)
}

// TestThingsOfOthers requests things of another store in the caller's own store. The
// answer must be the one for a thing that does not exist.
func TestThingsOfOthers(t *testing.T) {
	t.Parallel()
	onMasters(t, shortOn(masterdb.Postgres), func(t *testing.T, s *server) {
		w := newLeakWorld(t, s)
		stranger, victim := w.people["stranger"], w.people["owner"]
		own, theirs, tried := w.store(w.ids["stranger"]), w.store(w.ids["owner"]), 0
		for _, op := range operations(t, s) {
			path := op.path
			if op.inPath {
				path = strings.Replace(path, "{id}", own, 1)
			}
			name := placeholder.FindString(path)
			if name == "" || !op.private || strings.HasPrefix(op.path, "/api/operator/") { // for operators, who see all stores
				continue
			}
			tried++
			thing, nothing := w.thing(op, name, theirs, victim), uuid.NewString()
			switch name {
			case "{userId}":
				thing = w.ids["owner"].String() // the others are members of this store too
			case "{hostname}":
				nothing = fmt.Sprintf("shop%d.example.com", 1e6+tried)
			}
			ask := func(id string) answer {
				return stranger.call(op.method, strings.Replace(path, name, id, 1), anybody(t, op.method+" "+op.path), "X-Store-Id", own)
			}
			foreign := ask(thing).want(http.StatusNotFound)
			sameAnswer(t, op.method+" "+op.path, foreign, ask(nothing), thing, nothing)
		}
		if tried < 10 {
			t.Errorf("only %d operations name a thing", tried)
		}
	})
}

// checkLeakRules checks rules that every line of the table must satisfy.
func checkLeakRules(t *testing.T, op operation, got []string) {
	t.Helper()
	for i, caller := range callers {
		switch {
		case op.private && i < 4 && got[i] != "401":
			t.Errorf("%s %s answers %s without a good token", op.method, op.path, got[i])
		case op.ofStore() && i >= 4 && i < 6 && got[i] != "404":
			t.Errorf("%s %s answers a %s with %s", op.method, op.path, caller, got[i])
		case op.ofStore() && caller == "viewer" && op.method != http.MethodGet && got[i] != "403":
			t.Errorf("%s %s answers a viewer with %s", op.method, op.path, got[i])
		case got[i] == "500":
			t.Errorf("%s %s answers a %s with 500", op.method, op.path, caller)
		}
	}
}

// ofStore reports whether the operation names a store.
func (op operation) ofStore() bool { return op.inPath || op.byChoice }

// leakWorld has users with every role, in stores that are created on demand.
type leakWorld struct {
	t       *testing.T
	s       *server
	people  map[string]client // by caller
	ids     map[string]stoa.UserID
	foreign client
	shared  map[string]string // operation → the store shared by the calls that change nothing
	things  map[string]string // store and placeholder → the id of what was created
	count   int
}

func newLeakWorld(t *testing.T, s *server) *leakWorld {
	t.Helper()
	w := &leakWorld{t: t, s: s, people: map[string]client{}, ids: map[string]stoa.UserID{}, shared: map[string]string{}, things: map[string]string{}}
	for _, name := range []string{"owner", "admin", "member", "viewer", "stranger", "operator", "target"} {
		w.people[name], w.ids[name] = w.register(name == "operator")
	}
	owner := w.people["owner"]
	again := owner
	again.token = owner.call("POST", "/api/auth/login", object{"email": w.email(1), "password": testPassword}).want(http.StatusOK).text("accessToken")
	again.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent)
	w.people["none"] = client{t: t, url: s.URL}
	w.people["malformed"] = client{t: t, url: s.URL, token: owner.token[:len(owner.token)-1]}
	w.people["expired"] = client{t: t, url: s.URL, token: w.expired(owner.token)}
	w.people["revoked"] = again
	w.foreign = w.people["stranger"].withKey(w.store(w.ids["stranger"]), authz.Scopes()...)
	return w
}

func (w *leakWorld) email(n int) string { return fmt.Sprintf("person%d@example.com", n) }

func (w *leakWorld) register(operator bool) (client, stoa.UserID) {
	w.t.Helper()
	w.count++
	c := client{t: w.t, url: w.s.URL, s: w.s}
	a := c.call("POST", "/api/auth/register", object{
		"email": w.email(w.count), "password": testPassword, "firstName": "A", "lastName": "B",
	}).want(http.StatusCreated)
	c.token = a.text("accessToken")
	id, err := stoa.ParseID[stoa.UserID](a.text("user", "id"))
	if err != nil {
		w.t.Fatal(err)
	}
	c.proven()
	if operator {
		w.tx(func(tx *masterdb.Tx) error {
			_, err := tx.Exec(w.t.Context(), `UPDATE users SET role = 'admin' WHERE id = $1`, id)
			return err
		})
	}
	return c, id
}

// expired returns a token that expired a minute ago.
func (w *leakWorld) expired(token string) string {
	w.t.Helper()
	_, signing, err := w.s.Cfg.Rings()
	if err != nil {
		w.t.Fatal(err)
	}
	claims := jwt.MapClaims{}
	old, _, err := jwt.NewParser().ParseUnverified(token, claims)
	if err != nil {
		w.t.Fatal(err)
	}
	claims["exp"] = time.Now().Add(-time.Minute).Unix()
	next := jwt.NewWithClaims(jwt.SigningMethodHS256, claims)
	maps.Copy(next.Header, old.Header)
	_, key := signing.Current()
	signed, err := next.SignedString(key)
	if err != nil {
		w.t.Fatal(err)
	}
	return signed
}

func (w *leakWorld) tx(fn func(*masterdb.Tx) error) {
	w.t.Helper()
	if err := w.s.Master.Tx(w.t.Context(), fn); err != nil {
		w.t.Fatal(err)
	}
}

// store creates a store with a member of every role, credits, and a failed run.
func (w *leakWorld) store(owner stoa.UserID) string {
	w.t.Helper()
	w.count++
	store, err := w.s.Registry.Create(w.t.Context(), authz.Principal{UserID: owner}, stores.NewStore{Name: fmt.Sprintf("Store %d", w.count)})
	if err != nil {
		w.t.Fatal(err)
	}
	w.tx(func(tx *masterdb.Tx) error {
		for role, person := range map[authz.Role]string{authz.Admin: "admin", authz.Member: "member", authz.Viewer: "viewer"} {
			if err := authz.Grant(w.t.Context(), tx, store.ID, w.ids[person], role); err != nil {
				return err
			}
		}
		if err := authz.Grant(w.t.Context(), tx, store.ID, w.ids["target"], authz.Member); err != nil {
			return err
		}
		if _, err := w.s.Ledger.Grant(w.t.Context(), tx, store.ID, credits.Grant{Type: credits.TypeBonus, Amount: 10 * credits.Credit, IdempotencyKey: uuid.NewString()}); err != nil {
			return err
		}
		_, err := tx.Exec(w.t.Context(), `INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at, finished_at) VALUES ($1, $2, 'failed', 1, $3, $3)`,
			stoa.NewID[stoa.RunID](), store.ID, tx.Now)
		return err
	})
	return store.ID.String()
}

// credentials gives the store's failed run credentials with which it can be retried.
func (w *leakWorld) credentials(store string) {
	w.t.Helper()
	id, err := stoa.ParseID[stoa.StoreID](store)
	if err != nil {
		w.t.Fatal(err)
	}
	w.tx(func(tx *masterdb.Tx) error {
		return w.s.Tenants.Save(w.t.Context(), tx, id, credential.ManagedSQLite(id))
	})
}

// storeFor returns a separate store for a caller who may change something, and a shared
// one for all others, since creating a store is slow.
func (w *leakWorld) storeFor(op operation, caller string) string {
	w.t.Helper()
	may := slices.Contains([]string{"owner", "admin", "member", "operator", "key"}, caller)
	if may && op.ofStore() && op.method != http.MethodGet {
		return w.store(w.ids["owner"])
	}
	name := op.method + " " + op.path
	if w.shared[name] == "" {
		w.shared[name] = w.store(w.ids["owner"])
	}
	return w.shared[name]
}

// try makes the call as caller and returns the status.
func (w *leakWorld) try(op operation, caller string) string {
	w.t.Helper()
	if !op.ofStore() && slices.Contains([]string{"stranger", "foreign", "admin", "member", "viewer"}, caller) {
		return "-" // roles in a store do not apply to an operation that names no store
	}
	store := w.storeFor(op, caller)
	owner, c := w.people["owner"], w.people[caller]
	switch {
	case caller == "key":
		c = owner.withKey(store, authz.Scopes()...)
	case caller == "narrow":
		scope := authz.Scope("audit:read")
		if strings.HasSuffix(op.path, "/audit") {
			scope = "store:read"
		}
		c = owner.withKey(store, scope)
	case caller == "foreign":
		c = w.foreign
	case op.private && strings.HasPrefix(op.path, "/api/auth/") && (caller == "owner" || caller == "operator"):
		c, _ = w.register(caller == "operator") // the call may end the session, so a new user makes it
	}
	if strings.HasSuffix(op.path, "/provisioning/retry") {
		w.credentials(store)
	}
	body, path := w.fill(op, store, c)
	var header []string
	if op.byChoice {
		header = []string{"X-Store-Id", store}
	}
	return strconv.Itoa(c.call(op.method, path, body, header...).status)
}

// fill replaces the placeholders in path and body by things that exist.
func (w *leakWorld) fill(op operation, store string, caller client) (body any, path string) {
	w.t.Helper()
	path = op.path
	if op.inPath {
		path = strings.Replace(path, "{id}", store, 1)
	}
	body = bodies[op.method+" "+op.path]
	if body == nil {
		return nil, placeholder.ReplaceAllStringFunc(path, func(name string) string { return w.thing(op, name, store, caller) })
	}
	raw, err := json.Marshal(body)
	if err != nil {
		w.t.Fatal(err)
	}
	text := placeholderInBody.ReplaceAllStringFunc(string(raw), func(quoted string) string {
		return `"` + w.thing(op, strings.Trim(quoted, `"`), store, caller) + `"`
	})
	return text, placeholder.ReplaceAllStringFunc(path, func(name string) string { return w.thing(op, name, store, caller) })
}

// thing returns the id that a placeholder stands for. All calls on a store use the same
// id, unless it must be new or the caller's own.
func (w *leakWorld) thing(op operation, name, store string, caller client) string {
	w.t.Helper()
	if slices.Contains([]string{"{sessionId}", "{slug}", "{email}"}, name) {
		return w.newThing(op, name, store, caller)
	}
	if w.things[store+name] == "" {
		w.things[store+name] = w.newThing(op, name, store, caller)
	}
	return w.things[store+name]
}

// newThing creates the thing. For an unknown placeholder it returns an id that does not
// exist.
func (w *leakWorld) newThing(op operation, name, store string, caller client) string {
	w.t.Helper()
	owner, base := w.people["owner"], "/api/stores/"+store
	switch {
	case name == "{userId}":
		return w.ids["target"].String()
	case name == "{keyId}":
		return owner.call("POST", base+"/api-keys", object{"name": "K", "scopes": []string{"store:read"}}).want(http.StatusCreated).text("id")
	case name == "{invitationId}":
		w.count++ // the invitations to one address are limited
		return owner.call("POST", base+"/invitations", object{"email": fmt.Sprintf("guest%d@example.com", w.count), "role": "viewer"}).want(http.StatusCreated).text("id")
	case name == "{webhookId}" && strings.HasPrefix(op.path, "/api/operator/"):
		return w.people["operator"].call("POST", "/api/operator/webhooks", object{"url": "http://127.0.0.1:1/"}).want(http.StatusCreated).text("id")
	case name == "{webhookId}":
		return owner.call("POST", base+"/webhooks", object{"url": "http://127.0.0.1:1/"}).want(http.StatusCreated).text("id")
	case name == "{deliveryId}" && strings.HasPrefix(op.path, "/api/operator/"):
		return w.people["operator"].call("POST", "/api/operator/webhooks/"+w.thing(op, "{webhookId}", store, caller)+"/test", nil).want(http.StatusAccepted).text("id")
	case name == "{deliveryId}":
		return owner.call("POST", base+"/webhooks/"+w.thing(op, "{webhookId}", store, caller)+"/test", nil).want(http.StatusAccepted).text("id")
	case name == "{hostname}":
		w.count++
		hostname := fmt.Sprintf("shop%d.example.com", w.count)
		w.tx(func(tx *masterdb.Tx) error {
			_, err := tx.Exec(w.t.Context(), `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
				SELECT $1, id, false, true, created_at, created_at FROM stores WHERE id = $2`, hostname, store)
			return err
		})
		return hostname
	case name == "{sessionId}":
		if a := caller.call("GET", "/api/auth/sessions", nil); a.status == http.StatusOK {
			return a.list("data")[0].(object)["id"].(string)
		}
	case name == "{id}" && strings.HasPrefix(op.path, "/api/credits/holds/"):
		return owner.call("POST", "/api/credits/holds", object{"amount": "1"}, "X-Store-Id", store).want(http.StatusCreated).text("hold", "id")
	case name == "{id}" && strings.HasPrefix(op.path, "/api/credits/purchases/"):
		return owner.call("POST", "/api/credits/purchase", object{"credits": 5}, "X-Store-Id", store).want(http.StatusCreated).text("id")
	case name == "{slug}":
		w.count++
		return fmt.Sprintf("slug-%d", w.count)
	case name == "{email}":
		w.count++
		return w.email(w.count)
	}
	return uuid.NewString()
}
