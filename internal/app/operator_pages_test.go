package app_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestOperatorPages walks the operator's pages: their rights, the suspension of a user
// and acting as one.
func TestOperatorPages(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	ann := signUpInBrowser(t, s, "ann@example.com")
	_ = signUpInBrowser(t, s, "op@example.com")
	testkit.Must(t, s.Master.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE users SET email_verified = true, first_name = $1, role = CASE WHEN email = 'op@example.com' THEN 'admin' ELSE role END`,
			`"><script>alert(1)</script>`)
		return err
	}))
	op := signIn(t, s, "op@example.com", browserPassword)
	var id stoa.UserID
	testkit.Must(t, s.Master.Get(t.Context(), &id, `SELECT id FROM users WHERE email = 'ann@example.com'`))
	user := "/operator/users/" + id.String()

	for _, path := range []string{"/operator/runs", "/operator/runs?state=failed", "/operator/migrations", "/operator/jobs", "/operator/jobs?state=completed", "/operator/users",
		"/operator/users?q=ann", "/operator/users?only=suspended", user, "/operator/credits", "/operator/prices", "/operator/payments",
		"/operator/payments?status=mismatched", "/operator/mail", "/operator/audit", "/operator/audit?action=auth.sign_in&from=2026-01-01", "/operator/audit.csv"} {
		if got := op.get(path); got.Status != http.StatusOK || strings.Contains(got.Body, "<script>alert") {
			t.Errorf("%s: %d\n%s", path, got.Status, got.Body)
		}
		if got := ann.get(path); got.Status != http.StatusForbidden {
			t.Errorf("%s for a user: %d, want 403", path, got.Status)
		}
		if got := newBrowserClient(t, s).get(path); got.Status != http.StatusSeeOther {
			t.Errorf("%s signed out: %d, want the sign-in", path, got.Status)
		}
	}
	const reason = "ticket 17: sees no orders"

	// Acting as a user and back.
	if got := op.post(user+"/impersonate", url.Values{"purpose": {"short"}}); got.Status != http.StatusUnprocessableEntity || !strings.Contains(got.Body, `id="purpose-fault"`) {
		t.Errorf("a short reason: %d\n%s", got.Status, got.Body)
	}
	if got := op.post(user+"/impersonate", url.Values{"purpose": {reason}}); got.Location != "/stores" {
		t.Fatalf("impersonate: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	if got := op.get("/stores"); !strings.Contains(got.Body, "You act as ann@example.com") {
		t.Errorf("no banner:\n%s", got.Body)
	}
	if got := op.get("/operator/users"); got.Status != http.StatusForbidden {
		t.Errorf("the operator's pages while acting: %d, want 403", got.Status)
	}
	if got := op.post("/impersonation/end", nil); got.Location != user {
		t.Errorf("end: %d to %q, want the user's page", got.Status, got.Location)
	}
	if got := op.get(user); got.Status != http.StatusOK {
		t.Errorf("after the end: %d, want the operator's session", got.Status)
	}

	// The suspension of a user.
	if got := op.post(user+"/suspend", url.Values{"reason": {reason}}); got.Location != user {
		t.Errorf("suspend: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	if got := ann.get("/stores"); got.Status != http.StatusSeeOther || !strings.HasPrefix(got.Location, "/signin") {
		t.Errorf("suspended: %d to %q, want the sign-in", got.Status, got.Location)
	}
	got := ann.post("/signin", url.Values{"email": {"ann@example.com"}, "password": {browserPassword}})
	if got.Status != http.StatusUnprocessableEntity || !strings.Contains(got.Body, "This account is suspended") {
		t.Errorf("sign-in of a suspended user: %d\n%s", got.Status, got.Body)
	}
	if got := op.post(user+"/resume", url.Values{"reason": {reason}}); got.Location != user {
		t.Errorf("resume: %d to %q", got.Status, got.Location)
	}
	ann = signIn(t, s, "ann@example.com", browserPassword)

	// Credits and prices.
	slug := strings.TrimPrefix(ann.newStore("Ann"), "/stores/")
	grant := url.Values{"store": {slug}, "amount": {"25"}, "reason": {reason}, "key": {"k1"}}
	for range 2 {
		if got := op.post("/operator/credits/grant", grant); got.Status != http.StatusSeeOther {
			t.Errorf("grant: %d\n%s", got.Status, got.Body)
		}
	}
	var balance int64
	testkit.Must(t, s.Master.Get(t.Context(), &balance, `SELECT count(*) FROM credit_transactions WHERE description = $1`, reason))
	if balance != 1 {
		t.Errorf("%d grants for a form that was sent twice, want 1", balance)
	}
	if got := op.post("/operator/credits/grant", url.Values{"store": {"nowhere"}, "amount": {"x"}}); got.Status != http.StatusUnprocessableEntity {
		t.Errorf("a wrong grant: %d", got.Status)
	}
	if got := ann.post("/operator/credits/verify", nil); got.Status != http.StatusForbidden {
		t.Errorf("verification by a user: %d, want 403", got.Status)
	}
	if got := op.post("/operator/credits/verify", nil); got.Location != "/operator/credits" {
		t.Errorf("verify: %d to %q\n%s", got.Status, got.Location, got.Body)
	}
	testkit.Eventually(t, testkit.Timeout, "the ledger is verified", func() bool {
		return strings.Contains(op.get("/operator/credits").Body, "Every account adds up")
	})
	if got := op.post("/operator/prices", url.Values{"service": {"test.service"}, "price": {"0.5"}, "unit": {"item"}, "description": {"A test"}}); got.Status != http.StatusSeeOther {
		t.Errorf("price: %d\n%s", got.Status, got.Body)
	}
	if got := ann.post("/operator/migrations", nil); got.Status != http.StatusForbidden {
		t.Errorf("migrations by a user: %d, want 403", got.Status)
	}
	if got := op.post("/operator/migrations", nil); got.Status != http.StatusSeeOther {
		t.Errorf("migrations: %d\n%s", got.Status, got.Body)
	}
}
