package stores

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/credits/feed"
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
	copyLost           = 10               // steps that other copiers may take first in one attempt: there are few
)

// FollowCredits has the copies follow feed. A store without a database at work,
// or with one of an older schema, is passed by until it has one.
func (r *Registry) FollowCredits(changes *feed.Feed) {
	changes.Follow(feed.Follower{
		Pending: fmt.Sprintf(`
			JOIN stores s ON s.id = b.store_id AND s.status IN ('active', 'suspended')
			JOIN store_databases d ON d.store_id = b.store_id AND d.schema_version >= %d
			LEFT JOIN credit_copies c ON c.store_id = b.store_id
			WHERE coalesce(c.version, -1) < b.version AND (b.version > 0 OR b.seq > 0)`, copySchema),
		Job: func(store stoa.StoreID) jobs.Args { return CopyCredits{StoreID: store} },
	})
}

// CopyCredits runs the job. While the store's database cannot be used, or makes
// no progress, it comes back later and later, up to copyPatience; that is no
// failure of the job.
func (r *Registry) CopyCredits(ctx context.Context, job CopyCredits) error {
	info, err := r.copyable(ctx, job.StoreID)
	if err != nil || info == nil {
		return err
	}
	version, fault, err := r.copyCredits(ctx, job.StoreID)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case fault == nil:
		return r.noteCopy(ctx, job.StoreID, *info, version)
	}
	failures, err := r.noteFailedCopy(ctx, job.StoreID, *info, fault)
	if err != nil {
		return err
	}
	if stoa.CodeOf(fault) == stoa.DatabaseNoProgress {
		// What PostgreSQL has planned under a rule outlives the rule, for as long
		// as the connection.
		r.tenants.Forget(job.StoreID)
	}
	wait := copyWait(failures)
	r.log.WarnContext(ctx, "the copy of a store's credits waits for its database", "store", job.StoreID.String(), "for", wait, "err", fault)
	return jobs.Snooze(wait)
}

// copyWait is how long a copy waits after so many failures in a row. It doubles
// with each, and differs by up to a quarter, so that stores that failed
// together do not come back together.
func copyWait(failures int) time.Duration {
	wait := copyPatience
	if failures < 10 {
		wait = min(wait, time.Second<<failures)
	}
	return wait - rand.N(wait/4) //nolint:gosec // not a secret
}

// copyable describes the store's database, or is nil when there is none to copy to.
func (r *Registry) copyable(ctx context.Context, id stoa.StoreID) (*tenantdb.Info, error) {
	status, err := readStatus(ctx, r.db, id, "")
	if err != nil || status != Active && status != Suspended {
		return nil, err
	}
	info, err := tenantdb.ReadInfo(ctx, r.db, id)
	if err != nil || info == nil || info.SchemaVersion < copySchema {
		return nil, err
	}
	return info, nil
}

// copyCredits returns the account's version that the copies are at when all is
// done, what is wrong with the store's database as fault, and all else as err.
func (r *Registry) copyCredits(ctx context.Context, id stoa.StoreID) (version int64, fault, err error) {
	lease, fault := r.acquireSoon(ctx, id)
	if fault != nil {
		return 0, fault, nil
	}
	defer lease.Release()
	p := copyProgress{least: shop.CreditPosition{Version: math.MinInt64, Seq: math.MinInt64}}
	for begin := time.Now(); ; {
		at, fault := shop.ReadCreditPosition(ctx, lease.DB, id)
		if fault == nil {
			fault = p.check(at)
		}
		if fault != nil {
			return 0, fault, nil
		}
		// Read after the position, the account is never older than that.
		balance, err := r.ledger.ReadBalance(ctx, r.db, id)
		if err != nil {
			return 0, nil, err
		}
		if at.Version >= balance.Version {
			return balance.Version, nil, nil
		}
		done, fault, err := r.copyChunk(ctx, lease.DB, at, balance, &p)
		switch {
		case fault != nil || err != nil:
			return 0, fault, err
		case done: // what has changed meanwhile is the next job's
			return balance.Version, nil, nil
		case time.Since(begin) > copyBudget:
			return 0, nil, jobs.Snooze(0)
		}
	}
}

// copyProgress is what the copies' position must show next in one attempt. The
// database is the merchant's: a trigger or a view may confirm each step and
// keep none.
type copyProgress struct {
	least shop.CreditPosition // where the copies must be at least
	past  bool                // they must be beyond that
	lost  int                 // steps that another copier took first, or the database refused
}

// moved notes a step from one position to another, or that it was not taken.
func (p *copyProgress) moved(from, to shop.CreditPosition, taken bool) {
	if p.least, p.past = to, false; !taken {
		p.least, p.past = from, true // the one who was faster has gone on from there
		p.lost++
	}
}

// check fails when the copies are not where the steps so far have led.
func (p *copyProgress) check(at shop.CreditPosition) error {
	if at.Before(p.least) || p.past && at == p.least || p.lost > copyLost {
		return tenantdb.NoProgress(fmt.Errorf("credit_copies is at version %d, seq %d, after %d steps that were not taken, and should be beyond version %d, seq %d",
			at.Version, at.Seq, p.lost, p.least.Version, p.least.Seq))
	}
	return nil
}

// copyChunk takes the copies a step further; done is true when they are at
// balance now. It is not when there is more, or somebody else has moved them.
func (r *Registry) copyChunk(ctx context.Context, db *tenantdb.DB, at shop.CreditPosition, balance credits.Balance, p *copyProgress) (done bool, fault, err error) {
	spent, err := r.ledger.ReadSpendings(ctx, balance.StoreID, at.Seq, balance.Seq, copyAtOnce)
	if err != nil {
		return false, nil, err
	}
	if len(spent) < copyAtOnce {
		to := shop.CreditPosition{Version: balance.Version, Seq: balance.Seq}
		done, fault = shop.CopyCredits(ctx, db, at, to, spent, balance)
		p.moved(at, to, done)
		return done, fault, nil
	}
	to := shop.CreditPosition{Version: at.Version, Seq: spent[copyAtOnce-1].Sequence}
	taken, fault := shop.LogSpendings(ctx, db, balance.StoreID, at, to, spent)
	p.moved(at, to, taken)
	return false, fault, nil
}

func (r *Registry) acquireSoon(ctx context.Context, id stoa.StoreID) (tenantdb.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, copyAcquire)
	defer cancel()
	return r.tenants.Acquire(ctx, id)
}

// noteCopy records how far the copies are, and that the database keeps what is
// written if it was said not to.
func (r *Registry) noteCopy(ctx context.Context, id stoa.StoreID, info tenantdb.Info, version int64) error {
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `
			INSERT INTO credit_copies (store_id, version) VALUES ($1, $2)
			ON CONFLICT (store_id) DO UPDATE SET failures = 0,
				version = CASE WHEN excluded.version > credit_copies.version THEN excluded.version ELSE credit_copies.version END`, id, version)
		if err != nil || info.LastError != stoa.DatabaseNoProgress {
			return err
		}
		return tenantdb.RecordHealthOf(ctx, tx, id, info.CredentialVersion, nil)
	})
}

// noteFailedCopy counts failures in a row, and records the fault as the
// database's if it makes no progress: nobody else would notice.
func (r *Registry) noteFailedCopy(ctx context.Context, id stoa.StoreID, info tenantdb.Info, fault error) (failures int, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		err := tx.Get(ctx, &failures, `
			INSERT INTO credit_copies (store_id, failures) VALUES ($1, 1)
			ON CONFLICT (store_id) DO UPDATE SET failures = credit_copies.failures + 1 RETURNING failures`, id)
		if err != nil || stoa.CodeOf(fault) != stoa.DatabaseNoProgress {
			return err
		}
		return tenantdb.RecordHealthOf(ctx, tx, id, info.CredentialVersion, fault)
	})
	return failures, err
}
