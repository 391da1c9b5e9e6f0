package payments

import (
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa/internal/credits"
)

// providerState is the state of a purchase at the provider at one moment.
type providerState struct {
	checkout  string     // the checkout that was read; empty for a charge without one
	payment   *payment   // nil if no money was received
	closed    bool       // no money can be received any more
	stop      stopReason // why recharges are disabled, when closed
	reversals []reversal // of that payment; reversals that are not included are unchanged
}

// payment is money that was received.
type payment struct {
	intent      string
	amountMinor int64
	currency    string
}

// reversal is a refund or a dispute.
type reversal struct {
	ref         string
	kind        credits.Type // TypeRefund or TypeDispute
	amountMinor int64
	currency    string
	taken       bool // the money was taken back
	open        bool // the money may be taken back
}

func sessionState(cs *stripe.CheckoutSession) providerState {
	f := providerState{checkout: cs.ID}
	intent := cs.PaymentIntent
	switch {
	case cs.PaymentStatus == stripe.CheckoutSessionPaymentStatusPaid:
		f.payment = &payment{amountMinor: cs.AmountTotal, currency: string(cs.Currency)}
		if intent != nil {
			f.payment.intent = intent.ID
		}
	case cs.Status == stripe.CheckoutSessionStatusExpired:
		f.closed = true
	case cs.Status == stripe.CheckoutSessionStatusComplete && intent != nil:
		// The buyer chose a delayed payment method, and its payment has failed. A
		// completed checkout cannot be used again.
		f.closed = hasFailed(intent.Status)
	}
	return f
}

func hasFailed(s stripe.PaymentIntentStatus) bool {
	return s == stripe.PaymentIntentStatusRequiresPaymentMethod || s == stripe.PaymentIntentStatusCanceled
}

// intentState returns the state of a charge without a checkout. Such a charge is off
// session: a payment that does not succeed at once fails, since no customer is present to
// give another card or to authenticate.
func intentState(pi *stripe.PaymentIntent) providerState {
	switch {
	case pi.Status == stripe.PaymentIntentStatusSucceeded:
		return providerState{payment: &payment{intent: pi.ID, amountMinor: pi.AmountReceived, currency: string(pi.Currency)}}
	case pi.Status == stripe.PaymentIntentStatusRequiresAction:
		return providerState{closed: true, stop: stopAuthentication}
	case hasFailed(pi.Status):
		return providerState{closed: true, stop: reasonOf(pi.LastPaymentError)}
	}
	return providerState{}
}

// reasonOf returns why a charge failed.
func reasonOf(err *stripe.Error) stopReason {
	if err != nil && (err.Code == stripe.ErrorCodeAuthenticationRequired || err.DeclineCode == stripe.DeclineCodeAuthenticationRequired) {
		return stopAuthentication
	}
	return stopDeclined
}

// refundReversal converts a refund. A pending refund has not taken any money yet, and a
// failed refund has returned it.
func refundReversal(r *stripe.Refund) reversal {
	return reversal{
		ref: r.ID, kind: credits.TypeRefund, amountMinor: r.Amount, currency: string(r.Currency),
		taken: r.Status == stripe.RefundStatusSucceeded,
	}
}

// disputeReversal converts a dispute. Its balance transactions show where the money is: a
// negative one withdraws it, and a positive one returns it. The money of a dispute that
// is won is returned, possibly after a delay.
func disputeReversal(d *stripe.Dispute) reversal {
	out := reversal{ref: d.ID, kind: credits.TypeDispute, amountMinor: d.Amount, currency: string(d.Currency)}
	withdrawn, returned := false, false
	for _, t := range d.BalanceTransactions {
		withdrawn = withdrawn || t.Amount < 0
		returned = returned || t.Amount > 0
	}
	out.taken = withdrawn && !returned && d.Status != stripe.DisputeStatusWon
	switch d.Status {
	case stripe.DisputeStatusNeedsResponse, stripe.DisputeStatusUnderReview,
		stripe.DisputeStatusWarningNeedsResponse, stripe.DisputeStatusWarningUnderReview:
		out.open = !withdrawn
	default: // the dispute is decided
	}
	return out
}

// of returns the reversed money as a part of what was received for p. Money in another
// currency, which a dispute may have, is treated as the whole amount.
func (r reversal) of(p Purchase) int64 {
	if !strings.EqualFold(r.currency, p.MoneyCurrency()) {
		return p.receivedMinor()
	}
	return max(0, min(r.amountMinor, p.receivedMinor()))
}

// card is a payment card saved at the provider.
type card struct {
	customer, ref string
	brand, last4  string
	expires       string // YYYY-MM
	savedAt       time.Time
}
