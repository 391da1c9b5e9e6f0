package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

var placeholder = regexp.MustCompile(`\{[^}]+\}`)

// requestIDMember matches the request id, which differs between answers by design.
var requestIDMember = regexp.MustCompile(`"requestId":"[^"]*"`)

// placeholderInBody matches a value of a body that stands for something that exists.
var placeholderInBody = regexp.MustCompile(`"\{[a-zA-Z]+\}"`)

// bodies are request bodies that pass the validation of their shape, so that the call
// reaches the check of the caller and the store. "{userId}" and similar placeholders
// stand for things that TestWhoMayDoWhat creates. Every operation except a GET has an
// entry.
var bodies = map[string]any{
	"POST /api/auth/register":                     object{"email": "{email}", "password": testPassword, "firstName": "A", "lastName": "B"},
	"POST /api/auth/login":                        object{"email": "{email}", "password": testPassword},
	"POST /api/auth/login/second-factor":          object{"challengeToken": "stoa_sf_x", "code": "123456"},
	"POST /api/auth/refresh":                      object{"refreshToken": "stoa_rt_x"},
	"POST /api/auth/logout":                       nil,
	"POST /api/auth/forgot-password":              object{"email": "{email}"},
	"POST /api/auth/reset-password":               object{"token": "stoa_pr_x", "password": "quite another one"},
	"POST /api/auth/verify-email":                 object{"token": "stoa_ve_x"},
	"POST /api/auth/verify-email/resend":          nil,
	"POST /api/auth/change-password":              object{"oldPassword": testPassword, "newPassword": "quite another one"},
	"POST /api/auth/second-factor":                object{"password": testPassword},
	"POST /api/auth/second-factor/confirm":        object{"code": "123456"},
	"POST /api/auth/second-factor/disable":        object{"password": testPassword},
	"POST /api/auth/passkeys/registration/begin":  object{"password": testPassword},
	"POST /api/auth/passkeys/registration/finish": object{"passkeyToken": "stoa_pc_x", "name": "Laptop", "credential": object{"id": "x"}},
	"PATCH /api/auth/passkeys/{passkeyId}":        object{"name": "Laptop"},
	"DELETE /api/auth/passkeys/{passkeyId}":       object{"password": testPassword},
	"POST /api/auth/passkeys/login/begin":         object{},
	"POST /api/auth/passkeys/login/finish":        object{"passkeyToken": "stoa_pc_x", "credential": object{"id": "x"}},
	"DELETE /api/auth/sessions":                   nil,
	"DELETE /api/auth/sessions/{sessionId}":       nil,
	"PATCH /api/auth/me":                          object{"firstName": "Olive"},
	"DELETE /api/auth/me":                         object{"password": ""},
	"POST /api/auth/email-change":                 object{"email": "{email}", "password": testPassword},
	"DELETE /api/auth/email-change":               nil,
	"POST /api/auth/email-change/confirm":         object{"token": "stoa_ec_x"},
	"POST /api/invitations/accept":                object{"token": "stoa_in_x"},
	"POST /api/operator/impersonations":           object{"userId": "{userId}", "reason": "Ticket 17: sees no orders"},
	"POST /api/webhooks/stripe":                   object{"id": "evt_x"},
	"POST /api/stores":                            object{"name": "Mine"},
	"POST /api/stores/create":                     object{"name": "Mine"},

	"POST /api/stores/{id}/connect-database":                                    object{"type": "managed"},
	"POST /api/stores/{id}/provisioning/retry":                                  nil,
	"POST /api/stores/{id}/database/test":                                       nil,
	"POST /api/stores/{id}/database/reset-password":                             nil,
	"POST /api/stores/{id}/webhooks":                                            object{"url": "https://example.com/hooks"},
	"PATCH /api/stores/{id}/webhooks/{webhookId}":                               object{"description": "Mine"},
	"DELETE /api/stores/{id}/webhooks/{webhookId}":                              nil,
	"POST /api/stores/{id}/webhooks/{webhookId}/rotate-secret":                  nil,
	"POST /api/stores/{id}/webhooks/{webhookId}/test":                           nil,
	"POST /api/stores/{id}/webhooks/{webhookId}/replay":                         object{"from": time.Now().Add(-time.Hour)},
	"POST /api/stores/{id}/webhooks/{webhookId}/deliveries/{deliveryId}/resend": nil,
	"POST /api/operator/webhooks":                                               object{"url": "https://example.com/hooks"},
	"PATCH /api/operator/webhooks/{webhookId}":                                  object{"description": "Mine"},
	"DELETE /api/operator/webhooks/{webhookId}":                                 nil,
	"POST /api/operator/webhooks/{webhookId}/rotate-secret":                     nil,
	"POST /api/operator/webhooks/{webhookId}/test":                              nil,
	"POST /api/operator/webhooks/{webhookId}/replay":                            object{"from": time.Now().Add(-time.Hour)},
	"POST /api/operator/webhooks/{webhookId}/deliveries/{deliveryId}/resend":    nil,
	"POST /api/stores/{id}/backups":                                             nil,
	"DELETE /api/stores/{id}/backups/{backupId}":                                nil,
	"POST /api/stores/{id}/backups/{backupId}/check":                            nil,
	"POST /api/stores/{id}/backups/{backupId}/restore":                          nil,
	"POST /api/stores/{id}/backups/{backupId}/clone":                            object{"name": "Copy"},
	"POST /api/stores/{id}/backups/{backupId}/download":                         object{"passphrase": "correct horse battery"},
	"POST /api/stores/{id}/backups/upload":                                      nil,
	"PUT /api/stores/{id}/backup-schedule":                                      object{"hourly": 0, "daily": 1, "weekly": 0, "monthly": 0},
	"DELETE /api/stores/{id}/backup-schedule":                                   nil,
	"POST /api/stores/{id}/database/rotate-credentials":                         object{"type": "mysql", "connectionString": "mysql://u:p@127.0.0.1:1/d"},
	"POST /api/stores/{id}/moves":                                               object{"managed": "sqlite"},
	"POST /api/stores/{id}/moves/{moveId}/abort":                                nil,
	"POST /api/stores/{id}/moves/{moveId}/rollback":                             nil,
	"POST /api/stores/{id}/moves/{moveId}/finish":                               nil,
	"POST /api/stores/{id}/suspend":                                             nil,
	"POST /api/stores/{id}/resume":                                              nil,
	"POST /api/stores/{id}/restore":                                             nil,
	"DELETE /api/stores/{id}":                                                   nil,
	"POST /api/stores/{id}/hostnames":                                           object{"hostname": "shop.example.com"},
	"PATCH /api/stores/{id}/hostnames/{hostname}":                               object{"primary": true},
	"DELETE /api/stores/{id}/hostnames/{hostname}":                              nil,
	"POST /api/stores/{id}/hostnames/{hostname}/verify":                         nil,
	"PATCH /api/stores/{id}":                                                    object{"name": "Taken over"},
	"POST /api/stores/{id}/api-keys":                                            object{"name": "Mine", "scopes": []string{"store:read"}},
	"DELETE /api/stores/{id}/api-keys/{keyId}":                                  nil,
	"PATCH /api/stores/{id}/members/{userId}":                                   object{"role": "viewer"},
	"DELETE /api/stores/{id}/members/{userId}":                                  nil,
	"POST /api/stores/{id}/transfer-ownership":                                  object{"userId": "{userId}"},
	"POST /api/stores/{id}/invitations":                                         object{"email": "{email}", "role": "owner"},
	"DELETE /api/stores/{id}/invitations/{invitationId}":                        nil,
	"DELETE /api/stores/{id}/supabase/connection":                               nil,
	"POST /api/stores/{id}/supabase/projects":                                   object{"organization": "demo", "region": "eu-central-1"},
	"POST /api/credits/spend":                                                   object{"amount": "1"},
	"POST /api/credits/holds":                                                   object{"amount": "1"},
	"POST /api/credits/holds/{id}/capture":                                      object{"amount": "1"},
	"POST /api/credits/holds/{id}/release":                                      nil,
	"PUT /api/credits/settings":                                                 object{"lowBalanceThreshold": "1"},
	"POST /api/credits/purchase":                                                object{"credits": 5},
	"PUT /api/credits/auto-recharge":                                            object{"enabled": false, "threshold": "1", "credits": 5, "monthlyCap": 5},
	"POST /api/credits/auto-recharge/card":                                      nil,
}

// TestStoresAreNeverMixed calls every private operation of the OpenAPI document on
// another user's store, as a person and with an API key. The answer must be byte for
// byte the one for a store that does not exist. A new operation is covered
// automatically.
func TestStoresAreNeverMixed(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		mallory, own, _ := connected(t, s, "mallory@example.com")
		malloryKey := mallory.withKey(own, authz.Scopes()...)
		victim, theirs, _ := connected(t, s, "victim@example.com")
		victim.buy(theirs, 10)
		before := victim.call("GET", "/api/stores/"+theirs, nil).want(http.StatusOK).raw

		tried := 0
		for _, op := range operations(t, s) {
			key := op.method + " " + op.path
			if !op.ofStore() {
				continue
			}
			body := anybody(t, key)
			tried++
			for _, c := range []client{mallory, malloryKey} {
				ask := func(id string) answer {
					path := placeholder.ReplaceAllString(op.path, id)
					if op.byChoice {
						return c.call(op.method, path, body, "X-Store-Id", id)
					}
					return c.call(op.method, path, body)
				}
				nobodys := uuid.NewString()
				foreign, nobody := ask(theirs).problem(http.StatusNotFound, "store_not_found"), ask(nobodys).problem(http.StatusNotFound, "store_not_found")
				sameAnswer(t, key, foreign, nobody, theirs, nobodys)
			}
		}
		if tried < 8 {
			t.Errorf("only %d operations name a store", tried)
		}
		if after := victim.call("GET", "/api/stores/"+theirs, nil).want(http.StatusOK).raw; after != before {
			t.Errorf("the victim's store changed:\n%s\n%s", before, after)
		}
		mallory.call("GET", "/api/stores/"+own, nil).want(http.StatusOK)
		if list := mallory.call("GET", "/api/stores", nil).want(http.StatusOK); strings.Contains(list.raw, theirs) {
			t.Errorf("the list shows a foreign store: %s", list.raw)
		}
	})
}

// anybody returns the operation's body, with ids of things that do not exist.
func anybody(t *testing.T, operation string) any {
	t.Helper()
	if bodies[operation] == nil {
		return nil
	}
	raw, err := json.Marshal(bodies[operation])
	if err != nil {
		t.Fatal(err)
	}
	return placeholderInBody.ReplaceAllStringFunc(string(raw), func(name string) string {
		if name == `"{email}"` {
			return `"mallory@example.com"`
		}
		return `"` + uuid.NewString() + `"`
	})
}

// sameAnswer fails the test unless two answers, about a and about b, are equal byte for
// byte in status, headers and body, except for a and b themselves.
func sameAnswer(t *testing.T, what string, foreign, nobody answer, a, b string) {
	t.Helper()
	plain := func(x answer, id string) string {
		h := x.header.Clone()
		h.Del("Date")
		h.Del("X-Request-Id") // has the same length in every answer
		h.Del("RateLimit")    // counts the caller's own requests
		return strings.ReplaceAll(fmt.Sprint(x.status, h, requestIDMember.ReplaceAllString(x.raw, "")), id, "ID")
	}
	if a, b := plain(foreign, a), plain(nobody, b); a != b {
		t.Errorf("%s tells what is somebody else's from what does not exist:\n%s\n%s", what, a, b)
	}
}

// TestHostsAreNeverMixed checks that each hostname shows its own store only, for any
// caller and under concurrent requests.
func TestHostsAreNeverMixed(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		hosts := map[string]string{}
		for i := range 4 {
			_, id, host := connected(t, s, fmt.Sprintf("owner%d@example.com", i))
			hosts[host] = id
		}
		var wg sync.WaitGroup
		for host, id := range hosts {
			for range 8 {
				wg.Go(func() {
					c := client{t: t, url: s.URL}
					for range 20 {
						if a := c.call("GET", "/api/storefront/store", nil, "Host", host); a.status != http.StatusOK || a.body["id"] != id {
							t.Errorf("%s answered %d %s", host, a.status, a.raw)
						}
					}
				})
			}
		}
		wg.Wait()
	})
}

// TestConcurrentSpends makes two hundred concurrent spends of 1 from a balance of 100.
func TestConcurrentSpends(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		c, id := register(t, s, "owner@example.com")
		c.buy(id, 100)
		var mu sync.Mutex
		statuses := map[int]int{}
		var wg sync.WaitGroup
		for range 200 {
			wg.Go(func() {
				a := c.call("POST", "/api/credits/spend", object{"amount": "1"})
				mu.Lock()
				defer mu.Unlock()
				statuses[a.status]++
			})
		}
		wg.Wait()
		if statuses[http.StatusOK] != 100 || statuses[http.StatusPaymentRequired] != 100 {
			t.Errorf("statuses %v, want 100 of 200 and 100 of 402", statuses)
		}
		c.call("GET", "/api/credits/balance", nil).want(http.StatusOK).is("0", "balance").is("100", "lifetimeSpent")
	})
}

// TestPrivateOperationsAskForAToken calls every operation that the document marks as
// private, without a token and with an invalid one.
func TestPrivateOperationsAskForAToken(t *testing.T) {
	t.Parallel()
	onMasters(t, shortOn(masterdb.SQLite), func(t *testing.T, s *server) {
		_, id := register(t, s, "owner@example.com")
		private := 0
		for _, op := range operations(t, s) {
			if !op.private {
				continue
			}
			private++
			path := placeholder.ReplaceAllString(op.path, id)
			for _, authorization := range []string{"", "Bearer ", "Bearer nonsense", "Basic b3duZXI6eA==", "Bearer a.b.c"} {
				c := client{t: t, url: s.URL}
				a := c.call(op.method, path, nil, "Authorization", authorization).problem(http.StatusUnauthorized, "token_invalid")
				if a.header.Get("WWW-Authenticate") == "" {
					t.Errorf("%s %s: 401 without WWW-Authenticate", op.method, op.path)
				}
			}
		}
		if private < 12 {
			t.Errorf("only %d private operations", private)
		}
	}, unlimited)
}

// operation is one entry of the OpenAPI document.
type operation struct {
	method, path string
	private      bool // requires a token
	inPath       bool // names a store in its path
	byChoice     bool // names a store with X-Store-Id
	paged        bool // takes a cursor
	json         bool // takes a JSON body
}

func operations(t *testing.T, s *server) []operation {
	t.Helper()
	return operationsOf(client{t: t, url: s.URL}.call("GET", "/api/openapi.json", nil).want(http.StatusOK).is("3.1.0", "openapi").body)
}

func operationsOf(doc object) (out []operation) {
	for path, methods := range doc["paths"].(object) {
		for method, spec := range methods.(object) {
			spec := spec.(object)
			op := operation{method: strings.ToUpper(method), path: path, private: needsToken(spec)}
			op.inPath = strings.HasPrefix(path, "/api/stores/{")
			parameters, _ := spec["parameters"].([]any)
			for _, p := range parameters {
				op.byChoice = op.byChoice || p.(object)["name"] == "X-Store-Id"
				op.paged = op.paged || p.(object)["name"] == "cursor"
			}
			if body, ok := spec["requestBody"].(object); ok {
				op.json = body["content"].(object)["application/json"] != nil
			}
			out = append(out, op)
		}
	}
	return out
}

// needsToken reports whether an operation requires a token of every caller. An
// operation may list "no authentication" as one of its alternatives.
func needsToken(spec object) bool {
	ways, _ := spec["security"].([]any)
	return len(ways) > 0 && !slices.ContainsFunc(ways, func(way any) bool { return len(way.(object)) == 0 })
}
