package app_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	sdk "github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// atStripe configures a server for a Stripe stub.
func atStripe(cfg *config.Config, stripe *stripetest.Stripe) *config.Config {
	cfg.StripeSecretKey, cfg.StripeWebhookSecret = keyring.NewSecret(stripetest.Key), keyring.NewSecret(stripetest.Secret)
	cfg.StripeURL = stripe.URL
	return cfg
}

// TestStripeJourney checks purchase, payment, grant, refund, saved card and automatic
// recharge over the API, with signed events and the running queue.
func TestStripeJourney(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			stripe := stripetest.New(t, "")
			s := startServer(t, atStripe(testConfig(t, engine), stripe))
			stripe.SendTo(s.URL + "/api/webhooks/stripe")
			c, _ := register(t, s, "owner@example.com")
			balance := func(want string) func() bool {
				return func() bool {
					return c.call("GET", "/api/credits/balance", nil).want(http.StatusOK).text("balance") == want
				}
			}

			p := c.call("POST", "/api/credits/purchase", object{"credits": 100}, "Idempotency-Key", "k").want(http.StatusCreated).
				is("pending", "status").is("stripe", "provider")
			again := c.call("POST", "/api/credits/purchase", object{"credits": 100}, "Idempotency-Key", "k").want(http.StatusCreated)
			if again.raw != p.raw {
				t.Errorf("%s\n%s", p.raw, again.raw)
			}
			if text := stripeSession(t, stripe, p.text("checkoutUrl")); !strings.Contains(text, s.URL+"/checkout/done?purchase="+p.text("id")) ||
				!strings.Contains(text, s.URL+"/checkout/cancelled?purchase="+p.text("id")) {
				t.Errorf("the payment page does not lead back to the purchase:\n%s", text)
			}
			intent := stripe.Pay(stripe.SessionOf(p.text("checkoutUrl")))
			stripe.DeliverAll()
			testkit.Eventually(t, testkit.Timeout, "the credits are granted", balance("100"))
			stripe.Refund(intent, 25, "succeeded")
			stripe.DeliverAll()
			testkit.Eventually(t, testkit.Timeout, "the refunded ones are taken back", balance("75"))
			one := c.call("GET", "/api/credits/purchases/"+p.text("id"), nil).want(http.StatusOK).
				is("paid", "status").is("0.25", "reversed", "value").is("25", "clawedBack").is(false, "automatic")
			list := c.call("GET", "/api/credits/purchases", nil).want(http.StatusOK)
			if data := list.list("data"); len(data) != 1 || data[0].(object)["id"] != one.text("id") || list.at("nextCursor") != nil {
				t.Error(list.raw)
			}

			wish := object{"enabled": true, "threshold": 80, "credits": "200", "monthlyCap": "200"}
			c.call("PUT", "/api/credits/auto-recharge", wish).problem(http.StatusUnprocessableEntity, "invalid_request")
			card := c.call("POST", "/api/credits/auto-recharge/card", nil).want(http.StatusCreated).text("checkoutUrl")
			if text := stripeSession(t, stripe, card); !strings.Contains(text, s.URL+"/checkout/saved?store=") {
				t.Errorf("the page that saves a card does not lead back to the store:\n%s", text)
			}
			stripe.SaveCard(stripe.SessionOf(card), stripetest.Good)
			stripe.DeliverAll()
			testkit.Eventually(t, testkit.Timeout, "the card is known", func() bool {
				return c.call("GET", "/api/credits/auto-recharge", nil).want(http.StatusOK).at("card") != nil
			})
			c.call("PUT", "/api/credits/auto-recharge", wish).want(http.StatusOK).is(true, "enabled").is("4242", "card", "last4")
			testkit.Eventually(t, testkit.Timeout, "the store is recharged", balance("275"))
			c.call("GET", "/api/credits/auto-recharge", nil).want(http.StatusOK).is("200", "usedThisMonth").is(nil, "stopped")

			page := client{t: t, url: s.URL}
			page.call("GET", "/sandbox/checkout/cs_sandbox_X", nil).want(http.StatusNotFound)
			for _, path := range []string{"/checkout/done", "/checkout/saved", "/checkout/cancelled"} {
				if page.call("GET", path, nil).want(http.StatusOK).header.Get("Content-Security-Policy") == "" {
					t.Errorf("%s has no content security policy", path)
				}
			}
			page.call("GET", "/checkout/elsewhere", nil).want(http.StatusNotFound)
		})
	}
}

// TestPaymentsReconcile checks that the command finds a payment without an event.
func TestPaymentsReconcile(t *testing.T) {
	t.Parallel()
	stripe := stripetest.New(t, "")
	cfg := atStripe(testConfig(t, masterdb.SQLite), stripe)
	s := startServer(t, cfg)
	c, _ := register(t, s, "owner@example.com")
	p := c.call("POST", "/api/credits/purchase", object{"credits": 100}).want(http.StatusCreated)
	if err := s.Stop(); err != nil { // a running server would reconcile some of the payments first
		t.Fatal(err)
	}
	stripe.Pay(stripe.SessionOf(p.text("checkoutUrl")))
	flags := []string{
		"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(),
		"--stripe-secret-key=" + stripetest.Key, "--stripe-webhook-secret=" + stripetest.Secret, "--stripe-url=" + stripe.URL,
	}
	status, out, errs := command(t, append([]string{"payments", "reconcile", "--json"}, flags...)...)
	var report struct{ Events, Paid, Applied int }
	if err := json.Unmarshal([]byte(out), &report); err != nil || status != 0 || report.Events != 2 {
		t.Errorf("%d: %s%s", status, out, errs)
	}
	c.url = startServer(t, cfg).URL
	c.call("GET", "/api/credits/balance", nil).want(http.StatusOK).is("100", "balance")
	if status, out, _ := command(t, append([]string{"payments", "reconcile"}, flags...)...); status != 0 || !strings.HasPrefix(out, "0 events were missing; ") {
		t.Errorf("%d: %s", status, out)
	}
	status, out, errs = command(t, append([]string{"payments", "reconcile"}, flags[:2]...)...)
	if status != 1 || !strings.Contains(errs, "no payment provider") {
		t.Errorf("without Stripe: %d: %s%s", status, out, errs)
	}

	// Stripe refuses the key: the command fails and reports it.
	stripe.Refuse("", http.StatusUnauthorized, "invalid_request_error", "")
	status, out, errs = command(t, append([]string{"payments", "reconcile"}, flags...)...)
	if status != 1 || !strings.Contains(errs, "not complete") || !strings.Contains(errs, "key is not accepted by Stripe") || !strings.HasPrefix(out, "NOT COMPLETE") {
		t.Errorf("with a refused key: %d: %s%s", status, out, errs)
	}
	stripe.Admit()

	doctor := func(change ...string) (int, string) {
		status, out, _ := command(t, append(append([]string{"doctor"}, flags...), change...)...)
		return status, out
	}
	if status, out := doctor(); status != 0 || !strings.Contains(out, "test mode") {
		t.Errorf("doctor: %d\n%s", status, out)
	}
	if status, out := doctor("--stripe-secret-key=sk_test_hunter2"); status != 1 || !strings.Contains(out, "not accepted by Stripe") || strings.Contains(out, "hunter2") {
		t.Errorf("doctor with a wrong key: %d\n%s", status, out)
	}
}

func TestStripeSettings(t *testing.T) {
	t.Parallel()
	key, secret := keyring.NewSecret("sk_test_1"), keyring.NewSecret("whsec_1")
	for name, c := range map[string]struct {
		change func(*config.Config)
		want   string // none for valid settings
	}{
		"both":    {func(c *config.Config) { c.StripeSecretKey, c.StripeWebhookSecret = key, secret }, ""},
		"neither": {func(*config.Config) {}, ""},
		"a restricted key": {func(c *config.Config) {
			c.StripeSecretKey, c.StripeWebhookSecret = keyring.NewSecret("rk_live_1"), secret
		}, ""},
		"no webhook secret": {func(c *config.Config) { c.StripeSecretKey = key }, "STRIPE_WEBHOOK_SECRET is required"},
		"no key":            {func(c *config.Config) { c.StripeWebhookSecret = secret }, "STRIPE_SECRET_KEY is required"},
		"a publishable key": {func(c *config.Config) {
			c.StripeSecretKey, c.StripeWebhookSecret = keyring.NewSecret("pk_live_1"), secret
		}, "STRIPE_SECRET_KEY must be"},
		"a stand-in":           {func(c *config.Config) { c.StripeURL = "http://127.0.0.1:12111" }, ""},
		"no address":           {func(c *config.Config) { c.StripeURL = "127.0.0.1:12111" }, "STOA_STRIPE_URL must be"},
		"stand-in, in earnest": {func(c *config.Config) { c.StripeURL, c.Env = "http://127.0.0.1:12111", "production" }, "STOA_STRIPE_URL is for development only"},
		"whole krónur":         {func(c *config.Config) { c.Currency, c.CreditPrice = "isk", 200 }, ""},
		"parts of a króna":     {func(c *config.Config) { c.Currency, c.CreditPrice = "ISK", 150 }, "STOA_CREDIT_PRICE must be a multiple of 100"},
		"parts of ten fils":    {func(c *config.Config) { c.Currency = "kwd" }, "STOA_CREDIT_PRICE must be a multiple of 10 "},
		"an unknown currency":  {func(c *config.Config) { c.Currency = "XXX" }, "STOA_CURRENCY must be"},
		"no currency":          {func(c *config.Config) { c.Currency = "" }, "STOA_CURRENCY must be"},
		"for nothing":          {func(c *config.Config) { c.CreditPrice = 0 }, "STOA_CREDIT_PRICE must be 1 to"},
		"nobody to pay to": {func(c *config.Config) {
			c.Env, c.BaseDomain, c.BaseURL = "production", "shops.example", "https://shops.example"
		}, ""},
	} {
		cfg := testConfig(t, masterdb.SQLite)
		cfg.EncryptionKey, cfg.JWTSecret = keyring.Generate("1"), keyring.Generate("1")
		c.change(cfg)
		err := cfg.Check()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if cfg.Env == "production" && cfg.Sandbox() {
			t.Error("there is a sandbox in production")
		}
	}
}

// TestDebtIsShownWhereTheBalanceIs checks that after a refund for spent credits every
// view of the account shows the same debt.
func TestDebtIsShownWhereTheBalanceIs(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			stripe := stripetest.New(t, "")
			cfg := atStripe(testConfig(t, engine), stripe)
			s := startServer(t, cfg)
			stripe.SendTo(s.URL + "/api/webhooks/stripe")
			c, id := register(t, s, "owner@example.com")
			balance := func() answer { return c.call("GET", "/api/credits/balance", nil).want(http.StatusOK) }
			p := c.call("POST", "/api/credits/purchase", object{"credits": 100}).want(http.StatusCreated)
			intent := stripe.Pay(stripe.SessionOf(p.text("checkoutUrl")))
			stripe.DeliverAll()
			testkit.Eventually(t, testkit.Timeout, "the credits are granted", func() bool { return balance().text("balance") == "100" })
			c.call("POST", "/api/credits/spend", object{"amount": "70.5"}).want(http.StatusOK)
			c.call("POST", "/api/credits/holds", object{"amount": 20}).want(http.StatusCreated)
			stripe.Refund(intent, 100, "succeeded")
			stripe.DeliverAll()
			testkit.Eventually(t, testkit.Timeout, "the credits are taken back", func() bool { return balance().text("debt") == "90.5" })

			want := object{"balance": "20", "reserved": "20", "available": "0", "debt": "90.5"}
			same := func(place string, got object) {
				t.Helper()
				for name, value := range want {
					if got[name] != value {
						t.Errorf("%s: %s is %v, want %v", place, name, got[name], value)
					}
				}
			}
			whole := balance()
			for name, value := range want {
				whole.is(value, name)
			}
			same("the store", c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).at("credits").(object))
			same("the list", c.call("GET", "/api/stores", nil).want(http.StatusOK).list("data")[0].(object)["credits"].(object))
			flags := []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}
			status, out, errs := command(t, append([]string{"stores", "show", id, "--json"}, flags...)...)
			var shown struct{ Credits object }
			if err := json.Unmarshal([]byte(out), &shown); err != nil || status != 0 {
				t.Fatalf("%d: %s%s", status, out, errs)
			}
			same("stores show --json", shown.Credits)
			if _, out, _ := command(t, append([]string{"stores", "show", id}, flags...)...); !strings.Contains(out, "20, of which 20 are reserved, and 90.5 are owed") {
				t.Errorf("stores show: %s", out)
			}
		})
	}
}

// TestMismatchedPayment checks that the owner sees a mismatched payment, that the
// operator can find it, and that a refund at Stripe settles it.
func TestMismatchedPayment(t *testing.T) {
	t.Parallel()
	stripe := stripetest.New(t, "")
	cfg := atStripe(testConfig(t, masterdb.SQLite), stripe)
	s := startServer(t, cfg)
	stripe.SendTo(s.URL + "/api/webhooks/stripe")
	c, id := register(t, s, "owner@example.com")
	p := c.call("POST", "/api/credits/purchase", object{"credits": 100}).want(http.StatusCreated).is(nil, "paid")
	c.call("POST", "/api/credits/purchase", object{"credits": 200}).want(http.StatusCreated)
	purchase := func() answer {
		return c.call("GET", "/api/credits/purchases/"+p.text("id"), nil).want(http.StatusOK)
	}
	intent := stripe.PayOther(stripe.SessionOf(p.text("checkoutUrl")), 85, "eur")
	stripe.DeliverAll()
	testkit.Eventually(t, testkit.Timeout, "the payment does not match", func() bool { return purchase().text("status") == "mismatched" })
	purchase().is("1.00", "amount", "value").is("USD", "amount", "currency").is("0.85", "paid", "value").is("EUR", "paid", "currency").is(nil, "paidAt")
	if list := c.call("GET", "/api/credits/purchases", nil).want(http.StatusOK); list.list("data")[1].(object)["status"] != "mismatched" {
		t.Error(list.raw)
	}
	c.call("GET", "/api/credits/balance", nil).want(http.StatusOK).is("0", "balance")

	flags := []string{
		"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal(),
		"--stripe-secret-key=" + stripetest.Key, "--stripe-webhook-secret=" + stripetest.Secret, "--stripe-url=" + stripe.URL,
	}
	run := func(args ...string) (int, string) {
		status, out, errs := command(t, append(args, flags...)...)
		return status, out + errs
	}
	if status, out := run("payments", "list", "--state=mismatched"); status != 0 || strings.Count(out, "\n") != 2 ||
		!strings.Contains(out, intent) || !strings.Contains(out, "0.85 EUR") || !strings.Contains(out, p.text("id")) {
		t.Errorf("list: %d\n%s", status, out)
	}
	var listed []struct {
		Store, Status, Payment string
		Paid                   object
	}
	status, out := run("payments", "list", "--json", "--store="+id)
	if err := json.Unmarshal([]byte(out), &listed); err != nil || status != 0 || len(listed) != 2 || listed[1].Payment != intent ||
		listed[1].Store != "store-of-owner-example-com" || listed[1].Paid["value"] != "0.85" || listed[0].Status != "pending" {
		t.Errorf("list --json: %d %v\n%s", status, err, out)
	}
	for _, bad := range [][]string{{"payments", "list", "--state=lost"}, {"payments", "list", "--limit=0"}, {"payments", "list", "--store=nobody"}} {
		if status, out := run(bad...); status == 0 {
			t.Errorf("%q: %s", bad, out)
		}
	}
	if status, out := run("doctor"); status != 1 || !strings.Contains(out, "1 purchases were paid with another amount") || !strings.Contains(out, "payments list --state mismatched") {
		t.Errorf("doctor: %d\n%s", status, out)
	}
	if status, out := run("payments", "reconcile"); status != 1 || !strings.Contains(out, "NEEDS A PERSON") || !strings.Contains(out, "0.85 EUR were paid: refund payment "+intent) {
		t.Errorf("reconcile: %d\n%s", status, out)
	}

	stripe.Refund(intent, 85, "succeeded")
	stripe.DeliverAll()
	testkit.Eventually(t, testkit.Timeout, "the refund ends it", func() bool { return purchase().text("status") == "refunded" })
	purchase().is("0.85", "reversed", "value").is("EUR", "reversed", "currency").is("0", "clawedBack")
	if status, out := run("payments", "list", "--state=mismatched"); status != 0 || strings.Count(out, "\n") != 1 {
		t.Errorf("list: %d\n%s", status, out)
	}
	if status, out := run("doctor"); status != 0 {
		t.Errorf("doctor: %d\n%s", status, out)
	}
	if status, out := run("payments", "reconcile"); status != 0 {
		t.Errorf("reconcile: %d\n%s", status, out)
	}
}

// stripeSession returns the checkout session of a payment page, as Stripe has it.
func stripeSession(t *testing.T, stripe *stripetest.Stripe, page string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, stripe.URL+"/v1/checkout/sessions/"+stripe.SessionOf(page), nil)
	testkit.Must(t, err)
	req.Header.Set("Authorization", "Bearer "+stripetest.Key)
	req.Header.Set("Stripe-Version", sdk.APIVersion)
	res, err := http.DefaultClient.Do(req)
	testkit.Must(t, err)
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	testkit.Must(t, err)
	return string(text)
}
