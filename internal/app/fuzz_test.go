package app_test

import (
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterdb"
)

// fuzzed is the whole server without the network, and an owner.
type fuzzed struct {
	*server
	token, store string
	operations   []operation
}

func newFuzzed(f *testing.F) fuzzed {
	f.Helper()
	cfg := testConfig(f, masterdb.SQLite)
	cfg.JWTSecret = secretOf(strings.Repeat("A", 43)) // every fuzzing process must sign with the same key
	unlimited(cfg)
	s := startServer(f, cfg)
	name := "Shop"
	session, store, err := s.Accounts.Register(f.Context(), accounts.Registration{
		Email: "owner@example.com", Password: secretOf(testPassword), FirstName: "O", LastName: "O", StoreName: &name,
	})
	if err != nil {
		f.Fatal(err)
	}
	out := fuzzed{server: s, token: session.AccessToken.Reveal(), store: store.ID.String()}
	document := httptest.NewRecorder()
	s.HTTP.Handler.ServeHTTP(document, httptest.NewRequest("GET", s.URL+"/api/openapi.json", nil))
	var doc object
	if err := json.Unmarshal(document.Body.Bytes(), &doc); err != nil {
		f.Fatal(err)
	}
	out.operations = operationsOf(doc)
	slices.SortFunc(out.operations, func(a, b operation) int { return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.method, b.method)) })
	return out
}

// ask makes a request as the owner. It checks that the answer is not a server error,
// and that an error is a complete problem document.
func (z fuzzed) ask(t *testing.T, method, path, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body))
	r.Host = "localhost"
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Authorization", "Bearer "+z.token)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	z.HTTP.Handler.ServeHTTP(w, r)
	if w.Code < http.StatusBadRequest {
		return w
	}
	var p struct {
		Status                         int
		Title, Detail, Code, RequestID string
	}
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Status != w.Code || p.Detail == "" || p.Code == "" || p.RequestID == "" {
		t.Fatalf("%s %s %q: no problem document: %d %s", method, path, body, w.Code, w.Body)
	}
	if p.Code == "internal" {
		t.Fatalf("%s %s %q fails: %s", method, path, body, w.Body)
	}
	return w
}

// FuzzJSONBody sends arbitrary bodies to every operation that takes JSON. Operations on
// a store are called on one that does not exist: the body is parsed and validated, and
// no connection is opened. Operations on credits use the owner's store.
func FuzzJSONBody(f *testing.F) {
	z := newFuzzed(f)
	var taking []operation
	for _, op := range z.operations {
		if op.json && op.path != "/api/auth/register" { // registering is slow; FuzzRegistration covers it
			taking = append(taking, op)
		}
	}
	if len(taking) < 20 {
		f.Fatalf("only %d operations take JSON", len(taking))
	}
	for i, op := range taking {
		good, err := json.Marshal(bodies[op.method+" "+op.path])
		if err != nil {
			f.Fatal(err)
		}
		f.Add(byte(i), string(good))
		f.Add(byte(i), strings.Replace(string(good), `"`, `"\u0000`, 2))
	}
	for i, seed := range []string{
		"", "null", "[]", "{", "{}", `{"a":{"a":{"a":{}}}}`, `{"amount":1e999}`, `{"amount":"` + strings.Repeat("9", 400) + `"}`, `{"email":"\ud800@example.com"}`,
		strings.Repeat("[", 10_000), `{"name":"` + strings.Repeat("x", 100_000) + `"}`, "\xef\xbb\xbf{}", `{"credits":5,"credits":-5}`, `{"quantity":0.1}`, `{"storeName":null}`,
	} {
		f.Add(byte(i), seed)
	}
	f.Fuzz(func(t *testing.T, which byte, body string) {
		op := taking[int(which)%len(taking)]
		path := placeholder.ReplaceAllString(op.path, uuid.NewString())
		z.ask(t, op.method, path, body)
	})
}

// FuzzRegistration checks that only a valid body creates an account.
func FuzzRegistration(f *testing.F) {
	z := newFuzzed(f)
	for _, seed := range []string{
		`{"email":"a@example.com","password":"SecurePassword123!","firstName":"A","lastName":"B"}`,
		`{"email":"a@example.com","password":"SecurePassword123!","firstName":"","lastName":"","storeName":""}`,
		`{"email":"a@b","password":"short","firstName":"\u202e","lastName":"\u0000"}`, `{"email":["a"],"password":{},"firstName":1,"lastName":null}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		if w := z.ask(t, "POST", "/api/auth/register", body); w.Code == http.StatusCreated {
			var in struct{ Email, Password string }
			if err := json.Unmarshal([]byte(body), &in); err != nil || !strings.Contains(in.Email, "@") || len(in.Password) < 10 {
				t.Fatalf("%q opens an account: %v", body, err)
			}
		}
	})
}

// FuzzCursor sends arbitrary cursors to every list.
func FuzzCursor(f *testing.F) {
	z := newFuzzed(f)
	var lists []operation
	for _, op := range z.operations {
		if op.paged && !strings.HasPrefix(op.path, "/api/storefront/") && !strings.Contains(op.path, "{webhookId}") {
			lists = append(lists, op)
		}
	}
	if len(lists) < 5 {
		f.Fatalf("only %d lists have cursors", len(lists))
	}
	for i := range lists {
		for _, seed := range []string{"", "0", "-1", "99999999999999999999", uuid.NewString(), "AAAAAAAAAAAAAAAAAAAAAA", "'", "\x00", "%", strings.Repeat("A", 10_000), "MQ", "MQ=="} {
			f.Add(byte(i), seed)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, cursor string) {
		op := lists[int(which)%len(lists)]
		path := strings.Replace(op.path, "{id}", z.store, 1) + "?cursor=" + url.QueryEscape(cursor)
		expected := []int{http.StatusOK, http.StatusUnprocessableEntity, http.StatusForbidden}
		if len(path) > 8000 {
			expected = append(expected, http.StatusRequestURITooLong)
		}
		if w := z.ask(t, op.method, path, ""); !slices.Contains(expected, w.Code) {
			t.Fatalf("%.200s answers %d: %s", path, w.Code, w.Body)
		}
	})
}

// FuzzStripeSignature checks that an event is accepted only with a current signature of
// it under the configured secret, whatever the header's syntax.
func FuzzStripeSignature(f *testing.F) {
	z := newFuzzed(f)
	_, signing, err := z.Cfg.Rings()
	if err != nil {
		f.Fatal(err)
	}
	mac := func(at, body string) string {
		h := hmac.New(sha256.New, []byte(config.SandboxSecret(signing).Reveal()))
		fmt.Fprintf(h, "%s.%s", at, body)
		return hex.EncodeToString(h.Sum(nil))
	}
	const event = `{"id":"evt_1","object":"event","type":"x","api_version":"` + stripe.APIVersion + `","data":{"object":{}}}`
	now := fmt.Sprint(time.Now().Unix())
	good := "t=" + now + ",v1=" + mac(now, event)
	for _, seed := range []string{
		good, "", "t=,v1=", "t=" + now, "v1=" + mac(now, event), good + "," + good, "v1=00," + good, "t=1,v1=" + mac("1", event), "t=-1,v1=" + mac("-1", event),
		"t=99999999999999999999,v1=00", strings.ToUpper(good), "t=" + now + ",v0=" + mac(now, event), good + ",", "=,=,=", "t=" + now + ";v1=00", strings.Repeat("v1=00,", 5000),
	} {
		f.Add(seed, event)
		f.Add(seed, "")
	}
	f.Fuzz(func(t *testing.T, header, body string) {
		w := z.ask(t, "POST", "/api/webhooks/stripe", body, "Stripe-Signature", header)
		if header == good && body == event && w.Code != http.StatusOK {
			t.Fatalf("the good one: %d %s", w.Code, w.Body)
		}
		if w.Code >= http.StatusBadRequest {
			return
		}
		for part := range strings.SplitSeq(header, ",") {
			at, ok := strings.CutPrefix(part, "t=")
			seconds, err := strconv.ParseInt(at, 10, 64)
			if ok && err == nil && time.Since(time.Unix(seconds, 0)) < 6*time.Minute && strings.Contains(header, "v1="+mac(at, body)) {
				return
			}
		}
		t.Fatalf("%q is taken with %q", body, header)
	})
}
