package httpapi

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"
)

// TestWhichCallsTakeKeys checks that each POST takes an Idempotency-Key, unless it is one of
// those that need none.
func TestWhichCallsTakeKeys(t *testing.T) {
	t.Parallel()
	without := map[string]string{}
	for reason, ids := range map[string]string{
		"the caller is not known, so that the key would be everybody's": "auth.login auth.loginSecondFactor auth.refresh auth.register auth.forgotPassword " +
			"auth.resetPassword auth.verifyEmail emailChange.confirm passkeys.beginLogin passkeys.finishLogin",
		"nothing is made, and once more is harmless":                    "auth.logout auth.resendVerification database.test hostnames.verify passkeys.beginRegistration",
		"the old password, or the challenge, is good for one call":      "auth.changePassword passkeys.finishRegistration secondFactor.disable",
		"the provider's events have ids, which are stored for good":     "stripe.webhook",
		"the body or the answer is a file, which is not held in memory": "backups.upload backups.download",
	} {
		for id := range strings.FieldsSeq(ids) {
			without[id] = reason
		}
	}
	a := newAPI(Domains{}, allRoutes())
	ledger := map[string]bool{"credits.spend": true, "holds.create": true, "holds.capture": true, "holds.release": true, "purchases.create": true}
	taking := 0
	for _, op := range operationsOf(a.huma.OpenAPI()) {
		use, documented := a.options[op.Method+" "+op.Path].key, 0
		for _, p := range op.Parameters {
			if p.Name == keyHeader {
				documented++
			}
		}
		_, excepted := without[op.OperationID]
		delete(without, op.OperationID)
		switch {
		case op.Method != http.MethodPost && use != keyIgnored:
			t.Errorf("%s is no POST and takes a key", op.OperationID)
		case op.Method == http.MethodPost && (use == keyIgnored) != excepted:
			t.Errorf("%s: the key is %q, and it is an exception: %v", op.OperationID, use, excepted)
		case (use == keyLedger) != ledger[op.OperationID]:
			t.Errorf("%s: the key is %q", op.OperationID, use)
		case use != keyIgnored && (documented != 1 || op.Responses["409"] == nil):
			t.Errorf("%s: the key is documented %d times, 409 is %v", op.OperationID, documented, op.Responses["409"])
		}
		if use != keyIgnored {
			taking++
			if !a.options[op.Method+" "+op.Path].scope.needsAuthentication() {
				t.Errorf("%s takes a key without a caller", op.OperationID)
			}
		}
	}
	if taking < 30 {
		t.Errorf("%d calls take a key", taking)
	}
	for id, reason := range without {
		t.Errorf("%s (%s) is no POST", id, reason)
	}
}

func TestHashRequest(t *testing.T) {
	t.Parallel()
	hash := func(method, url, store, body string) string {
		r := httptest.NewRequest(method, url, strings.NewReader(body))
		if store != "" {
			r.Header.Set("X-Store-Id", store)
		}
		h, ok := hashRequest(httptest.NewRecorder(), r, 10)
		if rest, err := io.ReadAll(r.Body); !ok || err != nil || string(rest) != body {
			t.Errorf("%s %s: %q is left, %v, %v", method, url, rest, ok, err)
		}
		return h
	}
	seen := map[string]bool{}
	for _, h := range []string{
		hash("POST", "/a", "", "{}"), hash("POST", "/b", "", "{}"), hash("POST", "/a?storeId=1", "", "{}"), hash("POST", "/a", "1", "{}"),
		hash("POST", "/a", "", "{ }"), hash("POST", "/a", "", ""), hash("PUT", "/a", "", "{}"),
	} {
		if seen[h] || len(h) != 64 {
			t.Errorf("%s is the hash of two requests", h)
		}
		seen[h] = true
	}
	if !seen[hash("POST", "/a", "", "{}")] {
		t.Error("a request has two hashes")
	}
}

// TestHashOfUnreadableBodies checks that a body that is too long, or ends early, is left for
// the handler as it was.
func TestHashOfUnreadableBodies(t *testing.T) {
	t.Parallel()
	long := bytes.Repeat([]byte("x"), 100)
	r := httptest.NewRequest(http.MethodPost, "/a", bytes.NewReader(long))
	if _, ok := hashRequest(httptest.NewRecorder(), r, 10); ok {
		t.Error("a body over the limit was hashed")
	}
	if rest, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(rest, long) {
		t.Errorf("%d bytes are left, %v", len(rest), err)
	}
	cut := errors.New("cut")
	r = httptest.NewRequest(http.MethodPost, "/a", io.MultiReader(strings.NewReader("{"), iotest.ErrReader(cut)))
	if _, ok := hashRequest(httptest.NewRecorder(), r, 10); ok {
		t.Error("a body that was cut off was hashed")
	}
	if rest, err := io.ReadAll(r.Body); !errors.Is(err, cut) || string(rest) != "{" {
		t.Errorf("%q is left, %v", rest, err)
	}
}
