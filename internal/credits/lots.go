package credits

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// soon is the period that Balance.ExpiresSoon covers.
const soon = 30 * 24 * time.Hour

// Sweep is the job that expires holds and lots. Each change of an account does so too.
// The job is for accounts that are not changed.
type Sweep struct{}

// Kind implements jobs.Args.
func (Sweep) Kind() string { return "credits.sweep" }

// The interval and the timeout of Sweep. The next run continues what a run did
// not finish.
const (
	SweepEvery   = time.Minute
	SweepTimeout = 5 * time.Minute
)

// sweepChunk is how many accounts one query returns.
const sweepChunk = 500

// Sweep settles every account in which something is due. An error of one account
// does not stop the sweep.
func (l *Ledger) Sweep(ctx context.Context, _ Sweep) error {
	var faults []error
	for after := (stoa.StoreID{}); ; {
		var due []stoa.StoreID
		err := l.db.Select(ctx, &due, `
			SELECT store_id FROM credit_holds WHERE state = 'open' AND expires_at <= $1 AND store_id > $2
			UNION
			SELECT l.store_id FROM credit_lots l JOIN credit_balances b ON b.store_id = l.store_id
			WHERE l.remaining > 0 AND l.expires_at <= $1 AND l.store_id > $2 AND b.balance > b.reserved
			ORDER BY 1 LIMIT $3`, l.db.Now(), after, sweepChunk)
		if err != nil {
			return errors.Join(append(faults, err)...)
		}
		for _, store := range due {
			if err := l.settle(ctx, store); err != nil {
				faults = append(faults, err)
			}
			after = store
		}
		if len(due) < sweepChunk || ctx.Err() != nil {
			return errors.Join(append(faults, ctx.Err())...)
		}
	}
}

func (l *Ledger) settle(ctx context.Context, store stoa.StoreID) error {
	return l.db.Tx(ctx, func(tx *masterdb.Tx) error {
		a, err := lockAccount(ctx, tx, store)
		if err != nil {
			return err
		}
		return l.flush(ctx, tx, a)
	})
}
