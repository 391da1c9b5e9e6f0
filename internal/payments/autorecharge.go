package payments

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/version"
)

// AutoRecharge is a store's settings of automatic recharges and their state.
type AutoRecharge struct {
	Enabled       bool
	Threshold     credits.Amount // a charge is due while less than this is available
	Credits       credits.Amount // bought each time
	MonthlyCap    credits.Amount // bought in a calendar month (UTC) at most
	UsedThisMonth credits.Amount
	Card          *Card
	StoppedReason *string // why recharges were disabled, if not by a member
	StoppedAt     *time.Time
}

// Version identifies the settings, for AutoRechargeRequest.
func (a AutoRecharge) Version() string {
	a.UsedThisMonth = 0
	return version.Of(a)
}

// Card contains the parts of the saved card that may be shown.
type Card struct {
	Brand   string
	Last4   string
	Expires string // YYYY-MM
}

// AutoRecharge returns the store's settings of automatic recharges. It returns the zero
// value for a store that has never enabled them. The caller needs permission to buy
// credits.
func (s *Service) AutoRecharge(ctx context.Context, p authz.Principal, store stoa.StoreID) (AutoRecharge, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.PurchaseCredits); err != nil {
		return AutoRecharge{}, err
	}
	return readAutoRecharge(ctx, s.db, store, s.db.Now())
}

func readAutoRecharge(ctx context.Context, q masterdb.Querier, store stoa.StoreID, now time.Time) (AutoRecharge, error) {
	var row struct {
		Enabled                           bool
		Threshold, Credits, MonthlyCap    credits.Amount
		CardRef                           *string
		CardBrand, CardLast4, CardExpires string
		StoppedReason                     *string
		StoppedAt                         *time.Time
	}
	err := q.Get(ctx, &row, `
		SELECT enabled, threshold, credits, monthly_cap, card_ref, card_brand, card_last4, card_expires, stopped_reason, stopped_at
		FROM auto_recharges WHERE store_id = $1`, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return AutoRecharge{}, nil
	}
	if err != nil {
		return AutoRecharge{}, err
	}
	a := AutoRecharge{
		Enabled: row.Enabled, Threshold: row.Threshold, Credits: row.Credits, MonthlyCap: row.MonthlyCap,
		StoppedReason: row.StoppedReason, StoppedAt: row.StoppedAt,
	}
	if row.CardRef != nil {
		a.Card = &Card{Brand: row.CardBrand, Last4: row.CardLast4, Expires: row.CardExpires}
	}
	a.UsedThisMonth, err = usedThisMonth(ctx, q, store, now)
	return a, err
}

// AutoRechargeRequest contains new settings of automatic recharges.
type AutoRechargeRequest struct {
	Enabled    bool
	Threshold  credits.Amount
	Credits    credits.Amount // whole credits, 1 to 1,000,000
	MonthlyCap credits.Amount // at least Credits
	Match      version.Match  // against AutoRecharge.Version
}

func (r AutoRechargeRequest) validate() error {
	var faults stoa.Invalid
	if r.Threshold < 0 || r.Threshold > maxCredits {
		faults.Add("threshold", "must be between 0 and %s", maxCredits)
	}
	checkWholeCredits(&faults, "credits", r.Credits)
	if r.MonthlyCap < r.Credits || r.MonthlyCap > maxMonthlyCap {
		faults.Add("monthlyCap", "must be at least credits and at most %s", maxMonthlyCap)
	}
	return faults.Err()
}

// details returns the settings as the audit log records them.
func (r AutoRechargeRequest) details() map[string]string {
	return map[string]string{
		"enabled": strconv.FormatBool(r.Enabled), "threshold": r.Threshold.String(), "credits": r.Credits.String(), "monthlyCap": r.MonthlyCap.String(),
	}
}

const maxMonthlyCap = 1000 * maxCredits

// SetAutoRecharge replaces the store's settings. Enabling recharges needs a saved
// card, clears the reason for which they were stopped, and enqueues a charge if
// the balance is below the threshold.
func (s *Service) SetAutoRecharge(ctx context.Context, p authz.Principal, store stoa.StoreID, r AutoRechargeRequest) (out AutoRecharge, err error) {
	if err := r.validate(); err != nil {
		return AutoRecharge{}, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := authz.Check(ctx, tx, p, store, authz.PurchaseCredits); err != nil {
			return err
		}
		if err := r.checkMatch(ctx, tx, store); err != nil {
			return err
		}
		if r.Enabled {
			if err := s.canRecharge(ctx, tx, store); err != nil {
				return err
			}
			if err := s.checkMinimum("credits", r.Credits); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(ctx, `
			INSERT INTO auto_recharges (store_id, user_id, threshold, credits, monthly_cap, updated_at) VALUES ($1, $2, $4, $5, $6, $7)
			ON CONFLICT (store_id) DO UPDATE SET user_id = $2, enabled = $3, threshold = $4, credits = $5, monthly_cap = $6, updated_at = $7,
				stopped_reason = CASE WHEN $3 THEN NULL ELSE auto_recharges.stopped_reason END,
				stopped_at = CASE WHEN $3 THEN NULL ELSE auto_recharges.stopped_at END`,
			store, p.UserID, r.Enabled, r.Threshold, r.Credits, r.MonthlyCap, tx.Now); err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.RechargeChanged, Store: store, Details: r.details()}); err != nil {
			return err
		}
		if r.Enabled {
			if err := s.queue.EnqueueOnce(ctx, tx, Recharge{StoreID: store}); err != nil {
				return err
			}
		}
		out, err = readAutoRecharge(ctx, tx, store, tx.Now)
		return err
	})
	return out, err
}

// checkMatch fails with edit_conflict unless the settings are as the caller read them. It
// locks the store, so that they stay so until tx ends.
func (r AutoRechargeRequest) checkMatch(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if r.Match == nil {
		return nil
	}
	if err := quotas.LockStore(ctx, tx, store); err != nil {
		return err
	}
	present, err := readAutoRecharge(ctx, tx, store, tx.Now)
	if err != nil {
		return err
	}
	return r.Match.Check(present.Version())
}

// canRecharge fails when there is no provider or no saved card.
func (s *Service) canRecharge(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if s.stripe == nil {
		return stoa.Errorf(stoa.PaymentsUnavailable, "Automatic recharges need Stripe, which is not configured here. Ask the platform's operator.")
	}
	var card *string
	err := tx.Get(ctx, &card, `SELECT card_ref FROM auto_recharges WHERE store_id = $1`, store)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) || card != nil {
		return err
	}
	var faults stoa.Invalid
	faults.Add("enabled", "needs a saved card: save a card first")
	return faults.Err()
}
