package credits

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/version"
)

// Settings are the owners' settings of a store's account.
type Settings struct {
	// LowBalance is the threshold for mails to the owners. They get a mail each time that
	// the available amount falls from at least the threshold to less. Nil means no mails.
	LowBalance *Amount
}

// Settings returns the settings of the store's account. It fails with store_not_found for
// a caller who is not a member.
func (l *Ledger) Settings(ctx context.Context, p authz.Principal, store stoa.StoreID) (Settings, error) {
	if _, err := authz.Check(ctx, l.db, p, store, authz.ReadCredits); err != nil {
		return Settings{}, err
	}
	var s Settings
	err := l.db.Get(ctx, &s, `SELECT low_balance FROM credit_balances WHERE store_id = $1`, store)
	return s, err
}

// SetSettings replaces the settings. The caller needs permission to buy credits. It fails
// with invalid_request for a threshold that is not above 0. A threshold above what is
// available causes no mail until the next fall below it. It fails with edit_conflict unless
// match has the Version of the present settings.
func (l *Ledger) SetSettings(ctx context.Context, p authz.Principal, store stoa.StoreID, s Settings, match version.Match) error {
	if s.LowBalance != nil && *s.LowBalance <= 0 {
		var faults stoa.Invalid
		faults.Add("lowBalanceThreshold", "must be above 0, or null for no mail")
		return faults.Err()
	}
	return l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := authz.Check(ctx, tx, p, store, authz.PurchaseCredits); err != nil {
			return err
		}
		var before Settings
		if err := tx.Get(ctx, &before, `SELECT low_balance FROM credit_balances WHERE store_id = $1`+tx.ForUpdate(), store); err != nil {
			return err
		}
		if err := match.Check(before.Version()); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE credit_balances SET low_balance = $2 WHERE store_id = $1`, store, s.LowBalance); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.CreditSettings, Store: store, Details: map[string]string{
			"oldLowBalance": before.lowBalance(), "newLowBalance": s.lowBalance(),
		}})
	})
}

// Version identifies the settings, for SetSettings.
func (s Settings) Version() string { return version.Of(s) }

// lowBalance returns the threshold as the audit log records it.
func (s Settings) lowBalance() string {
	if s.LowBalance == nil {
		return "none"
	}
	return s.LowBalance.String()
}
