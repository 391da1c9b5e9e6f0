package webhooks

import (
	"context"
	"encoding/json"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
)

// transactionTypes are the types of the events that tell of the ledger's transactions.
var transactionTypes = map[credits.Type]events.Type{
	credits.TypePurchase: events.CreditsPurchased, credits.TypeBonus: events.CreditsGranted, credits.TypeSpend: events.CreditsSpent,
	credits.TypeCapture: events.CreditsSpent, credits.TypeRefund: events.CreditsRefunded, credits.TypeDispute: events.CreditsDisputed,
	credits.TypeAdjustment: events.CreditsAdjusted, credits.TypeExpiry: events.CreditsExpired,
}

// transactionData returns the data of an event about credits.
func transactionData(t credits.Transaction) (string, error) {
	data := map[string]string{
		"transactionId": t.ID.String(), "sequence": strconv.FormatInt(t.Sequence, 10), "type": string(t.Type),
		"amount": t.Amount.String(), "balanceAfter": t.BalanceAfter.String(), "serviceKey": "", "description": t.Description, "reference": "",
	}
	if t.ServiceKey != nil {
		data["serviceKey"] = *t.ServiceKey
	}
	if t.Reference != nil {
		data["reference"] = *t.Reference
	}
	text, err := json.Marshal(data)
	return string(text), err
}

// Sweep is the job that looks for transactions that are not published, such as after a change
// by a process that was killed or by a command.
type Sweep struct{}

// Kind implements jobs.Args.
func (Sweep) Kind() string { return "webhooks.sweep" }

// SweepEvery is the interval of Sweep, SweepTimeout the timeout of one run.
const (
	SweepEvery   = 5 * time.Minute
	SweepTimeout = time.Minute
)

// Sweep runs the job.
func (s *Service) Sweep(ctx context.Context, _ Sweep) error {
	for after := (stoa.StoreID{}); ; {
		var behind []stoa.StoreID
		err := s.db.Select(ctx, &behind, `SELECT b.store_id FROM credit_balances b LEFT JOIN published_credits p ON p.store_id = b.store_id
			WHERE b.seq > coalesce(p.seq, 0) AND b.store_id > $1 ORDER BY b.store_id LIMIT $2`, after, publishBatch)
		if err != nil {
			return err
		}
		s.changed.add(behind...)
		s.signals.wake()
		if len(behind) < publishBatch {
			return nil
		}
		after = behind[len(behind)-1]
	}
}
