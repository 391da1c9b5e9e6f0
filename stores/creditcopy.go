package stores

import (
	"context"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// CopyCredits is the job that brings the copies of a store's credits in its own
// database up to date: the balance and the log of what was spent.
type CopyCredits struct {
	jobs.AtTenant `json:"-"`
	StoreID       stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (CopyCredits) Kind() string { return "stores.copy_credits" }

const (
	// CopyCreditsTimeout bounds one attempt.
	CopyCreditsTimeout = time.Minute
	copyBudget         = 30 * time.Second // after which an attempt lets others have their turn
	copyAcquire        = 5 * time.Second  // for the store's database to be reached
	copyAtOnce         = 500              // spendings in one transaction
	copyPatience       = 10 * time.Minute // between two attempts at most
	copySchema         = 15               // of the store's database, from which on it has all the tables
)

// FollowCredits has the copies follow feed. A store without a database at work,
// or with one of an older schema, is passed by until it has one.
func (r *Registry) FollowCredits(feed *credits.Feed) {
	feed.Follow(credits.Follower{
		Behind: fmt.Sprintf(`
			JOIN stores s ON s.id = b.store_id AND s.status IN ('active', 'suspended')
			JOIN store_databases d ON d.store_id = b.store_id AND d.schema_version >= %d
			LEFT JOIN credit_copies c ON c.store_id = b.store_id
			WHERE coalesce(c.version, -1) < b.version AND (b.version > 0 OR b.seq > 0)`, copySchema),
		Job: func(store stoa.StoreID) jobs.Args { return CopyCredits{StoreID: store} },
	})
}

// CopyCredits runs the job. While the store's database cannot be used it comes
// back later and later, up to copyPatience; that is no failure of the job.
func (r *Registry) CopyCredits(ctx context.Context, job CopyCredits) error {
	fault, err := r.copyCredits(ctx, job.StoreID)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case fault == nil:
		return nil
	}
	failures, err := r.noteFailedCopy(ctx, job.StoreID)
	if err != nil {
		return err
	}
	wait := copyPatience
	if failures < 10 {
		wait = min(wait, time.Second<<failures)
	}
	r.log.WarnContext(ctx, "the copy of a store's credits waits for its database", "store", job.StoreID.String(), "for", wait, "err", fault)
	return jobs.Snooze(wait)
}

// copyCredits returns what is wrong with the store's database as fault, and all
// else as err.
func (r *Registry) copyCredits(ctx context.Context, id stoa.StoreID) (fault, err error) {
	status, err := readStatus(ctx, r.db, id, "")
	if err != nil || status != Active && status != Suspended {
		return nil, err
	}
	info, err := tenantdb.ReadInfo(ctx, r.db, id)
	if err != nil || info == nil || info.SchemaVersion < copySchema {
		return nil, err
	}
	lease, fault := r.acquireSoon(ctx, id)
	if fault != nil {
		return fault, nil
	}
	defer lease.Release()
	for begin := time.Now(); ; {
		at, fault := shop.ReadCreditPosition(ctx, lease.DB, id)
		if fault != nil {
			return fault, nil
		}
		// Read after the position, the account is never older than that.
		balance, err := r.ledger.ReadBalance(ctx, r.db, id)
		if err != nil {
			return nil, err
		}
		if at.Version >= balance.Version {
			return nil, r.noteCopy(ctx, id, at.Version)
		}
		done, fault, err := r.copyChunk(ctx, lease.DB, at, balance)
		switch {
		case fault != nil || err != nil:
			return fault, err
		case done: // what has changed meanwhile is the next job's
			return nil, r.noteCopy(ctx, id, balance.Version)
		case time.Since(begin) > copyBudget:
			return nil, jobs.Snooze(0)
		}
	}
}

// copyChunk takes the copies a step further; done is true when they are at
// balance now. It is not when there is more, or somebody else has moved them.
func (r *Registry) copyChunk(ctx context.Context, db *tenantdb.DB, at shop.CreditPosition, balance credits.Balance) (done bool, fault, err error) {
	spent, err := r.ledger.ReadSpendings(ctx, balance.StoreID, at.Seq, balance.Seq, copyAtOnce)
	if err != nil {
		return false, nil, err
	}
	if len(spent) < copyAtOnce {
		done, fault = shop.CopyCredits(ctx, db, at, shop.CreditPosition{Version: balance.Version, Seq: balance.Seq}, spent, balance)
		return done, fault, nil
	}
	to := shop.CreditPosition{Version: at.Version, Seq: spent[copyAtOnce-1].Sequence}
	_, fault = shop.LogSpendings(ctx, db, balance.StoreID, at, to, spent)
	return false, fault, nil
}

func (r *Registry) acquireSoon(ctx context.Context, id stoa.StoreID) (tenantdb.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, copyAcquire)
	defer cancel()
	return r.tenants.Acquire(ctx, id)
}

// noteCopy records how far the copies are.
func (r *Registry) noteCopy(ctx context.Context, id stoa.StoreID, version int64) error {
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO credit_copies (store_id, version) VALUES ($1, $2)
			ON CONFLICT (store_id) DO UPDATE SET failures = 0,
				version = CASE WHEN excluded.version > credit_copies.version THEN excluded.version ELSE credit_copies.version END`, id, version)
		return err
	})
}

// noteFailedCopy counts failures in a row.
func (r *Registry) noteFailedCopy(ctx context.Context, id stoa.StoreID) (failures int, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tx.Get(ctx, &failures, `
			INSERT INTO credit_copies (store_id, failures) VALUES ($1, 1)
			ON CONFLICT (store_id) DO UPDATE SET failures = credit_copies.failures + 1 RETURNING failures`, id)
	})
	return failures, err
}
