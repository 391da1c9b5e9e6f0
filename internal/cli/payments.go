package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/stores"
)

type paymentsCmd struct {
	List      paymentsListCmd      `cmd:"" help:"List the purchases of all stores, newest first."`
	Reconcile paymentsReconcileCmd `cmd:"" help:"Make up for events of Stripe that never came."`
}

type paymentsListCmd struct {
	State string `help:"Only purchases in this state." enum:",pending,paid,expired,refunded,mismatched" default:"" placeholder:"STATE"`
	Store string `help:"Only purchases of this store: its id, slug or hostname." placeholder:"STORE"`
	Limit int    `help:"How many at most, 1 to 10000." default:"100"`
	JSON  bool   `help:"Print JSON."`
}

// Help is shown by 'stoa payments list --help'.
func (paymentsListCmd) Help() string {
	return "Reads the master database and nothing else. Mismatched are purchases for which another amount or currency was paid than they cost: " +
		"no credits were granted. Refund the payment that is listed on Stripe's dashboard, all of it; the purchase is refunded when Stripe's event comes, " +
		"or with 'stoa payments reconcile'. To give the store credits all the same, use 'stoa credits grant'."
}

// Validate is called by kong after it has read the flags.
func (cmd paymentsListCmd) Validate() error {
	if cmd.Limit < 1 || cmd.Limit > 10_000 {
		return errors.New("--limit must be between 1 and 10000")
	}
	return nil
}

func (cmd paymentsListCmd) Run(e *Env) error {
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	filter := payments.Filter{Status: payments.Status(cmd.State), Limit: cmd.Limit}
	if cmd.Store != "" {
		s, err := stores.Find(e.Ctx, master, cmd.Store)
		if err != nil {
			return err
		}
		filter.Store = s.ID
	}
	list, err := payments.ListAll(e.Ctx, master, filter)
	if err != nil {
		return err
	}
	records := make([]purchaseRecord, len(list))
	for i, p := range list {
		records[i] = newPurchaseRecord(p)
	}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(records)
	}
	return printPurchases(e.Stdout, records)
}

// purchaseRecord is a purchase in the output. Its field names are those of the API. Payment
// is the provider's id of the payment.
type purchaseRecord struct {
	ID        stoa.PurchaseID   `json:"id"`
	StoreID   stoa.StoreID      `json:"storeId"`
	Store     string            `json:"store"`
	Status    payments.Status   `json:"status"`
	Credits   credits.Amount    `json:"credits"`
	Amount    moneyRecord       `json:"amount"`
	Paid      *moneyRecord      `json:"paid"`
	Reversed  moneyRecord       `json:"reversed"`
	Provider  payments.Provider `json:"provider"`
	Payment   *string           `json:"payment"`
	Automatic bool              `json:"automatic"`
	CreatedAt time.Time         `json:"createdAt"`
	PaidAt    *time.Time        `json:"paidAt"`
}

type moneyRecord struct {
	Value    string `json:"value"`
	Currency string `json:"currency"`
}

func newPurchaseRecord(p payments.Listed) purchaseRecord {
	r := purchaseRecord{
		ID: p.ID, StoreID: p.StoreID, Store: p.StoreSlug, Status: p.Status, Credits: p.Credits, Amount: moneyRecord{Value: p.AmountDecimal(), Currency: p.Currency},
		Reversed: moneyRecord{Value: p.ReversedDecimal(), Currency: p.MoneyCurrency()}, Provider: p.Provider, Payment: p.PaymentRef, Automatic: p.Automatic,
		CreatedAt: p.CreatedAt, PaidAt: p.PaidAt,
	}
	if p.PaidMinor != nil {
		r.Paid = &moneyRecord{Value: p.PaidDecimal(), Currency: p.MoneyCurrency()}
	}
	return r
}

func printPurchases(w io.Writer, all []purchaseRecord) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	Printf(table, "CREATED\tSTORE\tSTATE\tCREDITS\tAMOUNT\tPAID\tREVERSED\tPAYMENT\tID\n")
	for _, p := range all {
		paid, payment := "-", "-"
		switch {
		case p.Paid != nil:
			paid = p.Paid.Value + " " + p.Paid.Currency
		case p.PaidAt != nil:
			paid = p.Amount.Value + " " + p.Amount.Currency
		}
		if p.Payment != nil {
			payment = *p.Payment
		}
		Printf(table, "%s\t%s\t%s\t%s\t%s %s\t%s\t%s %s\t%s\t%s\n", p.CreatedAt.Format(time.RFC3339), p.Store, p.Status, p.Credits,
			p.Amount.Value, p.Amount.Currency, paid, p.Reversed.Value, p.Reversed.Currency, payment, p.ID)
	}
	return table.Flush()
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

func (cmd paymentsReconcileCmd) Run(e *Env) error {
	a, err := e.openApp(e.Ctx)
	if err != nil {
		return err
	}
	defer a.Close(context.WithoutCancel(e.Ctx)) //nolint:errcheck // the outcome is printed anyway
	report, err := a.Payments.Reconcile(e.Ctx)
	if stoa.CodeOf(err) == stoa.PaymentsUnavailable { // there is no provider, so nothing was compared
		return err
	}
	if err != nil {
		err = fmt.Errorf("the comparison with Stripe is not complete: %w", err)
		if !cmd.JSON {
			Printf(e.Stdout, "NOT COMPLETE. Before it failed:\n")
		}
	}
	if printErr := printReport(e.Stdout, report, cmd.JSON); err != nil || printErr != nil {
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
	Printf(w, "%d events were missing; %d applied now.\n%d open purchases compared: %d paid, %d expired.\n",
		r.Events, r.Applied, r.Compared, r.Paid, r.Expired)
	for _, refused := range r.Refused {
		Printf(w, "NEEDS A PERSON  %s\n", refused)
	}
	return nil
}
