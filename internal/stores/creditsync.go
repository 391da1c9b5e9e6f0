package stores

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// SyncCredits is the job that updates the copies of a store's credits in its own
// database: the balance and the spending log.
type SyncCredits struct {
	jobs.AtTenant `json:"-"`
	StoreID       stoa.StoreID `json:"storeId"`
}

// Kind implements jobs.Args.
func (SyncCredits) Kind() string { return "stores.copy_credits" }

const (
	// SyncCreditsTimeout limits one attempt.
	SyncCreditsTimeout = time.Minute

	syncBudget     = 30 * time.Second // after which an attempt yields to other jobs
	syncAcquire    = 5 * time.Second  // timeout for reaching the store's database
	syncBatchSize  = 500              // spendings in one transaction
	syncMaxWait    = 10 * time.Minute // between two attempts
	syncMinSchema  = 15               // the version of the store's schema that first has all the tables
	syncMaxRefused = 10               // steps in a row that other attempts may take first; more mean that the database refuses them
)

// FollowCredits subscribes the copies to changes. A store without a usable database, or
// with one of an older schema, is skipped until it has one. Most databases answer at once, and
// get their copies without a job. Those that have failed wait for theirs.
func (r *Registry) FollowCredits(changes *feed.Feed) {
	changes.Follow(feed.Follower{
		Pending: fmt.Sprintf(`
			JOIN stores s ON s.id = b.store_id AND s.status IN ('active', 'suspended')
			JOIN store_databases d ON d.store_id = b.store_id AND d.schema_version >= %d
			LEFT JOIN credit_copies c ON c.store_id = b.store_id
			WHERE coalesce(c.version, -1) < b.version AND (b.version > 0 OR b.seq > 0)`, syncMinSchema),
		Job:   func(store stoa.StoreID) jobs.Args { return SyncCredits{StoreID: store} },
		Quick: `coalesce(c.failures, 0) = 0 AND d.last_error IS NULL`,
		Now:   r.syncNow,
	})
}

// syncNow does what the job does, and reports whether it has. It gives up at the first fault, and
// when another attempt is under way.
func (r *Registry) syncNow(ctx context.Context, id stoa.StoreID) bool {
	version, fault, err := r.syncAll(ctx, id, 0)
	return fault == nil && err == nil && recordSync(ctx, r.db, id, version) == nil
}

// SyncCredits runs the job. While the store's database cannot be used, or makes no
// progress, the job snoozes with growing pauses, up to syncMaxWait. The job does not fail
// then.
func (r *Registry) SyncCredits(ctx context.Context, job SyncCredits) error {
	info, err := r.syncTarget(ctx, job.StoreID)
	if err != nil || info == nil {
		return err
	}
	version, fault, err := r.syncAll(ctx, job.StoreID, syncMaxRefused)
	switch {
	case err != nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	case fault == nil:
		return r.recordSynced(ctx, job.StoreID, *info, version)
	}
	failures, err := r.recordFailedSync(ctx, job.StoreID, *info, fault)
	if err != nil {
		return err
	}
	if stoa.CodeOf(fault) == stoa.DatabaseNoProgress {
		// The connections are closed, since a plan that PostgreSQL created under a rule
		// stays in use, after the rule is dropped, for as long as the connection.
		r.tenants.Forget(job.StoreID)
	}
	wait := syncWait(failures)
	r.log.WarnContext(ctx, "credit sync postponed", "store", job.StoreID.String(), "for", wait, "err", fault)
	return jobs.Snooze(wait)
}

// SyncAfterRestore brings what the master decides into a database whose rows were replaced:
// the store's name and slug, and the copies of its credits.
func (r *Registry) SyncAfterRestore(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	if _, err := tx.Exec(ctx, `DELETE FROM credit_copies WHERE store_id = $1`, id); err != nil {
		return err
	}
	if err := r.queue.Enqueue(ctx, tx, SyncIdentity{StoreID: id}); err != nil {
		return err
	}
	return r.queue.Enqueue(ctx, tx, SyncCredits{StoreID: id})
}

// syncWait returns how long a sync waits after that many consecutive failures. The wait
// doubles with each failure, with up to a quarter of jitter, so that stores that failed
// together are not retried together.
func syncWait(failures int) time.Duration {
	wait := syncMaxWait
	if failures < 10 {
		wait = min(wait, time.Second<<failures)
	}
	return wait - rand.N(wait/4) //nolint:gosec // jitter needs no secure random numbers
}

// syncTarget returns the store's database, or nil when there is no database to sync to.
func (r *Registry) syncTarget(ctx context.Context, id stoa.StoreID) (*tenantdb.Info, error) {
	var found []*tenantdb.Info
	err := r.db.Select(ctx, &found, `SELECT `+tenantdb.InfoColumns+` FROM store_databases x JOIN stores s ON s.id = x.store_id
		WHERE x.store_id = $1 AND s.status IN ('active', 'suspended') AND x.schema_version >= $2`, id, syncMinSchema)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return found[0], nil
}

// syncAll updates the copies and returns the version of the account that they then have.
// fault is a failure of the store's database, or that more than maxRefused steps were refused,
// one after the other. err is any other failure.
func (r *Registry) syncAll(ctx context.Context, id stoa.StoreID, maxRefused int) (version int64, fault, err error) {
	lease, fault := r.acquireForSync(ctx, id)
	if fault != nil {
		return 0, fault, nil
	}
	defer lease.Release()
	p := syncProgress{least: storedata.CreditPosition{Version: math.MinInt64, Seq: math.MinInt64}, maxRefused: maxRefused}
	for begin := time.Now(); ; {
		at, fault := storedata.ReadCreditPosition(ctx, lease.DB, id)
		if fault == nil {
			fault = p.check(at)
		}
		if fault != nil {
			return 0, fault, nil
		}
		// The account is read after the position, so that it is never older than the
		// position.
		balance, spent, err := r.ledger.ReadAccount(ctx, id, at.Seq, syncBatchSize)
		if err != nil {
			return 0, nil, err
		}
		if at.Version >= balance.Version {
			return balance.Version, nil, nil
		}
		done, fault := syncBatch(ctx, lease.DB, at, balance, spent, &p)
		switch {
		case fault != nil:
			return 0, fault, nil
		case done: // the next job handles later changes
			return balance.Version, nil, nil
		case time.Since(begin) > syncBudget:
			return 0, nil, jobs.Snooze(0)
		}
	}
}

// syncProgress checks that the copies' position advances in one attempt. The database
// belongs to the merchant: a trigger or a view may confirm each step and discard it.
type syncProgress struct {
	least   storedata.CreditPosition // the minimum position of the copies
	past    bool                     // the position must be greater than least
	refused int                      // last steps, that another attempt took first or the database refused

	maxRefused int
}

// moved records a step from one position to another. taken is false when the step was not
// made.
func (p *syncProgress) moved(from, to storedata.CreditPosition, taken bool) {
	p.least, p.past = to, false
	if taken {
		p.refused = 0
		return
	}
	p.least, p.past = from, true // another attempt has advanced the copies from this position
	p.refused++
}

// check fails when the copies are not at the position that the steps have produced.
func (p *syncProgress) check(at storedata.CreditPosition) error {
	if at.Before(p.least) || p.past && at == p.least || p.refused > p.maxRefused {
		return tenantdb.NoProgress(fmt.Errorf("credit_copies is at version %d, seq %d, after %d steps that were not taken, and should be beyond version %d, seq %d",
			at.Version, at.Seq, p.refused, p.least.Version, p.least.Seq))
	}
	return nil
}

// syncBatch advances the copies by one step. done reports that they now equal balance:
// there are no more spendings, and no other attempt has moved them.
func syncBatch(ctx context.Context, db *tenantdb.DB, at storedata.CreditPosition, balance credits.Balance, spent []credits.Transaction, p *syncProgress) (done bool, fault error) {
	if len(spent) < syncBatchSize {
		to := storedata.CreditPosition{Version: balance.Version, Seq: balance.Seq}
		done, fault = storedata.CopyCredits(ctx, db, at, to, spent, balance)
		p.moved(at, to, done)
		return done, fault
	}
	to := storedata.CreditPosition{Version: at.Version, Seq: spent[syncBatchSize-1].Sequence}
	taken, fault := storedata.LogSpendings(ctx, db, balance.StoreID, at, to, spent)
	p.moved(at, to, taken)
	return false, fault
}

func (r *Registry) acquireForSync(ctx context.Context, id stoa.StoreID) (tenantdb.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, syncAcquire)
	defer cancel()
	return r.tenants.Acquire(ctx, id)
}

// recordSync records the version of the copies.
func recordSync(ctx context.Context, q masterdb.Execer, id stoa.StoreID, version int64) error {
	_, err := q.Exec(ctx, `
		INSERT INTO credit_copies (store_id, version) VALUES ($1, $2)
		ON CONFLICT (store_id) DO UPDATE SET failures = 0,
			version = CASE WHEN excluded.version > credit_copies.version THEN excluded.version ELSE credit_copies.version END`, id, version)
	return err
}

// recordSynced is recordSync for a database that may be recorded as making no progress: then it
// records that it makes progress again.
func (r *Registry) recordSynced(ctx context.Context, id stoa.StoreID, info tenantdb.Info, version int64) error {
	if info.LastError != stoa.DatabaseNoProgress {
		return recordSync(ctx, r.db, id, version)
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := recordSync(ctx, tx, id, version); err != nil {
			return err
		}
		return tenantdb.RecordHealthOf(ctx, tx, id, info.CredentialVersion, nil)
	})
}

// recordFailedSync counts consecutive failures. If the database makes no progress, it
// records the fault in the database's health, since nothing else would detect it.
func (r *Registry) recordFailedSync(ctx context.Context, id stoa.StoreID, info tenantdb.Info, fault error) (failures int, err error) {
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
