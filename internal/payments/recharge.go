package payments

import (
	"context"
	"errors"
	"time"

	"github.com/stripe/stripe-go/v86"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Recharge is the job that buys credits for a store with automatic recharges whose
// balance is low. It may be enqueued at any time: it checks whether a charge is due.
type Recharge struct {
	StoreID stoa.StoreID `json:"store_id"`
}

// Kind implements jobs.Args.
func (Recharge) Kind() string { return "payments.recharge" }

// RetryWithin implements jobs.RetryWithin. Without it, stores with a low balance could
// wait for days after an outage of Stripe.
func (Recharge) RetryWithin() time.Duration { return time.Hour }

// RechargeDue is the job that enqueues Recharge for every store that needs it. It finds
// the stores whose change a process had not handled when it was killed.
type RechargeDue struct{}

// Kind implements jobs.Args.
func (RechargeDue) Kind() string { return "payments.recharge_due" }

// RechargeDueEvery is how often RechargeDue runs.
const RechargeDueEvery = time.Minute

// recharge is a store's settings of automatic recharges, with its card.
type recharge struct {
	StoreID     stoa.StoreID
	UserID      stoa.UserID
	Enabled     bool
	Threshold   credits.Amount
	Credits     credits.Amount
	MonthlyCap  credits.Amount
	CustomerRef *string
	CardRef     *string
}

const selectRecharge = `
	SELECT store_id, user_id, enabled, threshold, credits, monthly_cap, customer_ref, card_ref FROM auto_recharges WHERE store_id = $1`

// dueSQL is the condition for a charge: the account is below the threshold. An
// account in debt is not charged: the debt comes from money that was taken back,
// and another charge would likely be taken back too.
const dueSQL = `r.enabled AND b.debt = 0 AND b.balance - b.reserved < r.threshold AND s.status NOT IN ('suspended', 'deleting', 'deleted')`

// FollowCredits subscribes recharges to the changes of credits. A store is recharged
// shortly after its balance has fallen.
func (s *Service) FollowCredits(changes *feed.Feed) {
	changes.Follow(feed.Follower{
		Pending: `JOIN auto_recharges r ON r.store_id = b.store_id JOIN stores s ON s.id = b.store_id WHERE ` + dueSQL,
		Job:     func(store stoa.StoreID) jobs.Args { return Recharge{StoreID: store} },
	})
}

// QueueRecharges handles RechargeDue.
func (s *Service) QueueRecharges(ctx context.Context, _ RechargeDue) error {
	if s.stripe == nil {
		return nil
	}
	var stores []stoa.StoreID
	if err := s.db.Select(ctx, &stores, `
		SELECT r.store_id FROM auto_recharges r JOIN credit_balances b ON b.store_id = r.store_id JOIN stores s ON s.id = r.store_id
		WHERE `+dueSQL+`
		UNION SELECT store_id FROM purchases WHERE automatic AND status = 'pending'`); err != nil {
		return err
	}
	for _, store := range stores {
		if err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.queue.EnqueueOnce(ctx, tx, Recharge{StoreID: store}) }); err != nil {
			return err
		}
	}
	return nil
}

// Recharge charges the store's saved card for more credits if its balance is below the
// threshold. It makes one purchase at a time, within the month's cap. The credits are
// granted as for any purchase, once for each payment. A card that is declined or that
// requires authentication is not charged again.
func (s *Service) Recharge(ctx context.Context, job Recharge) error {
	if s.stripe == nil {
		return nil
	}
	return s.jobFailed(ctx, job, s.recharge(ctx, job))
}

func (s *Service) recharge(ctx context.Context, job Recharge) error {
	var row purchase
	var r recharge
	var fresh bool
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		row, r, fresh, err = s.beginRecharge(ctx, tx, job.StoreID)
		return err
	})
	if err != nil || row.ID.IsZero() {
		return err
	}
	if !fresh {
		done, err := s.resumeCharge(ctx, row, r)
		if err != nil || done {
			return err
		}
	}
	return s.charge(ctx, row, r)
}

// beginRecharge inserts the purchase of a recharge that is due. When an earlier
// recharge is still pending, it returns that one, and fresh is false.
func (s *Service) beginRecharge(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (row purchase, r recharge, fresh bool, err error) {
	err = tx.Get(ctx, &r, selectRecharge+tx.ForUpdate(), store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return row, r, false, nil
	}
	if err != nil {
		return row, r, false, err
	}
	err = tx.Get(ctx, &row, selectPurchaseRow+` WHERE store_id = $1 AND automatic AND status = 'pending'`, store)
	if !errors.Is(err, masterdb.ErrNotFound) {
		return row, r, false, err
	}
	if wanted, err := r.wanted(ctx, tx); err != nil || !wanted {
		return row, r, false, err
	}
	p, err := s.newPurchase(tx.Now, r.UserID, store, r.Credits)
	if err != nil {
		return row, r, false, err
	}
	p.Automatic = true
	if row, err = insertPurchase(ctx, tx, p, PurchaseRequest{}); err != nil {
		return row, r, true, err
	}
	s.reached(tx, Pending)
	return row, r, true, recordPurchase(ctx, tx, authz.Principal{}, p, audit.Success)
}

// wanted reports whether a charge is due now. The user who enabled recharges must still
// have permission to buy. Otherwise it disables the recharges.
func (r recharge) wanted(ctx context.Context, tx *masterdb.Tx) (bool, error) {
	if is, err := r.isDue(ctx, tx); err != nil || !is {
		return false, err
	}
	if _, err := authz.Check(ctx, tx, authz.Principal{UserID: r.UserID}, r.StoreID, authz.PurchaseCredits); stoa.CodeOf(err) == stoa.Internal {
		return false, err
	} else if err != nil {
		return false, stopRecharge(ctx, tx, r.StoreID, stopPermission)
	}
	used, err := usedThisMonth(ctx, tx, r.StoreID, tx.Now)
	return used+r.Credits <= r.MonthlyCap, err
}

func (r recharge) isDue(ctx context.Context, q masterdb.Querier) (is bool, err error) {
	err = q.Get(ctx, &is, `
		SELECT `+dueSQL+` FROM auto_recharges r JOIN credit_balances b ON b.store_id = r.store_id JOIN stores s ON s.id = r.store_id
		WHERE r.store_id = $1`, r.StoreID)
	return is, err
}

// usedThisMonth returns the credits that were bought automatically in now's
// calendar month in UTC.
func usedThisMonth(ctx context.Context, q masterdb.Querier, store stoa.StoreID, now time.Time) (used credits.Amount, err error) {
	now = now.UTC()
	month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	err = q.Get(ctx, &used, `
		SELECT CAST(coalesce(sum(credits), 0) AS bigint) FROM purchases
		WHERE store_id = $1 AND automatic AND status <> 'expired' AND created_at >= $2`, store, month)
	return used, err
}

// resumeCharge continues a purchase whose outcome is unknown. It looks for an earlier
// charge at Stripe, since Stripe keeps idempotency keys for a day only, and keeps its own
// failures under them. done is false when a charge has to be made.
func (s *Service) resumeCharge(ctx context.Context, row purchase, r recharge) (done bool, err error) {
	pi, err := s.stripe.findCharge(ctx, row, r)
	if outcomeOf(err) == final { // such as a deleted customer; if a charge was made, its event reports it
		return true, s.refusedCharge(ctx, row, err)
	}
	if err != nil {
		return false, err
	}
	if pi != nil {
		return true, s.syncCharge(ctx, row, pi)
	}
	is, err := r.isDue(ctx, s.db)
	if err != nil || is {
		return false, err
	}
	return true, s.failCharge(ctx, row, "") // recharges were disabled meanwhile, or credits were bought manually
}

// charge charges the card and applies the result.
func (s *Service) charge(ctx context.Context, row purchase, r recharge) error {
	for range maxAttempts {
		pi, err := s.stripe.charge(ctx, row, r)
		if err == nil {
			return s.syncCharge(ctx, row, pi)
		}
		e, answered := errors.AsType[*stripe.Error](err)
		switch {
		case needsNewKey(err):
			if row, err = s.nextAttempt(ctx, row); err != nil {
				return err
			}
			if done, err := s.resumeCharge(ctx, row, r); err != nil || done {
				return err
			}
		case answered && e.Type == stripe.ErrorTypeCard && e.PaymentIntent != nil:
			return s.syncCharge(ctx, row, e.PaymentIntent)
		case answered && e.Type == stripe.ErrorTypeCard:
			return s.failCharge(ctx, row, reasonOf(e))
		case outcomeOf(err) == final:
			return s.refusedCharge(ctx, row, err)
		default:
			return err // the job is retried
		}
	}
	return errors.New("every attempt met a failure that Stripe has kept")
}

// refusedCharge expires the purchase of a charge that Stripe refuses to make, and
// disables the recharges.
func (s *Service) refusedCharge(ctx context.Context, row purchase, err error) error {
	s.cfg.Log.WarnContext(ctx, "an automatic recharge was refused", "purchase", row.ID, "error", err)
	return s.failCharge(ctx, row, stopRefused)
}

// syncCharge applies the result of a charge. It cancels a failed charge first, so that it
// cannot be paid later.
func (s *Service) syncCharge(ctx context.Context, row purchase, pi *stripe.PaymentIntent) error {
	f := intentState(pi)
	if f.closed && pi.Status != stripe.PaymentIntentStatusCanceled {
		if err := s.stripe.cancel(ctx, pi.ID); err != nil {
			return err
		}
		return s.failCharge(ctx, row, f.stop)
	}
	return s.syncPurchase(ctx, subject{purchase: row.ID, intent: pi.ID}, "")
}

// failCharge expires a purchase that was not paid. With a reason it also disables
// the recharges.
func (s *Service) failCharge(ctx context.Context, row purchase, why stopReason) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var p purchase
		if err := tx.Get(ctx, &p, selectPurchaseRow+` WHERE id = $1`+tx.ForUpdate(), row.ID); err != nil {
			return err
		}
		return s.applyState(ctx, tx, &p, providerState{closed: true, stop: why})
	})
}

// stopReason is the reason why automatic recharges were disabled. Empty means that they
// were not.
type stopReason string

const (
	stopDeclined       stopReason = "declined"
	stopAuthentication stopReason = "authentication_required"
	stopRefused        stopReason = "refused"
	stopDisputed       stopReason = "disputed"
	stopRefunded       stopReason = "refunded"
	stopMismatched     stopReason = "mismatched"
	stopPermission     stopReason = "not_permitted"
)

// stopRecharge disables the store's automatic recharges. It does nothing for an empty
// reason.
func stopRecharge(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, why stopReason) error {
	if why == "" {
		return nil
	}
	n, err := tx.Exec(ctx, `
		UPDATE auto_recharges SET enabled = false, stopped_reason = $2, stopped_at = $3, updated_at = $3
		WHERE store_id = $1 AND enabled`, store, string(why), tx.Now)
	if err != nil || n == 0 {
		return err
	}
	return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.RechargeStopped, Store: store,
		Details: map[string]string{"reason": string(why)}})
}
