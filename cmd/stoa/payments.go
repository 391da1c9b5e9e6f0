package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/payments"
)

type paymentsCmd struct {
	Reconcile paymentsReconcileCmd `cmd:"" help:"Make up for events of Stripe that never came."`
}

type paymentsReconcileCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa payments reconcile --help'.
func (paymentsReconcileCmd) Help() string {
	return "Fetches the events of the last 30 days that Stripe could not deliver, takes up those that were not applied, and looks up each open purchase at Stripe. " +
		"'stoa serve' does so every day; this does it now, beside it, as often as you like. The exit status is 1 when something needs a person or could not be done."
}

var errNeedsPerson = errors.New("something needs a person; it is listed above")

func (cmd paymentsReconcileCmd) Run(e *env) error {
	a, err := e.openApp(e.ctx)
	if err != nil {
		return err
	}
	defer a.close(context.WithoutCancel(e.ctx)) //nolint:errcheck // what was done is printed all the same
	report, err := a.payments.Reconcile(e.ctx)
	if stoa.CodeOf(err) == stoa.PaymentsUnavailable { // no provider: nothing was compared
		return err
	}
	if err != nil {
		err = fmt.Errorf("the comparison with Stripe is not complete: %w", err)
		if !cmd.JSON {
			printf(e.stdout, "NOT COMPLETE: until Stripe failed,\n")
		}
	}
	if printErr := printReport(e.stdout, report, cmd.JSON); err != nil || printErr != nil {
		return errors.Join(err, printErr)
	}
	if len(report.Refused) > 0 {
		return errNeedsPerson
	}
	return nil
}

func printReport(w io.Writer, r payments.Report, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(r)
	}
	printf(w, "%d events were missing; %d applied now.\n%d open purchases compared: %d paid, %d expired.\n",
		r.Events, r.Applied, r.Compared, r.Paid, r.Expired)
	for _, refused := range r.Refused {
		printf(w, "NEEDS A PERSON  %s\n", refused)
	}
	return nil
}

// checkPayments says who takes the money, and whether Stripe would.
func checkPayments(ctx context.Context, cfg *Config) (string, error) {
	key := cfg.StripeSecretKey
	switch {
	case cfg.sandbox():
		return "the sandbox: no money moves", nil
	case key.IsZero():
		return "no provider: credits cannot be bought", nil
	}
	mode := "live"
	if strings.Contains(key.Reveal(), "_test_") {
		mode = "test"
	}
	if err := payments.CheckStripe(ctx, key, cfg.StripeURL); err != nil {
		return "", err
	}
	if cfg.StripeWebhookSecret.IsZero() {
		return "", errors.New("STRIPE_WEBHOOK_SECRET is not set: no purchase would be noticed before the next day")
	}
	return "Stripe accepts the key (" + mode + " mode); the webhook secret is set", nil
}
