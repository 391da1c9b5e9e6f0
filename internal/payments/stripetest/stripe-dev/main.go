// Command stripe-dev runs a fake Stripe for a platform in development: `make stripe-dev`.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/stoahq/stoa/internal/payments/stripetest"
)

type cli struct {
	Listen string `default:"127.0.0.1:12111" help:"Address of the stand-in." placeholder:"HOST:PORT"`
	Hook   string `default:"http://localhost:3000/api/webhooks/stripe" help:"Where the platform receives events." placeholder:"URL"`
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var c cli
	kctx := kong.Parse(&c, kong.Name("stripe-dev"), kong.Description("A Stripe on this machine, to try payments with. No money moves."))
	kctx.FatalIfErrorf(c.run(ctx, os.Stdout))
}

// run serves until ctx ends.
func (c *cli) run(ctx context.Context, out io.Writer) error {
	log := slog.New(slog.NewTextHandler(out, nil))
	return stripetest.Run(ctx, stripetest.Options{Listen: c.Listen, Hook: c.Hook, Log: log}, func(s *stripetest.Stripe) {
		fmt.Fprint(out, banner(s.URL, c.Hook))
	})
}

func banner(url, hook string) string {
	return fmt.Sprintf("A stand-in for Stripe answers at %[1]s until you press Ctrl-C. Its page has the checkouts, payments and events.\n"+
		"Events go to %[2]s. What the stand-in knows ends with it.\n\n"+
		"Start the platform beside it:\n\n"+
		"  STRIPE_SECRET_KEY=%[3]s \\\n  STRIPE_WEBHOOK_SECRET=%[4]s \\\n  STOA_STRIPE_URL=%[1]s \\\n  go run ./cmd/stoa serve\n\n"+
		"Each button is a POST, also for curl. Amounts are in minor units; without one, all that is left:\n\n"+
		"  curl -X POST %[1]s/pay/cs_test_…/pay            and decline, expire; for a card save, decline-later, expire\n"+
		"  curl -X POST %[1]s/pay/cs_test_…/pay -d amount=99 -d currency=eur    not what was asked for\n"+
		"  curl -X POST %[1]s/payments/pi_…/refund -d amount=25                 and dispute\n"+
		"  curl -X POST %[1]s/disputes/dp_…/win                                 and lose\n"+
		"  curl %[1]s/                                     all of it as JSON\n",
		url, hook, stripetest.Key, stripetest.Secret)
}
