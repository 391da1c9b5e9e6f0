package webhooks

import (
	"context"
	"encoding/json"
	"math/bits"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/masterdb"
)

// transactionTypes are the types of the events that tell of the ledger's transactions.
var transactionTypes = map[credits.Type]events.Type{
	credits.TypePurchase: events.CreditsPurchased, credits.TypeBonus: events.CreditsGranted, credits.TypeSpend: events.CreditsSpent,
	credits.TypeCapture: events.CreditsSpent, credits.TypeRefund: events.CreditsRefunded, credits.TypeDispute: events.CreditsDisputed,
	credits.TypeAdjustment: events.CreditsAdjusted, credits.TypeExpiry: events.CreditsExpired,
}

// publishedAccount is how far the transactions of an account are published.
type publishedAccount struct {
	StoreID stoa.StoreID
	Seq     int64
}

// publishedQuery reads those of the accounts of which something is published.
func publishedQuery(into *[]publishedAccount, accounts []stoa.StoreID) masterdb.Query {
	args := make([]any, len(accounts))
	for i, store := range accounts {
		args[i] = store
	}
	for bits.OnesCount(uint(len(args))) != 1 { // a few statements to prepare, instead of one for each number
		args = append(args, args[0])
	}
	return masterdb.All(into, `SELECT store_id, seq FROM published_credits WHERE store_id IN `+masterdb.Placeholders(1, len(args)), args...)
}

// publishAccount publishes the transactions of an account after seq. The ledger
// is what its transactions tell of, so its rows are the record of the events: their numbers
// have no gaps, and none is lost or told twice. An event has the id of its transaction.
func (s *Service) publishAccount(ctx context.Context, tx *masterdb.Tx, p *published, store stoa.StoreID, seq int64) error {
	transactions, err := credits.TransactionsAfter(ctx, tx, store, seq, publishBatch)
	if err != nil || len(transactions) == 0 {
		return err
	}
	if len(transactions) == publishBatch {
		tx.AfterCommit(func() { // there may be more
			s.changed.add(store)
			s.signals.wake()
		})
	}
	var args []any
	for _, t := range transactions {
		data, err := json.Marshal(transactionData(t))
		if err != nil {
			return err
		}
		args = append(args, stoa.EventID(t.ID), p.next(&store), store, t.UserID, string(transactionTypes[t.Type]), string(data), t.CreatedAt)
	}
	if err := tx.ExecLater(ctx, `INSERT INTO events (id, position, store_id, user_id, type, data, created_at) VALUES `+masterdb.Placeholders(len(transactions), 7), args...); err != nil {
		return err
	}
	return tx.ExecLater(ctx, `INSERT INTO published_credits (store_id, seq) VALUES ($1, $2) ON CONFLICT (store_id) DO UPDATE SET seq = excluded.seq`,
		store, transactions[len(transactions)-1].Sequence)
}

// transactionData returns the data of an event about credits.
func transactionData(t credits.Transaction) map[string]string {
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
	return data
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
