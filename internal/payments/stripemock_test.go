package payments

import (
	"bufio"
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/testkit"
)

// stripeMock is Stripe's own mock server. It stores nothing, but checks each request
// against Stripe's description of its API.
const stripeMock = "github.com/stripe/stripe-mock@v0.203.0"

// TestParametersAreStripes sends every call that this package makes, with every
// parameter, to stripe-mock. A call that the table lacks fails the test.
func TestParametersAreStripes(t *testing.T) {
	t.Parallel()
	c := newStripeClient(keyring.NewSecret("sk_test_mock"), startStripeMock(t), http.DefaultTransport)
	text := func(s string) *string { return &s }
	p := purchase{Attempt: 1, Purchase: Purchase{
		ID: stoa.NewID[stoa.PurchaseID](), StoreID: stoa.NewID[stoa.StoreID](), Credits: 100 * credits.Credit, AmountMinor: 100, Currency: "USD",
		CreatedAt: time.Now(),
	}}
	r := recharge{StoreID: p.StoreID, CustomerRef: text("cus_1"), CardRef: text("pm_1")}
	calls := map[string]func(ctx context.Context) error{
		"V1CheckoutSessions.Create": func(ctx context.Context) error {
			_, err := c.createCheckout(ctx, p, "https://stoa.example")
			if err != nil {
				return err
			}
			_, err = c.createSetup(ctx, p.StoreID, "cus_1", "key", "https://stoa.example")
			return err
		},
		"V1CheckoutSessions.Retrieve": func(ctx context.Context) error {
			if _, err := c.session(ctx, "cs_1", "payment_intent"); err != nil {
				return err
			}
			_, err := c.session(ctx, "cs_1", "setup_intent.payment_method")
			return err
		},
		"V1CheckoutSessions.List": func(ctx context.Context) error {
			for _, read := range c.reads() {
				if err := read.call(ctx); err != nil {
					return fmt.Errorf("%s: %w", read.right, err)
				}
			}
			return nil
		},
		"V1PaymentIntents.Retrieve": func(ctx context.Context) error { _, err := c.intent(ctx, "pi_1"); return err },
		"V1PaymentIntents.Create":   func(ctx context.Context) error { _, err := c.charge(ctx, p, r); return err },
		"V1PaymentIntents.List":     func(ctx context.Context) error { _, err := c.findCharge(ctx, p, r); return err },
		"V1PaymentIntents.Cancel":   func(ctx context.Context) error { return c.cancel(ctx, "pi_1") },
		"V1Refunds.List":            func(ctx context.Context) error { _, err := c.reversals(ctx, "pi_1"); return err },
		"V1Disputes.List":           func(ctx context.Context) error { _, err := c.reversals(ctx, "pi_1"); return err },
		"V1Customers.Create":        func(ctx context.Context) error { _, err := c.createCustomer(ctx, p.StoreID, "A store"); return err },
		"V1Events.List": func(ctx context.Context) error {
			for _, err := range c.undelivered(ctx, time.Now().Add(-keptByStripe)) {
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	if d := cmp.Diff(callsOfThisPackage(t), slices.Sorted(maps.Keys(calls))); d != "" {
		t.Errorf("the calls of the code and of this test differ:\n%s", d)
	}
	for name, call := range calls {
		if err := call(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	params := &stripe.CustomerCreateParams{}
	params.AddExtra("no_such_parameter", "1")
	if _, err := c.api.V1Customers.Create(t.Context(), params); err == nil {
		t.Error("a parameter that does not exist was accepted: nothing is checked")
	}
}

// callsOfThisPackage returns the calls of this package, from its source.
func callsOfThisPackage(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, call := range regexp.MustCompile(`\.api\.(V\w+\.\w+)`).FindAllSubmatch(text, -1) {
			found[string(call[1])] = true
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// startStripeMock builds the program and runs it on free ports of this machine until the
// test ends. It sets the addresses, since the default is to listen on every interface.
func startStripeMock(t *testing.T) (url string) {
	t.Helper()
	dir := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "install", stripeMock)
	build.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	build.Dir = dir // outside this module
	if out, err := build.CombinedOutput(); err != nil {
		testkit.Unavailable(t, fmt.Sprintf("%s cannot be had: %v\n%s", stripeMock, err, out))
	}
	mock := exec.Command(filepath.Join(dir, "stripe-mock"), "-http-addr", "127.0.0.1:0", "-https-addr", "127.0.0.1:0")
	out, err := mock.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := mock.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(time.Minute, func() { _ = mock.Process.Kill() }) // its output ends then
	t.Cleanup(func() {
		timer.Stop()
		_ = mock.Process.Signal(syscall.SIGTERM)
		_ = mock.Wait() // the process ends by a signal
	})
	var said []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		said = append(said, lines.Text())
		if address, ok := strings.CutPrefix(lines.Text(), "Listening for HTTP at address: "); ok {
			return "http://" + address
		}
	}
	t.Fatalf("stripe-mock did not start: %q", said)
	return ""
}
