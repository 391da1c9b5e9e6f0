package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/payments"
)

// TestRun checks that the printed settings work with a fake Stripe that accepts the key.
func TestRun(t *testing.T) {
	t.Parallel()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() {
		c := cli{Listen: "127.0.0.1:0", Hook: "http://127.0.0.1:1/api/webhooks/stripe"}
		done <- c.run(ctx, w)
		_ = w.Close()
	}()
	var printed strings.Builder
	for lines := bufio.NewScanner(r); lines.Scan(); {
		printed.WriteString(lines.Text() + "\n")
		if strings.Contains(lines.Text(), "as JSON") {
			break
		}
	}
	setting := func(name string) string {
		m := regexp.MustCompile(name + `=(\S+)`).FindStringSubmatch(printed.String())
		if m == nil {
			t.Fatalf("%s is not in %q", name, printed.String())
		}
		return m[1]
	}
	url := setting("STOA_STRIPE_URL")
	if err := payments.CheckStripe(t.Context(), keyring.NewSecret(setting("STRIPE_SECRET_KEY")), url); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(setting("STRIPE_WEBHOOK_SECRET"), "whsec_") {
		t.Error(printed.String())
	}
	res, err := http.Get(url + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(body), `"checkouts":[]`) {
		t.Errorf("%s %s %v", res.Status, body, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
