package payments

import (
	"strings"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa/credits"
)

// facts are how a purchase stands at the provider, as one look has found it.
type facts struct {
	checkout  string   // the checkout looked at; empty for a charge without one
	payment   *payment // nil while no money has come
	closed    bool     // no money will come any more
	stop      stopReason
	reversals []reversal // of that payment; those not listed are as they were
}

// payment is money that has come.
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
	taken       bool // the money is gone
	open        bool // it may go
}

func sessionFacts(cs *stripe.CheckoutSession) facts {
	f := facts{checkout: cs.ID}
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
		// Whoever paid by a slow method left the page; it cannot be used again.
		f.closed = hasFailed(intent.Status)
	}
	return f
}

func hasFailed(s stripe.PaymentIntentStatus) bool {
	return s == stripe.PaymentIntentStatusRequiresPaymentMethod || s == stripe.PaymentIntentStatusCanceled
}

// intentFacts are those of a charge without a checkout. Nobody is there to
// give another card or to prove who they are: what is not paid at once fails.
func intentFacts(pi *stripe.PaymentIntent) facts {
	switch {
	case pi.Status == stripe.PaymentIntentStatusSucceeded:
		return facts{payment: &payment{intent: pi.ID, amountMinor: pi.AmountReceived, currency: string(pi.Currency)}}
	case pi.Status == stripe.PaymentIntentStatusRequiresAction:
		return facts{closed: true, stop: stopAuthentication}
	case hasFailed(pi.Status):
		return facts{closed: true, stop: reasonOf(pi.LastPaymentError)}
	}
	return facts{}
}

// reasonOf says why a charge failed.
func reasonOf(err *stripe.Error) stopReason {
	if err != nil && (err.Code == stripe.ErrorCodeAuthenticationRequired || err.DeclineCode == stripe.DeclineCodeAuthenticationRequired) {
		return stopAuthentication
	}
	return stopDeclined
}

// refundReversal: a refund that waits for something has taken nothing yet, and
// one that failed has given the money back to us.
func refundReversal(r *stripe.Refund) reversal {
	return reversal{
		ref: r.ID, kind: credits.TypeRefund, amountMinor: r.Amount, currency: string(r.Currency),
		taken: r.Status == stripe.RefundStatusSucceeded,
	}
}

// disputeReversal: the balance transactions tell where the money is. There is
// one when it was withdrawn and another, positive, when it came back. What is
// won comes back, perhaps a moment later.
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
	default: // decided
	}
	return out
}

// of is the reversed money as a part of what came for p. Money in another
// currency, as a dispute may have it, counts as the whole.
func (r reversal) of(p Purchase) int64 {
	if !strings.EqualFold(r.currency, p.MoneyCurrency()) {
		return p.receivedMinor()
	}
	return max(0, min(r.amountMinor, p.receivedMinor()))
}

// card is a payment card that the provider keeps.
type card struct {
	customer, ref string
	brand, last4  string
	expires       string // YYYY-MM
	savedAt       time.Time
}
