package app_test

import (
	"encoding/csv"
	"encoding/json"
	"html"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// withKey creates an API key and returns a client that uses it.
func (c client) withKey(store string, scopes ...authz.Scope) client {
	c.t.Helper()
	a := c.proven().call("POST", "/api/stores/"+store+"/api-keys", object{"name": "Test", "scopes": scopes}).want(http.StatusCreated)
	return client{t: c.t, url: c.url, token: a.text("key")}
}

// mailed waits for a mail with a link to the page and returns the link's path.
func (c client) mailed(page string) string {
	c.t.Helper()
	link := regexp.MustCompile(`href="[^"]*(/` + page + `\?token=[^"]+)"`)
	var found []string
	testkit.Eventually(c.t, testkit.Timeout, "a mail with a link to "+page, func() bool {
		found = link.FindStringSubmatch(c.call("GET", "/dev/mailbox", nil).want(http.StatusOK).raw)
		return found != nil
	})
	return html.UnescapeString(found[1])
}

// submit opens the page that a mail leads to and sends its form.
func (c client) submit(link string, fields url.Values) answer {
	c.t.Helper()
	c.call("GET", link, nil).want(http.StatusOK)
	return c.call("POST", link, fields.Encode(), "Content-Type", "application/x-www-form-urlencoded")
}

// TestAccountByMail follows the links of the mails in the development mailbox through
// the pages that they lead to.
func TestAccountByMail(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		visitor := client{t: t, url: s.URL}
		c.call("GET", "/api/auth/me", nil).want(http.StatusOK).is(false, "user", "emailVerified")
		c.call("POST", "/api/stores/"+id+"/invitations", object{"email": "guest@example.com", "role": "member"}).problem(http.StatusForbidden, "email_unverified")
		link := visitor.mailed("verify")
		visitor.submit(link, url.Values{}).want(http.StatusUnprocessableEntity)
		visitor.submit(link, url.Values{"password": {"not the password"}}).want(http.StatusUnprocessableEntity)
		visitor.submit(link, url.Values{"password": {testPassword}}).want(http.StatusSeeOther)
		visitor.submit(link, url.Values{"password": {testPassword}}).want(http.StatusGone) // a token is accepted once
		c.call("GET", "/api/auth/me", nil).want(http.StatusOK).is(true, "user", "emailVerified")

		for _, email := range []string{"owner@example.com", "nobody@example.com"} {
			if a := visitor.call("POST", "/api/auth/forgot-password", object{"email": email}).want(http.StatusNoContent); a.raw != "" {
				t.Errorf("%s: %s", email, a.raw)
			}
			visitor.call("POST", "/forgot", "email="+url.QueryEscape(email), "Content-Type", "application/x-www-form-urlencoded").want(http.StatusOK)
		}
		visitor.call("POST", "/forgot", "email=nobody", "Content-Type", "application/x-www-form-urlencoded").want(http.StatusUnprocessableEntity)
		link = visitor.mailed("reset")
		visitor.submit(link, url.Values{"password": {"short"}}).want(http.StatusUnprocessableEntity)
		const next = "quite another one"
		visitor.submit(link, url.Values{"password": {next}}).want(http.StatusSeeOther)
		c.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		a := visitor.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": next}).want(http.StatusOK)
		c.token = a.text("accessToken")

		guest, _ := register(t, s, "guest@example.com")
		c.call("POST", "/api/stores/"+id+"/invitations", object{"email": "guest@example.com", "role": "member"}).want(http.StatusCreated)
		link = visitor.mailed("invitations/accept")
		signedOut := newBrowserClient(t, s)
		if a := signedOut.get(link); a.Status != http.StatusOK || !strings.Contains(a.Body, "/signin?next=") || !strings.Contains(a.Body, "guest@example.com") {
			t.Errorf("an invitation, signed out: %d\n%s", a.Status, a.Body)
		}
		if a := signedOut.post(link, nil); a.Status != http.StatusUnauthorized || !strings.Contains(a.Body, html.EscapeString(link)) {
			t.Errorf("accepted, signed out: %d, want the sign-in that keeps the link\n%s", a.Status, a.Body)
		}
		other := signIn(t, s, "owner@example.com", next)
		if a := other.post(link, nil); a.Status != http.StatusForbidden {
			t.Errorf("accepted by another: %d", a.Status)
		}
		invited := signIn(t, s, "guest@example.com", testPassword)
		if a := invited.post(link, nil); a.Status != http.StatusSeeOther || !strings.HasPrefix(a.Location, "/stores/") {
			t.Errorf("accepted: %d to %s\n%s", a.Status, a.Location, a.Body)
		}
		if a := invited.get(link); a.Status != http.StatusGone {
			t.Errorf("the link again: %d", a.Status)
		}
		guest.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("member", "role")
		if n := len(c.call("GET", "/api/stores/"+id+"/members", nil).want(http.StatusOK).list("data")); n != 2 {
			t.Errorf("%d members", n)
		}
		// Only the platform's own hosts serve the pages.
		visitor.call("GET", "/verify", nil, "Host", "shop.example.com").want(http.StatusNotFound)
		visitor.call("GET", "/dev/mailbox", nil, "Host", "shop.example.com").want(http.StatusNotFound)
	})
}

// TestInvitationOverTheAPI checks invitations, members and the transfer of ownership
// over HTTP.
func TestInvitationOverTheAPI(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	c, id := register(t, s, "owner@example.com")
	c.proven()
	guest, _ := register(t, s, "guest@example.com")
	path := "/api/stores/" + id + "/invitations"
	c.call("POST", path, object{"email": "guest@example.com", "role": "viewer"}).want(http.StatusCreated).is("viewer", "role")
	c.call("POST", path, object{"email": "guest@example.com", "role": "viewer"}).problem(http.StatusTooManyRequests, "rate_limited")
	u, err := url.Parse(guest.mailed("invitations/accept"))
	if err != nil {
		t.Fatal(err)
	}
	token := object{"token": u.Query().Get("token")}
	guest.call("POST", "/api/invitations/accept", token).want(http.StatusOK).is(id, "id").is("viewer", "role")
	if a := guest.call("POST", "/api/invitations/accept", token).problem(http.StatusUnauthorized, "token_invalid"); !strings.Contains(a.text("remedy"), "invitation: ask for another") {
		t.Errorf("the remedy is for another token: %s", a.raw)
	}

	me := guest.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
	member := "/api/stores/" + id + "/members/" + me
	guest.call("PATCH", member, object{"role": "owner"}).problem(http.StatusForbidden, "forbidden")
	c.call("PATCH", member, object{"role": "boss"}).problem(http.StatusUnprocessableEntity, "invalid_request")
	c.call("PATCH", member, object{"role": "admin"}).want(http.StatusNoContent)
	c.call("POST", "/api/stores/"+id+"/transfer-ownership", object{"userId": me}).want(http.StatusNoContent)
	guest.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("owner", "role")
	guest.call("DELETE", member, nil).problem(http.StatusForbidden, "forbidden")
	c.call("DELETE", member, nil).problem(http.StatusForbidden, "forbidden")
	c.call("DELETE", "/api/stores/"+id+"/members/nobody", nil).problem(http.StatusNotFound, "not_found")
}

func TestSessionsOverHTTP(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, _ := register(t, s, "owner@example.com")
		login := object{"email": "owner@example.com", "password": testPassword}
		a := c.call("POST", "/api/auth/login", login, "User-Agent", "phone").want(http.StatusOK)
		phone := client{t: t, url: s.URL, token: a.text("accessToken")}
		list := c.call("GET", "/api/auth/sessions", nil).want(http.StatusOK).list("data")
		if len(list) != 2 || list[0].(object)["userAgent"] != "phone" || list[0].(object)["current"] != false || list[0].(object)["address"] != "127.0.0.1" {
			t.Fatalf("sessions %v", list)
		}
		c.call("DELETE", "/api/auth/sessions/"+list[0].(object)["id"].(string), nil).want(http.StatusNoContent)
		phone.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		c.call("DELETE", "/api/auth/sessions/nonsense", nil).problem(http.StatusNotFound, "not_found")

		phone.token = c.call("POST", "/api/auth/login", login).want(http.StatusOK).text("accessToken")
		c.call("POST", "/api/auth/change-password", object{"oldPassword": "wrong", "newPassword": "quite another one"}).problem(http.StatusUnauthorized, "invalid_credentials")
		c.call("POST", "/api/auth/change-password", object{"oldPassword": testPassword, "newPassword": "quite another one"}).want(http.StatusNoContent)
		phone.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		c.call("DELETE", "/api/auth/sessions", nil).want(http.StatusNoContent)
		c.call("GET", "/api/auth/me", nil).want(http.StatusOK)
	})
}

func TestSecondFactorOverHTTP(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, _ := register(t, s, "owner@example.com")
		const path = "/api/auth/second-factor"
		c.call("POST", path, object{"password": testPassword}).problem(http.StatusForbidden, "email_unverified")
		c.proven()
		a := c.call("POST", path, object{"password": testPassword}).want(http.StatusCreated)
		code := func(ahead time.Duration) string {
			code, err := totp.GenerateCode(a.text("secret"), time.Now().Add(ahead))
			if err != nil {
				t.Fatal(err)
			}
			return code
		}
		recovery := c.call("POST", path+"/confirm", object{"code": code(0)}).want(http.StatusOK).list("recoveryCodes")
		c.call("GET", path, nil).want(http.StatusOK).is(true, "enabled").is(float64(10), "recoveryCodesLeft")

		login := object{"email": "owner@example.com", "password": testPassword}
		challenge := c.call("POST", "/api/auth/login", login).problem(http.StatusUnauthorized, "second_factor_required").text("challengeToken")
		finish := func(code any) answer {
			return c.call("POST", "/api/auth/login/second-factor", object{"challengeToken": challenge, "code": code})
		}
		finish("000000").problem(http.StatusUnauthorized, "invalid_credentials")
		finish(code(30*time.Second)).want(http.StatusOK).is("owner@example.com", "user", "email")
		challenge = c.call("POST", "/api/auth/login", login).problem(http.StatusUnauthorized, "second_factor_required").text("challengeToken")
		finish(recovery[0]).want(http.StatusOK)
		c.call("POST", path+"/disable", object{"password": testPassword}).want(http.StatusNoContent)
		c.call("POST", "/api/auth/login", login).want(http.StatusOK)
	})
}

// TestAPIKeyOverHTTP checks that a key spends in its store and within its scopes, also
// when its calls are batched with those of others.
func TestAPIKeyOverHTTP(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		second := c.call("POST", "/api/stores", object{"name": "Second"}).want(http.StatusCreated).text("id")
		c.buy(id, 10)
		c.buy(second, 10)
		spender, reader := c.withKey(id, "credits:spend", "credits:read"), c.withKey(id, "credits:read", "store:read")

		spender.call("POST", "/api/credits/spend", object{"amount": "1"}).want(http.StatusOK)
		reader.call("POST", "/api/credits/spend", object{"amount": "1"}).problem(http.StatusForbidden, "forbidden")
		spender.call("POST", "/api/credits/spend", object{"amount": "1"}, "X-Store-Id", second).problem(http.StatusNotFound, "store_not_found")
		done := make(chan int)
		for i := range 20 {
			go func() {
				k := []client{spender, reader}[i%2]
				done <- k.call("POST", "/api/credits/spend", object{"amount": "0.1"}).status
			}()
		}
		statuses := map[int]int{}
		for range 20 {
			statuses[<-done]++
		}
		if statuses[http.StatusOK] != 10 || statuses[http.StatusForbidden] != 10 {
			t.Errorf("twenty at once: %v", statuses)
		}
		reader.call("GET", "/api/credits/balance", nil).want(http.StatusOK).is("8", "balance")
		spender.call("POST", "/api/credits/holds", object{"amount": "1"}).want(http.StatusCreated)
		reader.call("POST", "/api/credits/holds", object{"amount": "1"}).problem(http.StatusForbidden, "forbidden")

		if list := reader.call("GET", "/api/stores", nil).want(http.StatusOK).list("data"); len(list) != 1 || list[0].(object)["id"] != id {
			t.Errorf("a key lists %v", list)
		}
		spender.call("GET", "/api/stores", nil).problem(http.StatusForbidden, "forbidden")
		for _, call := range [][2]string{{"GET", "/api/auth/me"}, {"POST", "/api/auth/logout"}, {"GET", "/api/auth/sessions"}, {"DELETE", "/api/stores/" + id}, {"GET", "/api/stores/" + id + "/api-keys"}, {"GET", "/api/operator/stores"}} {
			reader.call(call[0], call[1], nil).problem(http.StatusForbidden, "forbidden")
		}
		reader.call("POST", "/api/stores", object{"name": "Third"}).problem(http.StatusForbidden, "forbidden")

		keys := c.call("GET", "/api/stores/"+id+"/api-keys", nil).want(http.StatusOK)
		if strings.Contains(keys.raw, spender.token) || len(keys.list("data")) != 2 {
			t.Errorf("keys: %s", keys.raw)
		}
		for _, k := range keys.list("data") {
			c.call("DELETE", "/api/stores/"+id+"/api-keys/"+k.(object)["id"].(string), nil).want(http.StatusNoContent)
		}
		reader.call("GET", "/api/credits/balance", nil).problem(http.StatusUnauthorized, "token_invalid")
	})
}

func TestAuditOverHTTP(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id, _ := connected(t, s, "owner@example.com")
		c.buy(id, 5)
		c.call("POST", "/api/stores/"+id+"/suspend", nil).want(http.StatusOK)
		key := c.withKey(id, "audit:read")
		path := "/api/stores/" + id + "/audit"
		a := key.call("GET", path+"?limit=2", nil).want(http.StatusOK)
		if got := a.list("data")[0].(object)["action"]; got != "key.created" {
			t.Errorf("the newest is %v", got)
		}
		next := key.call("GET", path+"?limit=2&cursor="+a.text("nextCursor"), nil).want(http.StatusOK)
		if len(next.list("data")) != 2 {
			t.Errorf("second page: %s", next.raw)
		}
		csvFile := c.call("GET", path, nil, "Accept", "text/csv").want(http.StatusOK)
		rows, err := csv.NewReader(strings.NewReader(csvFile.raw)).ReadAll()
		var actions []string
		for _, row := range rows {
			actions = append([]string{row[2]}, actions...)
		}
		want := "store.created database.connected credits.purchase_started credits.granted store.suspended key.created action"
		if got := strings.Join(actions, " "); got != want || err != nil {
			t.Errorf("the log says %s, %v; want %s", got, err, want)
		}
		for _, query := range []string{"?limit=0", "?cursor=x", "?outcome=perhaps", "?userId=x", "?from=yesterday"} {
			c.call("GET", path+query, nil).problem(http.StatusUnprocessableEntity, "invalid_request")
		}
		c.withKey(id, "store:read").call("GET", path, nil).problem(http.StatusForbidden, "forbidden")
		c.call("GET", "/api/operator/audit", nil).problem(http.StatusForbidden, "forbidden")
	})
}

// TestOperatorOverHTTP checks that a user promoted at the command line may act in every
// store, and that each action is recorded in the store's audit log.
func TestOperatorOverHTTP(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			s := startServer(t, cfg)
			owner, id, _ := connected(t, s, "owner@example.com")
			ownerID := owner.call("GET", "/api/auth/me", nil).want(http.StatusOK).text("user", "id")
			op, _ := register(t, s, "op@example.com")
			flags := []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
			op.call("GET", "/api/stores/"+id, nil).problem(http.StatusNotFound, "store_not_found")
			if status, _, errOut := command(t, append([]string{"users", "promote", "op@example.com"}, flags...)...); status != 1 || !strings.Contains(errOut, "users verify") {
				t.Fatalf("status %d: %s", status, errOut)
			}
			for _, email := range []string{"op@example.com", "OWNER@example.com"} {
				if status, out, errOut := command(t, append([]string{"users", "verify", email}, flags...)...); status != 0 || !strings.Contains(out, "proven") {
					t.Fatalf("status %d: %s%s", status, out, errOut)
				}
			}
			if status, out, errOut := command(t, append([]string{"users", "promote", "op@example.com"}, flags...)...); status != 0 || !strings.Contains(out, "operator") {
				t.Fatalf("status %d: %s%s", status, out, errOut)
			}
			op.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("operator", "role")
			if n := len(op.call("GET", "/api/operator/stores", nil).want(http.StatusOK).list("data")); n != 2 {
				t.Errorf("an operator sees %d stores", n)
			}
			op.call("POST", "/api/stores/"+id+"/suspend", nil).want(http.StatusOK).is(true, "suspendedByOperator")
			owner.call("POST", "/api/stores/"+id+"/resume", nil).problem(http.StatusForbidden, "forbidden")
			op.call("POST", "/api/stores/"+id+"/resume", nil).want(http.StatusOK)
			op.call("POST", "/api/credits/spend", object{"amount": "1"}, "X-Store-Id", id).problem(http.StatusForbidden, "forbidden")
			log := owner.call("GET", "/api/stores/"+id+"/audit?action=operator.access", nil).want(http.StatusOK)
			if !strings.Contains(log.raw, "op@example.com") || len(log.list("data")) < 3 {
				t.Errorf("the owner's log: %s", log.raw)
			}

			const path = "/api/operator/impersonations"
			op.call("POST", path, object{"userId": ownerID, "reason": "short"}).problem(http.StatusUnprocessableEntity, "invalid_request")
			owner.call("POST", path, object{"userId": ownerID, "reason": "because I can"}).problem(http.StatusForbidden, "forbidden")
			a := op.call("POST", path, object{"userId": ownerID, "reason": "ticket 17: sees no orders"}).want(http.StatusCreated)
			as := client{t: t, url: s.URL, token: a.text("accessToken")}
			as.call("PATCH", "/api/stores/"+id, object{"description": "Repaired"}).want(http.StatusOK).is("owner", "role")
			as.call("POST", "/api/stores/"+id+"/suspend", nil).problem(http.StatusForbidden, "forbidden") // a suspension would outlast the impersonation
			as.call("POST", "/api/auth/change-password", object{"oldPassword": testPassword, "newPassword": "quite another one"}).problem(http.StatusForbidden, "forbidden")
			log = owner.call("GET", "/api/stores/"+id+"/audit?action=store.updated&limit=1", nil).want(http.StatusOK)
			if !strings.Contains(log.raw, `"impersonator":`) {
				t.Errorf("who acted is not in the log: %s", log.raw)
			}
			if all := op.call("GET", "/api/operator/audit?action=operator.impersonated", nil).want(http.StatusOK); !strings.Contains(all.raw, "ticket 17") {
				t.Errorf("the platform's log: %s", all.raw)
			}

			if status, out, _ := command(t, append([]string{"users", "list", "--operators", "--json"}, flags...)...); status != 0 || !strings.Contains(out, `"op@example.com"`) || strings.Contains(out, "owner@") {
				t.Errorf("status %d: %s", status, out)
			}
			if status, _, errOut := command(t, append([]string{"users", "demote", "nobody@example.com"}, flags...)...); status != 1 || !strings.Contains(errOut, "No user") {
				t.Errorf("status %d: %s", status, errOut)
			}
			if status, _, errOut := command(t, append([]string{"users", "demote", "op@example.com"}, flags...)...); status != 0 {
				t.Errorf("status %d: %s", status, errOut)
			}
			op.call("GET", "/api/stores/"+id, nil).problem(http.StatusNotFound, "store_not_found")
			as.call("GET", "/api/auth/me", nil).problem(http.StatusUnauthorized, "session_revoked")
		})
	}
}

// TestRightsAreInTheDocs checks that the documentation contains the current table of
// permissions.
func TestRightsAreInTheDocs(t *testing.T) {
	t.Parallel()
	s := startServer(t, testConfig(t, masterdb.SQLite))
	doc := client{t: t, url: s.URL}.call("GET", "/api/openapi.json", nil).want(http.StatusOK)
	for _, tag := range doc.list("tags") {
		if tag.(object)["name"] == "People" && strings.Contains(tag.(object)["description"].(string), authz.Markdown()) {
			return
		}
	}
	t.Error("the documentation lacks the table of rights")
}

// TestSignInsAreLogged checks that the access log names the user whom a request without a token
// has signed in, and the store that a registration made.
func TestSignInsAreLogged(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s, err := launch(t.Context(), cfg, slog.New(slog.NewJSONHandler(&log, nil)))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = s.Stop() })
	_, store := register(t, s, "owner@example.com")
	c := client{t: t, url: s.URL, s: s, http: s.http}
	login := c.call("POST", "/api/auth/login", object{"email": "owner@example.com", "password": testPassword}).want(http.StatusOK)
	c.call("POST", "/api/auth/refresh", object{"refreshToken": login.text("refreshToken")}).want(http.StatusOK)
	signIn(t, s, "owner@example.com", testPassword)
	for route, store := range map[string]string{"/api/auth/register": store, "/api/auth/login": "", "/api/auth/refresh": "", "/signin": ""} {
		testkit.Eventually(t, testkit.Timeout, "the log has "+route, func() bool {
			for line := range strings.Lines(log.String()) {
				var l struct {
					Route  string
					User   string `json:"user_id"`
					Store  string `json:"store_id"`
					Status int
				}
				if json.Unmarshal([]byte(line), &l) == nil && l.Route == route {
					if l.User != login.text("user", "id") || l.Store != store {
						t.Errorf("the line lacks the user or the store: %s", line)
					}
					return true
				}
			}
			return false
		})
	}
}
