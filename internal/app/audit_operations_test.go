package app_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/alecthomas/kong"
	"github.com/descope/virtualwebauthn"
	"github.com/google/uuid"
	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames/hostnamestest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// auditedWorld makes calls and compares their audit log entries with auditedOperations.
type auditedWorld struct {
	t    *testing.T
	s    *server
	done map[string]bool // operation + ": " + action, for each entry that was found
}

type auditRow struct {
	Action  string
	Outcome string
	UserID  *stoa.UserID
	Address string
	Details string
}

// entries returns the entries that one request, or one run of a command, has written.
func (w *auditedWorld) entries(where, arg string) (rows []auditRow) {
	w.t.Helper()
	err := w.s.Master.Select(w.t.Context(), &rows, `SELECT action, outcome, user_id, address, details FROM audit_events WHERE `+where+` ORDER BY id`, arg)
	if err != nil {
		w.t.Fatal(err)
	}
	return rows
}

// do carries out an operation with params in place of its placeholders, and reads its
// entries by the answer's request id.
func (w *auditedWorld) do(c client, operation string, params []string, body any, status int, header ...string) answer {
	w.t.Helper()
	method, path, _ := strings.Cut(operation, " ")
	for _, p := range params {
		path = strings.Replace(path, placeholder.FindString(path), p, 1)
	}
	a := c.call(method, path, body, header...).want(status)
	rows := w.entries(`request_id = $1`, a.header.Get("X-Request-Id"))
	w.compare(operation, auditedOperations[operation], rows)
	for _, r := range rows {
		if r.UserID == nil || r.Address != "127.0.0.1" {
			w.t.Errorf("%s: the entry does not say who, from where: %+v", operation, r)
		}
	}
	return a
}

// compare compares the entries of an operation with its row, and marks their actions as
// found.
func (w *auditedWorld) compare(operation string, rule auditRule, rows []auditRow) {
	w.t.Helper()
	for _, r := range rows {
		w.done[operation+": "+r.Action] = true
		if !slices.Contains(rule.actions, r.Action) {
			w.t.Errorf("%s writes %s, its row says %v%s", operation, r.Action, rule.actions, rule.reason)
		}
	}
	if len(rows) == 0 && len(rule.actions) > 0 {
		w.t.Errorf("%s writes nothing, its row says %v", operation, rule.actions)
	}
}

// TestEveryOperationIsInTheAuditTable checks that every operation and command states
// what it writes to the audit log, or why it writes nothing.
func TestEveryOperationIsInTheAuditTable(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	known := map[string]bool{}
	for _, op := range operations(t, s) {
		known[op.method+" "+op.path] = true
	}
	checkTable(t, known, auditedOperations)

	var c cli.Commands
	parser, err := kong.New(&c)
	if err != nil {
		t.Fatal(err)
	}
	known = map[string]bool{}
	for _, node := range parser.Model.Leaves(false) {
		known[strings.TrimPrefix(node.FullPath(), parser.Model.Name+" ")] = true
	}
	checkTable(t, known, auditedCommands)
}

func checkTable(t *testing.T, known map[string]bool, table map[string]auditRule) {
	t.Helper()
	if len(known) < 20 {
		t.Errorf("only %d were found", len(known))
	}
	for name := range known {
		rule, ok := table[name]
		if !ok {
			t.Errorf("%s has no row in audit_rules_test.go: which actions does it write to the audit log, or why none?", name)
		} else if (len(rule.actions) == 0) != (rule.reason != "") {
			t.Errorf("%s: give actions or a reason", name)
		}
	}
	for name := range table {
		if !known[name] {
			t.Errorf("%s has a row in audit_rules_test.go and does not exist", name)
		}
	}
}

// TestEveryChangeIsAudited carries out every operation that changes something, and
// checks its entry by the request id.
func TestEveryChangeIsAudited(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			stripe, names := stripetest.New(t, ""), hostnamestest.NewDNS(t)
			sb := supabasetest.New(t, supabasetest.Options{})
			cfg := atStripe(supabaseConfig(t, engine, sb), stripe)
			cfg.DNSServer = names.Address
			unlimited(cfg)
			w := &auditedWorld{t: t, s: startServer(t, cfg), done: map[string]bool{}}
			owner, id := w.accounts()
			w.leave()
			w.webhooks(w.operatorActs(), "/api/operator/webhooks", nil)
			w.people(owner, id)
			w.webhooks(owner, "/api/stores/{id}/webhooks", []string{id})
			w.lifecycle(owner)
			w.databases(owner)
			w.hostnames(owner, id, names)
			w.backups(owner)
			w.creditsOf(owner, id)
			w.supabase(owner, sb)
			w.reach()
			w.checkAllTried(auditedOperations)
			checkEvents(t, w.s)
		})
	}
}

func (w *auditedWorld) register(email string) (client, answer) {
	w.t.Helper()
	c := client{t: w.t, url: w.s.URL, s: w.s}
	a := w.do(c, "POST /api/auth/register", nil, object{
		"email": email, "password": testPassword, "firstName": "John", "lastName": "Doe", "storeName": "Store",
	}, http.StatusCreated)
	c.token = a.text("accessToken")
	return c, a
}

// token returns the token of the mail that links to page.
func (w *auditedWorld) token(page string) object {
	w.t.Helper()
	u, err := url.Parse(client{t: w.t, url: w.s.URL}.mailed(page))
	if err != nil {
		w.t.Fatal(err)
	}
	return object{"token": u.Query().Get("token")}
}

// accounts calls the operations on an account. It returns the user's client and first
// store.
func (w *auditedWorld) accounts() (client, string) {
	w.t.Helper()
	visitor := client{t: w.t, url: w.s.URL}
	_, a := w.register("owner@example.com")
	proof := w.token("verify")
	proof["password"] = testPassword
	w.do(visitor, "POST /api/auth/verify-email", nil, proof, http.StatusNoContent)
	w.do(visitor, "POST /api/auth/refresh", nil, object{"refreshToken": a.text("refreshToken")}, http.StatusOK)
	w.do(visitor, "POST /api/auth/forgot-password", nil, object{"email": "owner@example.com"}, http.StatusNoContent)
	reset := w.token("reset")
	reset["password"] = testPassword
	w.do(visitor, "POST /api/auth/reset-password", nil, reset, http.StatusNoContent)

	login := object{"email": "owner@example.com", "password": testPassword}
	in := func() client {
		w.t.Helper()
		return client{t: w.t, url: w.s.URL, token: w.do(visitor, "POST /api/auth/login", nil, login, http.StatusOK).text("accessToken")}
	}
	c := in()
	w.do(c, "POST /api/auth/change-password", nil, object{"oldPassword": testPassword, "newPassword": testPassword + "!"}, http.StatusNoContent)
	login["password"] = testPassword + "!"
	factor := w.do(c, "POST /api/auth/second-factor", nil, object{"password": login["password"]}, http.StatusCreated)
	code, err := totp.GenerateCode(factor.text("secret"), time.Now())
	if err != nil {
		w.t.Fatal(err)
	}
	recovery := w.do(c, "POST /api/auth/second-factor/confirm", nil, object{"code": code}, http.StatusOK).list("recoveryCodes")
	challenge := visitor.call("POST", "/api/auth/login", login).problem(http.StatusUnauthorized, "second_factor_required").text("challengeToken")
	w.do(visitor, "POST /api/auth/login/second-factor", nil, object{"challengeToken": challenge, "code": recovery[0]}, http.StatusOK)
	w.passkeys(c, login["password"].(string))
	w.do(c, "POST /api/auth/second-factor/disable", nil, object{"password": login["password"]}, http.StatusNoContent)

	other := in().call("GET", "/api/auth/sessions", nil).want(http.StatusOK).list("data")[0].(object)["id"].(string)
	w.do(c, "DELETE /api/auth/sessions/{sessionId}", []string{other}, nil, http.StatusNoContent)
	w.do(c, "DELETE /api/auth/sessions", nil, nil, http.StatusNoContent)
	w.do(in(), "POST /api/auth/logout", nil, nil, http.StatusNoContent)
	w.do(c, "POST /api/stores/create", nil, object{"name": "Another"}, http.StatusCreated)
	return c, a.text("store", "id")
}

// passkeys calls the operations on passkeys with a software authenticator.
func (w *auditedWorld) passkeys(c client, password string) {
	w.t.Helper()
	party := virtualwebauthn.RelyingParty{ID: "localhost", Name: "Stoa", Origin: w.s.URL}
	device, key := virtualwebauthn.NewAuthenticator(), testkit.NewPasskey()
	options := func(a answer) string {
		w.t.Helper()
		text, err := json.Marshal(a.body["options"])
		testkit.Must(w.t, err)
		return string(text)
	}
	asked := w.do(c, "POST /api/auth/passkeys/registration/begin", nil, object{"password": password}, http.StatusOK)
	creation, err := virtualwebauthn.ParseAttestationOptions(options(asked))
	testkit.Must(w.t, err)
	handle, err := base64.RawURLEncoding.DecodeString(asked.text("options", "publicKey", "user", "id"))
	testkit.Must(w.t, err)
	device.Options.UserHandle = handle
	id := w.do(c, "POST /api/auth/passkeys/registration/finish", nil, object{"passkeyToken": asked.text("passkeyToken"), "name": "Laptop",
		"credential": json.RawMessage(virtualwebauthn.CreateAttestationResponse(party, device, key, *creation))}, http.StatusCreated).text("passkey", "id")
	visitor := client{t: w.t, url: w.s.URL}
	asked = w.do(visitor, "POST /api/auth/passkeys/login/begin", nil, object{}, http.StatusOK)
	assertion, err := virtualwebauthn.ParseAssertionOptions(options(asked))
	testkit.Must(w.t, err)
	w.do(visitor, "POST /api/auth/passkeys/login/finish", nil, object{"passkeyToken": asked.text("passkeyToken"),
		"credential": json.RawMessage(virtualwebauthn.CreateAssertionResponse(party, device, key, *assertion))}, http.StatusOK)
	w.do(c, "PATCH /api/auth/passkeys/{passkeyId}", []string{id}, object{"name": "Desk"}, http.StatusOK)
	w.do(c, "DELETE /api/auth/passkeys/{passkeyId}", []string{id}, object{"password": password}, http.StatusNoContent)
}

// leave calls the operations on a name and an address, and deletes the account.
func (w *auditedWorld) leave() {
	w.t.Helper()
	c := client{t: w.t, url: w.s.URL, s: w.s}
	c.token = w.do(c, "POST /api/auth/register", nil, object{"email": "leaver@example.com", "password": testPassword, "firstName": "John", "lastName": "Doe"},
		http.StatusCreated).text("accessToken")
	w.do(c, "PATCH /api/auth/me", nil, object{"firstName": "Jane"}, http.StatusOK)
	w.do(c, "POST /api/auth/email-change", nil, object{"email": "moved@example.com", "password": testPassword}, http.StatusAccepted)
	w.do(c, "POST /api/auth/email-change/confirm", nil, w.token("account/email/confirm"), http.StatusOK)
	w.do(c, "POST /api/auth/email-change", nil, object{"email": "again@example.com", "password": testPassword}, http.StatusAccepted)
	w.do(c, "DELETE /api/auth/email-change", nil, nil, http.StatusNoContent)
	w.do(c, "GET /api/auth/export", nil, nil, http.StatusOK)
	w.do(c, "DELETE /api/auth/me", nil, object{"password": testPassword}, http.StatusNoContent)
}

// operatorActs checks that an operator's reads are recorded too.
func (w *auditedWorld) operatorActs() (operator client) {
	w.t.Helper()
	op, a := w.register("op@example.com")
	target, _ := w.register("target@example.com")
	me := target.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
	target.proven()
	err := w.s.Master.Tx(w.t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.t.Context(), `UPDATE users SET role = 'admin' WHERE id = $1`, a.text("user", "id"))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.do(op, "GET /api/operator/audit", nil, nil, http.StatusOK)
	w.do(op, "GET /api/operator/stores", nil, nil, http.StatusOK)
	w.do(op, "POST /api/operator/impersonations", nil, object{"userId": me, "reason": "Ticket 17: sees no orders"}, http.StatusCreated)
	w.do(op, "GET /api/events", nil, nil, http.StatusOK)
	w.do(op, "GET /api/events/stream", nil, nil, http.StatusOK)
	return op.proven()
}

// webhooks calls the operations on endpoints.
func (w *auditedWorld) webhooks(c client, path string, store []string) {
	w.t.Helper()
	endpoint := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	w.t.Cleanup(endpoint.Close)
	made := w.do(c, "POST "+path, store, object{"url": endpoint.URL}, http.StatusCreated)
	one := append(slices.Clip(store), made.text("id"))
	w.do(c, "GET "+path, store, nil, http.StatusOK)
	w.do(c, "GET "+path+"/{webhookId}", one, nil, http.StatusOK)
	w.do(c, "POST "+path+"/{webhookId}/rotate-secret", one, nil, http.StatusOK)
	delivery := append(slices.Clip(one), w.do(c, "POST "+path+"/{webhookId}/test", one, nil, http.StatusAccepted).text("id"))
	w.do(c, "GET "+path+"/{webhookId}/deliveries", one, nil, http.StatusOK)
	w.do(c, "GET "+path+"/{webhookId}/deliveries/{deliveryId}", delivery, nil, http.StatusOK)
	w.do(c, "POST "+path+"/{webhookId}/deliveries/{deliveryId}/resend", delivery, nil, http.StatusAccepted)
	w.do(c, "POST "+path+"/{webhookId}/replay", one, object{"from": time.Now().Add(-time.Hour)}, http.StatusAccepted)
	changed := w.do(c, "PATCH "+path+"/{webhookId}", one, object{"description": "Warehouse"}, http.StatusOK)
	w.do(c, "DELETE "+path+"/{webhookId}", one, nil, http.StatusNoContent, "If-Match", changed.header.Get("ETag"))
}

// people adds, changes and removes members of a store.
func (w *auditedWorld) people(owner client, id string) {
	w.t.Helper()
	guest, a := w.register("guest@example.com")
	guestID := a.text("user", "id")
	invite := func(email string) string {
		w.t.Helper()
		return w.do(owner, "POST /api/stores/{id}/invitations", []string{id}, object{"email": email, "role": "member"}, http.StatusCreated).text("id")
	}
	invite("guest@example.com")
	w.do(guest, "POST /api/invitations/accept", nil, w.token("invitations/accept"), http.StatusOK)
	w.do(owner, "DELETE /api/stores/{id}/invitations/{invitationId}", []string{id, invite("nobody@example.com")}, nil, http.StatusNoContent)
	w.do(owner, "PATCH /api/stores/{id}/members/{userId}", []string{id, guestID}, object{"role": "admin"}, http.StatusNoContent)
	w.do(owner, "POST /api/stores/{id}/transfer-ownership", []string{id}, object{"userId": guestID}, http.StatusNoContent)
	ownerID := owner.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
	w.do(guest, "POST /api/stores/{id}/transfer-ownership", []string{id}, object{"userId": ownerID}, http.StatusNoContent)
	w.do(owner, "DELETE /api/stores/{id}/members/{userId}", []string{id, guestID}, nil, http.StatusNoContent)
	key := w.do(owner, "POST /api/stores/{id}/api-keys", []string{id}, object{"name": "K", "scopes": []string{"store:read"}}, http.StatusCreated).text("id")
	w.do(owner, "DELETE /api/stores/{id}/api-keys/{keyId}", []string{id, key}, nil, http.StatusNoContent)
}

// lifecycle changes a store's state and profile. The log contains the profile's
// previous and new values.
func (w *auditedWorld) lifecycle(owner client) {
	w.t.Helper()
	id := w.do(owner, "POST /api/stores", nil, object{"name": "Bakery", "slug": "bakery"}, http.StatusCreated).text("id")
	w.do(owner, "POST /api/stores/{id}/connect-database", []string{id}, object{"type": "managed"}, http.StatusOK)
	w.do(owner, "PATCH /api/stores/{id}", []string{id}, object{"description": "Warm bread", "settings": object{"token": "hush"}}, http.StatusOK)
	renamed := w.do(owner, "PATCH /api/stores/{id}", []string{id}, object{"slug": "bread", "city": "Athens"}, http.StatusOK)
	if rows := w.entries(`request_id = $1`, renamed.header.Get("X-Request-Id")); len(rows) != 1 ||
		rows[0].Details != `{"fields":"city,slug","newSlug":"bread","oldSlug":"bakery"}` {
		w.t.Errorf("the rename is %+v", rows)
	}
	if rows := w.entries(`action = 'store.updated' AND details LIKE $1`, `%description%`); len(rows) != 1 || rows[0].Details != `{"fields":"description,settings"}` {
		w.t.Errorf("the new description is %+v", rows)
	}
	for _, operation := range []string{"POST /api/stores/{id}/suspend", "POST /api/stores/{id}/resume", "DELETE /api/stores/{id}", "POST /api/stores/{id}/restore"} {
		w.do(owner, operation, []string{id}, nil, http.StatusOK)
	}
}

// databases tests, connects and reconnects databases, and rotates their credentials.
func (w *auditedWorld) databases(owner client) {
	w.t.Helper()
	engine := tenantdbtest.Engines()[1]
	raw := tenantdbtest.ConnectionString(w.t, engine)
	body := func(raw string) object { return object{"type": string(engine), "connectionString": raw} }
	wrong := withURL(w.t, raw, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), "wrong") })
	id := owner.call("POST", "/api/stores", object{"name": "Merchant's own"}).want(http.StatusCreated).text("id")

	tested := w.do(owner, "POST /api/stores/{id}/database/test", []string{id}, body(wrong), http.StatusOK).is(false, "ok")
	rows := w.entries(`request_id = $1`, tested.header.Get("X-Request-Id"))
	u, err := url.Parse(raw)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, want := range []string{`"code":"database_auth_failed"`, `"host":"` + u.Hostname() + `"`, `"port":"` + u.Port() + `"`} {
		if len(rows) != 1 || rows[0].Outcome != "failed" || !strings.Contains(rows[0].Details, want) {
			w.t.Errorf("the test of a database is %+v, want %s", rows, want)
		}
	}
	if strings.Contains(rows[0].Details, "wrong") || strings.Contains(rows[0].Details, u.User.Username()) {
		w.t.Errorf("the log has credentials: %s", rows[0].Details)
	}
	owner.call("POST", "/api/stores/"+id+"/connect-database", body(wrong)).problem(http.StatusUnprocessableEntity, "database_auth_failed")
	owner.call("POST", "/api/stores/"+id+"/provisioning/retry", nil)
	retried := w.entries(`action = $1`, audit.ConnectRetried)
	w.compare("POST /api/stores/{id}/provisioning/retry", auditedOperations["POST /api/stores/{id}/provisioning/retry"], retried)
	w.do(owner, "POST /api/stores/{id}/connect-database", []string{id}, body(raw), http.StatusOK)
	w.do(owner, "POST /api/stores/{id}/database/test", []string{id}, nil, http.StatusOK)

	w.do(owner, "POST /api/stores/{id}/database/rotate-credentials", []string{id}, body(wrong), http.StatusUnprocessableEntity)
	old, err := credential.ParseConnectionString(engine, secretOf(raw))
	if err != nil {
		w.t.Fatal(err)
	}
	password := tenantdbtest.Revoke(w.t, old).Password.Reveal()
	renewed := withURL(w.t, raw, func(u *url.URL) { u.User = url.UserPassword(u.User.Username(), password) })
	w.do(owner, "POST /api/stores/{id}/database/rotate-credentials", []string{id}, body(renewed), http.StatusOK)
}

func (w *auditedWorld) hostnames(owner client, id string, names *hostnamestest.DNS) {
	w.t.Helper()
	const name = "shop.example.com"
	claim := w.do(owner, "POST /api/stores/{id}/hostnames", []string{id}, object{"hostname": name}, http.StatusCreated)
	names.Put("_stoa."+name, claim.text("verification", "record", "value"))
	w.do(owner, "POST /api/stores/{id}/hostnames/{hostname}/verify", []string{id, name}, nil, http.StatusOK).is(true, "verified")
	w.do(owner, "PATCH /api/stores/{id}/hostnames/{hostname}", []string{id, name}, object{"primary": true}, http.StatusOK)
	w.do(owner, "DELETE /api/stores/{id}/hostnames/{hostname}", []string{id, name}, nil, http.StatusNoContent)
}

func (w *auditedWorld) creditsOf(owner client, id string) {
	w.t.Helper()
	err := w.s.Master.Tx(w.t.Context(), func(tx *masterdb.Tx) error {
		_, err := w.s.Ledger.Grant(w.t.Context(), tx, mustID(w.t, id), credits.Grant{Type: credits.TypeBonus, Amount: 10 * credits.Credit, IdempotencyKey: uuid.NewString()})
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	do := func(operation string, params []string, body any, status int) answer {
		w.t.Helper()
		return w.do(owner, operation, params, body, status, "X-Store-Id", id)
	}
	do("POST /api/credits/spend", nil, object{"amount": "1"}, http.StatusOK)
	for _, end := range []string{"capture", "release"} {
		hold := do("POST /api/credits/holds", nil, object{"amount": "1"}, http.StatusCreated).text("hold", "id")
		do("POST /api/credits/holds/{id}/"+end, []string{hold}, object{}, http.StatusOK)
	}
	set := do("PUT /api/credits/settings", nil, object{"lowBalanceThreshold": "2.5"}, http.StatusOK)
	if rows := w.entries(`request_id = $1`, set.header.Get("X-Request-Id")); len(rows) != 1 || rows[0].Details != `{"newLowBalance":"2.5","oldLowBalance":"none"}` {
		w.t.Errorf("the setting is %+v", rows)
	}
	do("POST /api/credits/purchase", nil, object{"credits": 100}, http.StatusCreated)
	do("POST /api/credits/auto-recharge/card", nil, nil, http.StatusCreated)
	do("PUT /api/credits/auto-recharge", nil, object{"enabled": false, "threshold": "1", "credits": 5, "monthlyCap": 5}, http.StatusOK)
}

// backups makes, checks, restores, clones, downloads, uploads and deletes archives.
func (w *auditedWorld) backups(owner client) {
	w.t.Helper()
	id := owner.call("POST", "/api/stores", object{"name": "Archived"}).want(http.StatusCreated).text("id")
	owner.call("POST", "/api/stores/"+id+"/connect-database", object{"type": "managed"}).want(http.StatusOK)
	made := w.do(owner, "POST /api/stores/{id}/backups", []string{id}, nil, http.StatusAccepted)
	backup := made.text("id")
	owner.archived(id, backup)
	both := []string{id, backup}
	w.do(owner, "POST /api/stores/{id}/backups/{backupId}/check", both, nil, http.StatusAccepted)
	w.do(owner, "POST /api/stores/{id}/backups/{backupId}/restore", both, object{"unsaved": true}, http.StatusAccepted)
	owner.restored(id)
	w.do(owner, "POST /api/stores/{id}/backups/{backupId}/clone", both, object{"name": "Copy"}, http.StatusAccepted)
	file := w.do(owner, "POST /api/stores/{id}/backups/{backupId}/download", both, object{"passphrase": "correct horse battery"}, http.StatusOK)
	w.do(owner, "POST /api/stores/{id}/backups/upload", []string{id}, file.raw, http.StatusCreated, "Content-Type", "application/octet-stream", "Stoa-Archive-Passphrase", "correct horse battery")
	w.do(owner, "PUT /api/stores/{id}/backup-schedule", []string{id}, object{"hourly": 0, "daily": 1, "weekly": 0, "monthly": 0}, http.StatusOK)
	w.do(owner, "DELETE /api/stores/{id}/backup-schedule", []string{id}, nil, http.StatusOK)
	testkit.Eventually(w.t, testkit.Timeout, "the archive can be deleted", func() bool {
		return owner.call("DELETE", "/api/stores/"+id+"/backups/"+backup, nil).status != http.StatusConflict
	})
	w.compare("DELETE /api/stores/{id}/backups/{backupId}", auditedOperations["DELETE /api/stores/{id}/backups/{backupId}"], w.entries(`action = $1`, audit.BackupDeleted))
}

func (w *auditedWorld) supabase(owner client, sb *supabasetest.Server) {
	w.t.Helper()
	id := owner.call("POST", "/api/stores", object{"name": "At Supabase"}).want(http.StatusCreated).text("id")
	consent(w.t, owner, sb, id)
	if rows := w.entries(`action = $1`, audit.SupabaseConnected); len(rows) != 1 {
		w.t.Errorf("the consent is %+v", rows)
	}
	w.do(owner, "POST /api/stores/{id}/supabase/projects", []string{id}, object{"organization": sb.Organization, "region": "eu-central-1"}, http.StatusAccepted, "Prefer", "wait=0")
	w.do(owner, "DELETE /api/stores/{id}/supabase/connection", []string{id}, nil, http.StatusNoContent)
}

// reach reads and resets the credentials of a managed database, at a server of its own.
func (w *auditedWorld) reach() {
	w.t.Helper()
	managed, _ := newManagedWorld(w.t, os.Getenv(tenantdbtest.PostgresEnv))
	there := &auditedWorld{t: w.t, s: managed.server, done: w.done}
	there.do(managed.api, "GET /api/stores/{id}/database/credentials", []string{managed.id}, nil, http.StatusOK)
	there.do(managed.api, "POST /api/stores/{id}/database/reset-password", []string{managed.id}, nil, http.StatusNoContent)
	begun := there.do(managed.api, "POST /api/stores/{id}/moves", []string{managed.id}, object{"managed": "sqlite"}, http.StatusAccepted).text("id")
	there.do(managed.api, "GET /api/stores/{id}/moves", []string{managed.id}, nil, http.StatusOK)
	move := func(state string) {
		w.t.Helper()
		for deadline := time.Now().Add(time.Minute); ; <-time.After(50 * time.Millisecond) {
			now := there.do(managed.api, "GET /api/stores/{id}/moves/{moveId}", []string{managed.id, begun}, nil, http.StatusOK)
			if now.text("state") == state {
				return
			}
			if time.Now().After(deadline) {
				w.t.Fatalf("the move is not %s: %v", state, now)
			}
		}
	}
	move("kept")
	there.do(managed.api, "POST /api/stores/{id}/moves/{moveId}/rollback", []string{managed.id, begun}, nil, http.StatusAccepted)
	move("rolled_back")
	begun = there.do(managed.api, "POST /api/stores/{id}/moves", []string{managed.id}, object{"managed": "sqlite"}, http.StatusAccepted).text("id")
	there.do(managed.api, "POST /api/stores/{id}/moves/{moveId}/abort", []string{managed.id, begun}, nil, http.StatusAccepted)
	move("aborted")
	begun = there.do(managed.api, "POST /api/stores/{id}/moves", []string{managed.id}, object{"managed": "sqlite"}, http.StatusAccepted).text("id")
	move("kept")
	there.do(managed.api, "POST /api/stores/{id}/moves/{moveId}/finish", []string{managed.id, begun}, nil, http.StatusAccepted)
	move("succeeded")
}

// TestCommandsAreAudited runs every command that changes something. Each run has its
// own request id, and its entry names the command.
func TestCommandsAreAudited(t *testing.T) {
	t.Parallel()
	r := newRestricted(t)
	s := startServer(t, r.owner)
	w := &auditedWorld{t: t, s: s, done: map[string]bool{}}
	_, id, _ := connected(t, s, "owner@example.com")
	flags := []string{"--data-dir=" + r.owner.DataDir, "--master-db-url=" + r.owner.MasterDBURL.Reveal()}
	ids := map[string]bool{}
	for _, args := range [][]string{
		{"stores", "suspend", id},
		{"stores", "resume", id},
		{"stores", "delete", id, "--yes"},
		{"stores", "restore", id},
		{"users", "verify", "owner@example.com"},
		{"users", "quota", "owner@example.com", "--stores=4"},
		{"users", "promote", "owner@example.com"},
		{"users", "demote", "owner@example.com"},
		{"prices", "set", "email_send", "0.25"},
		{"credits", "grant", id, "5", "--reason=x"},
		{"keys", "rotate"},
		{"backup", "--master", "--output=" + filepath.Join(t.TempDir(), "master"), "--backup-recipients=" + newRecipient(t)},
		{"tenants", "migrate"},
		{"migrate", "--grant-to=" + r.role, "--audit-retention=1000h"},
	} {
		w.command(ids, flags, args...)
	}
	w.archives(flags, id)
	w.importing(ids, flags)
	managed, flags := newManagedWorld(t, os.Getenv(tenantdbtest.PostgresEnv))
	there := &auditedWorld{t: t, s: managed.server, done: w.done}
	there.command(ids, flags, "stores", "dsn", managed.id)
	there.command(ids, flags, "stores", "reset-password", managed.id, "--yes")
	there.command(ids, flags, "stores", "move", managed.id, "--to=managed:sqlite", "--wait")
	w.checkAllTried(auditedCommands)
}

// archives runs the commands of archives.
func (w *auditedWorld) archives(flags []string, store string) {
	w.t.Helper()
	ids := map[string]bool{} // the command backup has run before
	file, identity := filepath.Join(w.t.TempDir(), "store.stoa"), filepath.Join(w.t.TempDir(), "identity")
	key, err := age.GenerateX25519Identity()
	testkit.Must(w.t, err)
	testkit.Must(w.t, os.WriteFile(identity, []byte(key.String()), 0o600))
	w.command(ids, flags, "backup", store)
	var backup string
	testkit.Must(w.t, w.s.Master.Get(w.t.Context(), &backup, `SELECT id FROM backups WHERE store_id = $1`, store))
	w.command(ids, flags, "restore", store, "--yes")
	w.command(ids, flags, "backups", "download", store, backup, "--output="+file, "--recipient="+key.Recipient().String())
	w.command(ids, flags, "backups", "upload", store, file, "--identity="+identity)
	w.command(ids, flags, "backups", "clone", store, backup, "--name=Branch", "--without=customers")
	w.command(ids, flags, "backups", "delete", store, backup, "--yes")
	forgotten := func(tx *masterdb.Tx) error {
		_, err := tx.Exec(w.t.Context(), `DELETE FROM backups WHERE store_id = $1 AND origin = 'upload'`, store)
		return err
	}
	testkit.Must(w.t, w.s.Master.Tx(w.t.Context(), forgotten))
	w.command(ids, flags, "backups", "discover", store)
	for _, args := range [][]string{{"backups", "list", store, "--json"}, {"backups", "verify", store, "--drill"}} {
		if status, out, errOut := command(w.t, append(args, flags...)...); status != 0 || !strings.Contains(out, "-") {
			w.t.Errorf("%v: status %d: %s%s", args, status, out, errOut)
		}
	}
}

// importing imports a store.
func (w *auditedWorld) importing(ids map[string]bool, flags []string) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "stores.csv")
	testkit.Must(w.t, os.WriteFile(file, []byte("owner_email,store_slug,store_name\nimported@example.com,imported,Imported\n"), 0o600))
	w.command(ids, flags, "stores", "import", file)
}

// command runs a command and checks its entries. ids are the request ids of earlier runs.
func (w *auditedWorld) command(ids map[string]bool, flags []string, args ...string) {
	w.t.Helper()
	if status, out, errOut := command(w.t, append(slices.Clone(args), flags...)...); status != 0 {
		w.t.Errorf("%v: status %d: %s%s", args, status, out, errOut)
	}
	name := args[0]
	if _, alone := auditedCommands[name]; !alone {
		name += " " + args[1]
	}
	w.compare(name, auditedCommands[name], w.entries(`details LIKE $1`, `%"command":"`+name+`"%`))
	var runs []string
	if err := w.s.Master.Select(w.t.Context(), &runs, `SELECT DISTINCT request_id FROM audit_events WHERE details LIKE $1`, `%"command":"`+name+`"%`); err != nil {
		w.t.Fatal(err)
	}
	for _, run := range runs {
		if ids[run] {
			w.t.Errorf("%s has the id of another run", name)
		}
		ids[run] = true
		if _, err := stoa.ParseID[stoa.RequestID](run); err != nil {
			w.t.Errorf("%s: request id %q", name, run)
		}
	}
}

// checkAllTried fails for a row with an action that no call has written.
func (w *auditedWorld) checkAllTried(table map[string]auditRule) {
	w.t.Helper()
	for operation, rule := range table {
		for _, action := range rule.actions {
			if !w.done[operation+": "+action] {
				w.t.Errorf("%s was not seen to write %s", operation, action)
			}
		}
	}
}

// TestRequestIDsAreTheServersOwn checks that a client that always sends the same
// X-Request-Id hides no operator action, and that the answer contains the id of the
// logs. The id of a trusted proxy is recorded in addition.
func TestRequestIDsAreTheServersOwn(t *testing.T) {
	t.Parallel()
	for _, trusted := range []bool{false, true} {
		onEachMaster(t, func(t *testing.T, s *server) {
			w := &auditedWorld{t: t, s: s}
			_, id := register(t, s, "owner@example.com")
			op, _ := register(t, s, "op@example.com")
			if err := s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
				_, err := tx.Exec(t.Context(), `UPDATE users SET role = 'admin' WHERE email = 'op@example.com'`)
				return err
			}); err != nil {
				t.Fatal(err)
			}
			seen := map[string]bool{}
			for range 5 {
				a := op.call("GET", "/api/stores/"+id, nil, "X-Request-Id", "always-the-same").want(http.StatusOK)
				own := a.header.Get("X-Request-Id")
				if _, err := stoa.ParseID[stoa.RequestID](own); err != nil || seen[own] {
					t.Errorf("the answer's id is %q", own)
				}
				seen[own] = true
				rows := w.entries(`request_id = $1`, own)
				if len(rows) != 1 || rows[0].Action != audit.OperatorActed || strings.Contains(rows[0].Details, `"clientRequestId":"always-the-same"`) != trusted {
					t.Errorf("trusted %t: the entries are %+v", trusted, rows)
				}
			}
			op.call("GET", "/api/stores/"+uuid.NewString(), nil, "X-Request-Id", "always-the-same").problem(http.StatusNotFound, "store_not_found")
		}, func(cfg *config.Config) {
			if trusted {
				cfg.TrustedProxies = []string{"127.0.0.0/8"}
			}
		})
	}
}
