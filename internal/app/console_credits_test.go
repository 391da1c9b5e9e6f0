package app_test

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/masterdb"
)

// TestCreditsInABrowser buys credits, pays at the sandbox, and reads, filters and
// downloads the history, all with forms and links.
func TestCreditsInABrowser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	b := signUpInBrowser(t, s, "ada@example.com")
	credits := b.newStore("Shop") + "/credits"
	has := func(what string, a pageAnswer, status int, texts ...string) {
		t.Helper()
		for _, text := range texts {
			if a.Status != status || !strings.Contains(a.Body, text) {
				t.Errorf("%s: %d to %q, want %d with %q\n%s", what, a.Status, a.Location, status, text, a.Body)
			}
		}
	}
	has("a new store", b.get(credits), http.StatusOK, "No transactions yet", "has no credits left", credits+"/buy")

	hostile := `"><script>alert(1)</script>`
	has("a hostile amount", b.post(credits+"/buy", url.Values{"credits": {hostile}, "key": {"k"}}), http.StatusUnprocessableEntity,
		"&#34;&gt;&lt;script&gt;", "Must be a plain decimal number")
	form := url.Values{"credits": {"250"}, "key": {"one"}}
	first, second := b.post(credits+"/buy", form), b.post(credits+"/buy", form)
	if !strings.HasPrefix(first.Location, "/sandbox/checkout/cs_sandbox_") || second.Location != first.Location {
		t.Fatalf("buy: %d to %q, and again to %q, want one payment page", first.Status, first.Location, second.Location)
	}
	has("another amount in the same form", b.post(credits+"/buy", url.Values{"credits": {"9"}, "key": {"one"}}), http.StatusUnprocessableEntity, "has begun a purchase already")
	list := b.get(credits + "/purchases")
	has("the purchases", list, http.StatusOK, "Waiting for payment", "250")
	purchase := regexp.MustCompile(credits + `/purchases/[0-9a-f-]{36}`).FindString(list.Body)
	has("the purchase", b.get(purchase), http.StatusOK, `sse-connect="`+purchase+`/live"`, first.Location)

	has("the payment page", b.get(first.Location), http.StatusOK, "Pay 2.50", credits)
	paid := b.post(first.Location+"/pay", nil)
	if paid.Status != http.StatusSeeOther || paid.Location != first.Location {
		t.Fatalf("pay: %d to %q", paid.Status, paid.Location)
	}
	has("right after the payment", b.get(first.Location), http.StatusOK, "Paid, thank you", `href="`+credits+`"`)
	has("the paid purchase", b.get(purchase), http.StatusOK, "The credits have been added")
	live := b.get(purchase + "/live")
	has("the paid purchase, live", live, http.StatusOK, "event: done")
	has("the credits", b.get(credits), http.StatusOK, "Purchase of 250 credits", `<svg class="chart-drawing"`, "Show as table")
	has("the filtered history", b.get(credits+"?type=spend"), http.StatusOK, "Nothing matches")
	has("a fault of the filter", b.get(credits+"?from=yesterday&type=spend"), http.StatusUnprocessableEntity, "Must be a date like 2026-01-31", `value="yesterday"`)
	csv := b.get(credits + "/history.csv?type=purchase")
	if !strings.HasPrefix(csv.Header.Get("Content-Type"), "text/csv") || strings.Count(csv.Body, "\r\n") != 2 {
		t.Errorf("CSV: %d %s\n%s", csv.Status, csv.Header.Get("Content-Type"), csv.Body)
	}

	other := signUpInBrowser(t, s, "eve@example.com")
	for _, path := range []string{"", "/history.csv", "/holds", "/buy", "/purchases", "/settings", strings.TrimPrefix(purchase, credits), strings.TrimPrefix(purchase, credits) + "/live"} {
		if a := other.get(credits + path); a.Status != http.StatusNotFound {
			t.Errorf("%s for another user: %d, want 404", path, a.Status)
		}
		if a := newBrowserClient(t, s).get(credits + path); a.Status != http.StatusSeeOther {
			t.Errorf("%s signed out: %d, want the sign-in", path, a.Status)
		}
	}
	id := purchase[strings.LastIndex(purchase, "/")+1:]
	for _, outcome := range []string{"done", "cancelled"} {
		back := "/checkout/" + outcome + "?purchase=" + id
		if a := b.get(back); a.Location != purchase {
			t.Errorf("%s leads to %q, want the purchase\n%s", back, a.Location, a.Body)
		}
		if a := other.get(back); a.Status != http.StatusOK || strings.Contains(a.Body, credits) {
			t.Errorf("%s for another user: %d to %q\n%s", back, a.Status, a.Location, a.Body)
		}
		has(back+" signed out", newBrowserClient(t, s).get(back), http.StatusOK, `href="/signin?next=`+url.QueryEscape(back)+`"`)
	}
	for _, unknown := range []string{"?purchase=nonsense", "?purchase=", "?store=nonsense", "", "?purchase=" + url.QueryEscape("https://evil.example")} {
		has("/checkout/done"+unknown, b.get("/checkout/done"+unknown), http.StatusOK, "Thank you")
	}
	if a := other.get(first.Location); strings.Contains(a.Body, credits) {
		t.Error("the payment page names the store to a stranger")
	}
	foreign := b.send(http.MethodPost, first.Location+"/pay", nil, http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}})
	if foreign.Status != http.StatusForbidden {
		t.Errorf("paying from another site: %d, want 403", foreign.Status)
	}
}

// TestCreditSettingsInABrowser sets the low-balance mail and automatic recharges and
// releases a hold.
func TestCreditSettingsInABrowser(t *testing.T) {
	t.Parallel()
	cfg := testConfig(t, masterdb.SQLite)
	unlimited(cfg)
	s := startServer(t, cfg)
	b := signUpInBrowser(t, s, "ada@example.com")
	credits := b.newStore("Shop") + "/credits"
	settings := credits + "/settings"

	if a := b.post(settings, url.Values{"lowBalanceThreshold": {"50"}}); a.Location != settings {
		t.Errorf("%d to %q\n%s", a.Status, a.Location, a.Body)
	}
	if a := b.get(settings); !strings.Contains(a.Body, `value="50"`) {
		t.Errorf("the threshold is not shown\n%s", a.Body)
	}
	refused := b.post(settings, url.Values{"lowBalanceThreshold": {"-5"}})
	if refused.Status != http.StatusUnprocessableEntity || !strings.Contains(refused.Body, `value="-5"`) || !strings.Contains(refused.Body, "Must be above 0") {
		t.Errorf("a threshold below 0: %d\n%s", refused.Status, refused.Body)
	}
	b.post(settings, url.Values{"lowBalanceThreshold": {""}})
	if a := b.get(settings); strings.Contains(a.Body, `value="50"`) {
		t.Error("the threshold was not removed")
	}
	recharge := b.post(credits+"/auto-recharge", url.Values{"threshold": {"x"}, "credits": {"1.5"}, "monthlyCap": {""}})
	if recharge.Status != http.StatusUnprocessableEntity || strings.Count(recharge.Body, "Must be a plain decimal number") != 2 {
		t.Errorf("amounts that are none: %d\n%s", recharge.Status, recharge.Body)
	}
	if a := b.post(credits+"/auto-recharge", url.Values{"threshold": {"10"}, "credits": {"100"}, "monthlyCap": {"500"}}); a.Location != settings {
		t.Errorf("settings of a recharge that is off: %d\n%s", a.Status, a.Body)
	}
	if a := b.post(credits+"/card", nil); a.Status != http.StatusUnprocessableEntity || !strings.Contains(a.Body, "Cards can only be saved at Stripe") {
		t.Errorf("a card at the sandbox: %d\n%s", a.Status, a.Body)
	}
	if a := b.post(credits+"/holds/none/release", nil); a.Location != credits+"/holds" {
		t.Errorf("a hold that does not exist: %d to %q", a.Status, a.Location)
	}
}
