package payments_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// byHand is a fake Stripe that is used through its pages, with a platform.
type byHand struct {
	till
	log *syncBuffer
}

func runByHand(t *testing.T, db *masterdb.DB) *byHand {
	t.Helper()
	s := &byHand{log: &syncBuffer{}}
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == nil {
			err = s.Receive(r.Context(), body, r.Header.Get("Stripe-Signature"))
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
		}
	}))
	t.Cleanup(hook.Close)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ready, ended := make(chan *stripetest.Stripe, 1), make(chan error, 1)
	go func() {
		ended <- stripetest.Run(ctx, stripetest.Options{Listen: "127.0.0.1:0", Hook: hook.URL, Log: slog.New(slog.NewTextHandler(s.log, nil))},
			func(running *stripetest.Stripe) { ready <- running })
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	select {
	case s.stripe = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatal(err)
	}
	s.shop = setup(t, db, s.config())
	return s
}

// post submits a button and returns the JSON answer.
func (s *byHand) post(t *testing.T, path string, form url.Values, want int) map[string]string {
	t.Helper()
	res, err := http.PostForm(s.stripe.URL+path, form)
	testkit.Must(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	testkit.Must(t, err)
	if res.StatusCode != want {
		t.Fatalf("%s %v: %s: %s, want %d", path, form, res.Status, body, want)
	}
	out := map[string]string{}
	if want == http.StatusOK {
		testkit.Must(t, json.Unmarshal(body, &out))
	}
	return out
}

// wait applies received events until the balance and the debt have these values.
func (s *byHand) wait(t *testing.T, balance, debt credits.Amount) {
	t.Helper()
	testkit.Eventually(t, testkit.Timeout, "the events arrive and are applied", func() bool {
		s.work(t)
		b := s.balance(t)
		return b.Balance == balance*credits.Credit && b.Debt == debt*credits.Credit
	})
}

// TestStandInByHand uses every action of the pages of `make stripe-dev` and checks the
// platform's reaction.
func TestStandInByHand(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := runByHand(t, db)
		p, session := s.open(t, 100)
		s.post(t, "/pay/"+session+"/decline", nil, http.StatusOK)
		testkit.Eventually(t, testkit.Timeout, "the declined payment is told", func() bool { return len(s.stripe.Undelivered()) == 0 })
		s.work(t)
		if got := s.status(t, p); got != payments.Pending {
			t.Errorf("after a declined card the purchase is %s", got)
		}
		s.post(t, "/pay/"+session+"/pay", url.Values{"amount": {"x"}}, http.StatusUnprocessableEntity)
		s.post(t, "/pay/"+session+"/pay", url.Values{"currency": {"euro"}}, http.StatusUnprocessableEntity)
		s.post(t, "/pay/"+session+"/dance", nil, http.StatusNotFound)
		intent := s.post(t, "/pay/"+session+"/pay", nil, http.StatusOK)["payment"]
		s.wait(t, 100, 0)
		s.post(t, "/pay/"+session+"/pay", nil, http.StatusConflict)
		s.post(t, "/pay/cs_test_nobody/pay", nil, http.StatusNotFound)

		s.post(t, "/payments/"+intent+"/refund", url.Values{"amount": {"25"}}, http.StatusOK)
		s.wait(t, 75, 0)
		s.post(t, "/payments/"+intent+"/refund", url.Values{"amount": {"76"}}, http.StatusUnprocessableEntity)
		dispute := s.post(t, "/payments/"+intent+"/dispute", nil, http.StatusOK)["dispute"]
		s.wait(t, 0, 0)
		s.post(t, "/disputes/"+dispute+"/win", nil, http.StatusOK)
		s.wait(t, 75, 0)
		s.post(t, "/disputes/"+dispute+"/lose", nil, http.StatusConflict)
		s.post(t, "/payments/"+intent+"/refund", nil, http.StatusOK)
		s.wait(t, 0, 0)
		if got := s.status(t, p); got != payments.Refunded {
			t.Errorf("after all was refunded the purchase is %s", got)
		}

		second, session := s.open(t, 60)
		lost := s.post(t, "/pay/"+session+"/pay", nil, http.StatusOK)["payment"]
		s.wait(t, 60, 0)
		s.spend(t, 10)
		s.post(t, "/disputes/"+s.post(t, "/payments/"+lost+"/dispute", nil, http.StatusOK)["dispute"]+"/lose", nil, http.StatusOK)
		s.wait(t, 0, 10)
		left, session := s.open(t, 60)
		s.post(t, "/pay/"+session+"/expire", nil, http.StatusOK)
		other, session := s.open(t, 60)
		s.post(t, "/pay/"+session+"/pay", url.Values{"amount": {"61"}, "currency": {"EUR"}}, http.StatusOK)
		testkit.Eventually(t, testkit.Timeout, "the rest is told", func() bool {
			s.work(t)
			return s.status(t, second) == payments.Refunded && s.status(t, left) == payments.Expired && s.status(t, other) == payments.Mismatched
		})
	})
}

// TestStandInPages checks that the pages have the valid buttons only, and that pages of
// other sites cannot use them.
func TestStandInPages(t *testing.T) {
	t.Parallel()
	s := runByHand(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	get := func(path, accept string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.stripe.URL+path, nil)
		testkit.Must(t, err)
		req.Header.Set("Accept", accept)
		res, err := http.DefaultClient.Do(req)
		testkit.Must(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		testkit.Must(t, err)
		return string(body)
	}
	wants := func(page string, wants ...string) {
		t.Helper()
		for _, want := range wants {
			if !strings.Contains(page, want) {
				t.Errorf("%q is not in %s", want, page)
			}
		}
	}
	_, session := s.open(t, 100)
	wants(get("/pay/"+session, "text/html"), "Pay 100 usd", ">Pay<", ">Decline<", ">Expire<")
	intent := s.post(t, "/pay/"+session+"/pay", nil, http.StatusOK)["payment"]
	s.post(t, "/payments/"+intent+"/dispute", url.Values{"amount": {"30"}}, http.StatusOK)
	wants(get("/", "text/html"), session, intent, ">Refund<", ">Dispute<", ">Win<", ">Lose<", "checkout.session.completed")
	wants(get("/", "*/*"), `"refunded":0`, `"received":100`, `"needs_response"`)
	card, err := s.SaveCard(t.Context(), s.owner, s.store, "")
	testkit.Must(t, err)
	path := strings.TrimPrefix(card, s.stripe.URL)
	wants(get(path, "text/html"), "Save a card", "Save a good card")

	for _, origin := range []string{"https://elsewhere.example", "null"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.stripe.URL+"/payments/"+intent+"/refund", nil)
		testkit.Must(t, err)
		req.Header.Set("Origin", origin)
		res, err := http.DefaultClient.Do(req)
		testkit.Must(t, err)
		_ = res.Body.Close()
		if res.StatusCode != http.StatusForbidden {
			t.Errorf("from %s: %s", origin, res.Status)
		}
	}
	s.post(t, path+"/save", nil, http.StatusOK)
	testkit.Eventually(t, testkit.Timeout, "the card is known", func() bool {
		s.work(t)
		return s.settings(t).Card != nil
	})
}
