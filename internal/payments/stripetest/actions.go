package stripetest

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"github.com/stripe/stripe-go/v86"
	"github.com/stripe/stripe-go/v86/webhook"
)

// Card is how a saved card behaves when it is charged.
type Card int

// The cards.
const (
	Good       Card = iota
	Declined        // insufficient funds
	NeedsOwner      // the bank requires authentication by its owner
	Slow            // the charge is processed later
)

// Event is an event of Stripe for the platform.
type Event struct {
	ID   string
	Type string

	body      []byte
	created   int64
	delivered bool
}

// addEvent records an event about an object in its present state. The caller
// holds mu.
func (s *Stripe) addEvent(typ string, o object) {
	e := &Event{ID: "evt_" + rand.Text(), Type: typ, created: time.Now().Unix()}
	body, err := json.Marshal(object{
		"id": e.ID, "object": "event", "type": typ, "api_version": stripe.APIVersion, "created": e.created,
		"livemode": false, "data": object{"object": o},
	})
	if err != nil {
		panic(err) // plain values always marshal
	}
	e.body = body
	s.events = append(s.events, e)
}

// Events lists all events so far, oldest first.
func (s *Stripe) Events() []*Event {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Event(nil), s.events...)
}

// SendTo changes the address that events are delivered to.
func (s *Stripe) SendTo(hook string) { s.hook = hook }

// Deliver signs an event and sends it again. It returns the status of the answer. A 2xx
// status marks the event as delivered.
func (s *Stripe) Deliver(e *Event) int {
	signed := webhook.GenerateTestSignedPayload(&webhook.UnsignedPayload{Payload: e.body, Secret: Secret})
	req, err := http.NewRequest(http.MethodPost, s.hook, bytes.NewReader(e.body))
	if err != nil {
		s.t.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Stripe-Signature", signed.Header)
	res, err := s.client.Do(req)
	if err != nil {
		s.t.Errorf("deliver %s: %v", e.ID, err)
		return 0
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	e.delivered = e.delivered || res.StatusCode/100 == 2
	return res.StatusCode
}

// DeliverAll sends the undelivered events, in order.
func (s *Stripe) DeliverAll() {
	s.t.Helper()
	for _, e := range s.Undelivered() {
		if status := s.Deliver(e); status/100 != 2 {
			s.t.Errorf("%s was answered with %d", e.ID, status)
		}
	}
}

// Acknowledge marks every event as delivered.
func (s *Stripe) Acknowledge() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		e.delivered = true
	}
}

// Undelivered lists the events that no endpoint has acknowledged, oldest first.
func (s *Stripe) Undelivered() (out []*Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.events {
		if !e.delivered {
			out = append(out, e)
		}
	}
	return out
}

// change calls do with an object, which must exist.
func (s *Stripe) change(id string, do func(object)) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects[id]
	if o == nil {
		s.t.Fatalf("the fake Stripe has no object %s", id)
	}
	do(o)
}

// complete creates the payment intent of a checkout and completes the checkout.
// The caller holds mu.
func (s *Stripe) complete(session object) object {
	intent := s.attempt(session)
	session["status"], session["url"] = "complete", nil
	return intent
}

// attempt returns the payment intent of a checkout. The first attempt to pay
// creates it. The caller holds mu.
func (s *Stripe) attempt(session object) object {
	if id, ok := session["payment_intent"].(string); ok {
		intent := s.objects[id]
		intent["amount"], intent["currency"] = session["amount_total"], session["currency"]
		return intent
	}
	intent := s.add("pi", "payment_intent", object{
		"amount": session["amount_total"], "amount_received": int64(0), "currency": session["currency"],
		"customer": nil, "metadata": session["intent_metadata"],
	})
	session["payment_intent"] = intent["id"]
	return intent
}

// Decline declines a card at a checkout, which stays open.
func (s *Stripe) Decline(session string) {
	s.t.Helper()
	s.change(session, func(o object) { s.decline(s.attempt(o), "card_declined", "generic_decline") })
}

// Pay pays at a checkout, with a card, and returns the payment intent's id.
func (s *Stripe) Pay(session string) (intent string) {
	s.t.Helper()
	s.change(session, func(o object) {
		pi := s.complete(o)
		intent = pi["id"].(string)
		s.succeed(o, pi)
		s.addEvent("checkout.session.completed", o)
	})
	return intent
}

func (s *Stripe) succeed(session, intent object) {
	intent["status"], intent["amount_received"], session["payment_status"] = "succeeded", intent["amount"], "paid"
	s.addEvent("payment_intent.succeeded", intent)
}

// PayOther is Pay with another amount, in the minor unit, or another currency
// than the checkout's: what Stripe does when the account converts prices.
func (s *Stripe) PayOther(session string, minor int64, currency string) (intent string) {
	s.t.Helper()
	s.change(session, func(o object) { o["amount_total"], o["currency"] = minor, currency })
	return s.Pay(session)
}

// PayLater completes a checkout with a delayed payment method. Arrive or Bounce then
// completes or fails the payment.
func (s *Stripe) PayLater(session string) (intent string) {
	s.t.Helper()
	s.change(session, func(o object) {
		pi := s.complete(o)
		pi["status"], intent = "processing", pi["id"].(string)
		s.addEvent("checkout.session.completed", o)
	})
	return intent
}

// Arrive makes a delayed payment succeed.
func (s *Stripe) Arrive(session string) {
	s.t.Helper()
	s.change(session, func(o object) {
		s.succeed(o, s.objects[o["payment_intent"].(string)])
		s.addEvent("checkout.session.async_payment_succeeded", o)
	})
}

// Bounce makes a delayed payment fail.
func (s *Stripe) Bounce(session string) {
	s.t.Helper()
	s.change(session, func(o object) {
		pi := s.objects[o["payment_intent"].(string)]
		pi["status"] = "requires_payment_method"
		s.addEvent("payment_intent.payment_failed", pi)
		s.addEvent("checkout.session.async_payment_failed", o)
	})
}

// Finish makes a processing charge of a saved card succeed.
func (s *Stripe) Finish(intent string) {
	s.t.Helper()
	s.change(intent, func(o object) {
		o["status"], o["amount_received"] = "succeeded", o["amount"]
		s.addEvent("payment_intent.succeeded", o)
	})
}

// FinishWith is Finish with another amount than was requested.
func (s *Stripe) FinishWith(intent string, minor int64) {
	s.t.Helper()
	s.change(intent, func(o object) {
		o["status"], o["amount_received"] = "succeeded", minor
		s.addEvent("payment_intent.succeeded", o)
	})
}

// Expire closes a checkout that was not paid.
func (s *Stripe) Expire(session string) {
	s.t.Helper()
	s.change(session, func(o object) {
		o["status"], o["url"] = "expired", nil
		s.addEvent("checkout.session.expired", o)
	})
}

// SaveCard saves a card at a checkout in setup mode.
func (s *Stripe) SaveCard(session string, behaviour Card) {
	s.t.Helper()
	s.change(session, func(o object) {
		card := s.add("pm", "payment_method", object{
			"type": "card", "customer": o["customer"], "behaviour": behaviour,
			"card": object{"brand": "visa", "last4": "4242", "exp_year": 2031, "exp_month": 4},
		})
		intent := s.add("seti", "setup_intent", object{"status": "succeeded", "payment_method": card["id"], "customer": o["customer"]})
		o["setup_intent"], o["status"], o["url"] = intent["id"], "complete", nil
		s.addEvent("checkout.session.completed", o)
	})
}

// Refund refunds a part of a payment, in the minor unit, and returns the
// refund's id. Status is Stripe's, such as "succeeded" or "pending".
func (s *Stripe) Refund(intent string, minor int64, status string) (id string) {
	s.t.Helper()
	s.change(intent, func(pi object) {
		o := s.add("re", "refund", object{"amount": minor, "currency": pi["currency"], "payment_intent": intent, "status": status})
		id = o["id"].(string)
		s.addEvent("refund.created", o)
	})
	return id
}

// SetRefund changes a refund's status: "succeeded" of a pending one, "failed".
func (s *Stripe) SetRefund(id, status string) {
	s.t.Helper()
	s.change(id, func(o object) {
		o["status"] = status
		s.addEvent("refund.updated", o)
		if status == "failed" {
			s.addEvent("refund.failed", o)
		}
	})
}

// Dispute opens a dispute about a part of a payment, and returns its id. No money
// has moved yet.
func (s *Stripe) Dispute(intent string, minor int64) (id string) {
	s.t.Helper()
	s.change(intent, func(pi object) {
		o := s.add("dp", "dispute", object{
			"amount": minor, "currency": pi["currency"], "payment_intent": intent, "status": "needs_response",
			"balance_transactions": []object{}, "reason": "fraudulent",
		})
		id = o["id"].(string)
		s.addEvent("charge.dispute.created", o)
	})
	return id
}

// Withdraw withdraws the disputed money.
func (s *Stripe) Withdraw(dispute string) {
	s.t.Helper()
	s.move(dispute, -1, "charge.dispute.funds_withdrawn")
}

// Reinstate returns the disputed money.
func (s *Stripe) Reinstate(dispute string) {
	s.t.Helper()
	s.move(dispute, 1, "charge.dispute.funds_reinstated")
}

func (s *Stripe) move(dispute string, sign int64, typ string) {
	s.t.Helper()
	s.change(dispute, func(o object) {
		o["balance_transactions"] = append(o["balance_transactions"].([]object),
			object{"id": "txn", "object": "balance_transaction", "amount": sign * o["amount"].(int64)})
		s.addEvent(typ, o)
	})
}

// Close decides a dispute: "won", "lost" or "warning_closed".
func (s *Stripe) Close(dispute, status string) {
	s.t.Helper()
	s.change(dispute, func(o object) {
		o["status"] = status
		s.addEvent("charge.dispute.closed", o)
	})
}

// SessionOf returns the id of the checkout with this address.
func (s *Stripe) SessionOf(url string) string {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		if o["url"] == url {
			return o["id"].(string)
		}
	}
	s.t.Fatalf("no checkout has the address %q", url)
	return ""
}

// Count returns how many objects of a kind there are, such as "payment_intent".
func (s *Stripe) Count(kind string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.objects {
		if o["object"] == kind {
			n++
		}
	}
	return n
}

// Intents lists the payment intents, oldest first.
func (s *Stripe) Intents() []string { return s.idsOf("payment_intent") }

// Sessions lists the checkouts, oldest first.
func (s *Stripe) Sessions() []string { return s.idsOf("checkout.session") }

func (s *Stripe) idsOf(kind string) (ids []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.ids {
		if s.objects[id]["object"] == kind {
			ids = append(ids, id)
		}
	}
	return ids
}
