package payments_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/payments/stripetest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestAutoRechargeRefusesFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		set := func(change func(*payments.AutoRechargeRequest)) error {
			r := wish()
			change(&r)
			_, err := s.SetAutoRecharge(t.Context(), s.owner, s.store, r)
			return err
		}
		for field, change := range map[string]func(*payments.AutoRechargeRequest){
			"threshold":  func(r *payments.AutoRechargeRequest) { r.Threshold = -1 },
			"credits":    func(r *payments.AutoRechargeRequest) { r.Credits = credits.Credit / 2 },
			"monthlyCap": func(r *payments.AutoRechargeRequest) { r.MonthlyCap = r.Credits - 1 },
			"enabled":    func(*payments.AutoRechargeRequest) {}, // there is no card
		} {
			err := set(change)
			if e := new(stoa.Error); !errors.As(err, &e) || e.Code != stoa.InvalidRequest || len(e.Fields) != 1 || e.Fields[0].Field != field {
				t.Errorf("%s: %v", field, err)
			}
		}
		for role, want := range map[authz.Role]stoa.Code{authz.Member: stoa.Forbidden, authz.Viewer: stoa.Forbidden} {
			p := s.member(t, role)
			_, err := s.SetAutoRecharge(t.Context(), p, s.store, wish())
			wantCode(t, err, want)
			_, err = s.AutoRecharge(t.Context(), p, s.store)
			wantCode(t, err, want)
			_, err = s.SaveCard(t.Context(), p, s.store, "")
			wantCode(t, err, want)
		}
		other := setup(t, db, sandbox())
		_, err := s.SaveCard(t.Context(), other.owner, s.store, "")
		wantCode(t, err, stoa.StoreNotFound)
		_, err = other.SaveCard(t.Context(), other.owner, other.store, "")
		wantCode(t, err, stoa.PaymentsUnavailable)
		_, err = other.SetAutoRecharge(t.Context(), other.owner, other.store, wish())
		wantCode(t, err, stoa.PaymentsUnavailable)
		if n := s.stripe.Count("customer"); n != 0 {
			t.Errorf("%d customers", n)
		}
	})
}

// TestSaveCard checks that there is one customer for each store and one page for each
// key, and that of two cards the one that was requested last is saved, in any order of
// the events.
func TestSaveCard(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := atStripe(t, db)
		var urls [6]string
		errs := concurrently(len(urls), func(i int) (err error) {
			for range 20 { // while another request with the key is at Stripe
				if urls[i], err = s.SaveCard(t.Context(), s.owner, s.store, "k"); stoa.CodeOf(err) != stoa.PaymentsUnavailable {
					break
				}
			}
			return err
		})
		testkit.Must(t, errors.Join(errs...))
		for _, url := range urls {
			if url != urls[0] {
				t.Error("two pages for one key")
			}
		}
		if s.stripe.Count("customer") != 1 {
			t.Errorf("%d customers", s.stripe.Count("customer"))
		}
		s.stripe.SaveCard(s.stripe.SessionOf(urls[0]), stripetest.Good)
		s.exec(t, `UPDATE auto_recharges SET card_ref = 'pm_newer', card_last4 = '1111', card_saved_at = $1`, time.Now().UTC().Add(time.Minute))
		s.news(t)
		if got := s.settings(t); got.Card == nil || got.Card.Last4 != "1111" {
			t.Errorf("%+v", got.Card)
		}
	})
}
