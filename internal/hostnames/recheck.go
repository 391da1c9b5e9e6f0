package hostnames

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	recheckInterval    = 24 * time.Hour // of a verified hostname
	recheckRetry       = time.Hour      // after a check that the DNS did not answer
	recheckConcurrency = 16
	maxMisses          = 3 // consecutive daily checks without a record, after which the hostname is unmapped
)

// Recheck is the job that deletes expired claims and checks once a day that each verified
// hostname still has its record. It runs more often than once a day, so that a check
// without an answer is repeated soon.
type Recheck struct{}

// Kind implements jobs.Args.
func (Recheck) Kind() string { return "stores.check_hostnames" }

// RecheckInterval is how often the job runs, and RecheckTimeout how long one run may
// take. The next run starts with the hostnames that a run did not reach.
const (
	RecheckInterval = time.Hour
	RecheckTimeout  = 10 * time.Minute
)

// expiredClaims is the retention rule of claims that were not verified.
var expiredClaims = masterdb.Expiry{Table: "hostname_claims", Key: []string{"store_id", "hostname"}, Age: "expires_at", Keep: time.Microsecond}

// Recheck runs the job.
func (s *Service) Recheck(ctx context.Context, _ Recheck) error {
	if _, err := s.db.DeleteExpired(ctx, []masterdb.Expiry{expiredClaims}); err != nil {
		return err
	}
	var now time.Time
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		now = tx.Now
		_, err := tx.Exec(ctx, `DELETE FROM hostname_claims WHERE (store_id, hostname) IN (
			SELECT c.store_id, c.hostname FROM hostname_claims c JOIN stores s ON s.id = c.store_id WHERE s.status = 'deleted' LIMIT 1000)`)
		return err
	})
	for err == nil {
		var due []claim
		err = s.db.Select(ctx, &due, `SELECT c.store_id, c.hostname, c.token FROM hostname_claims c
			JOIN store_hostnames h ON h.hostname = c.hostname AND h.store_id = c.store_id
			WHERE c.expires_at IS NULL AND c.check_after <= $1 ORDER BY c.check_after LIMIT 100`, now)
		if err != nil || len(due) == 0 {
			return err
		}
		err = s.recheckAll(ctx, due)
	}
	return err
}

func (s *Service) recheckAll(ctx context.Context, due []claim) error {
	next := make(chan claim)
	errs := make([]error, recheckConcurrency)
	var workers sync.WaitGroup
	for i := range errs {
		workers.Go(func() {
			for c := range next {
				// A panic caused by the answers of foreign DNS servers must not end the
				// process.
				errs[i] = cmp.Or(errs[i], stoa.CatchPanic(func() error { return s.recheck(ctx, c) }))
			}
		})
	}
	for _, c := range due {
		next <- c
	}
	close(next)
	workers.Wait()
	return errors.Join(errs...)
}

// recheck makes the daily check of one hostname.
func (s *Service) recheck(ctx context.Context, c claim) error {
	fault := s.dns.check(ctx, c.Hostname, c.Token)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault == RecordNotFound || fault == RecordMismatch:
		return s.recordMiss(ctx, c, fault)
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		set, after := `fault = NULL, misses = 0`, recheckInterval
		if fault == DNSUnavailable { // no answer says nothing about the record
			set, after = `fault = 'dns_unavailable'`, recheckRetry
		}
		_, err := tx.Exec(ctx, `UPDATE hostname_claims SET checked_at = $4, check_after = $5, `+set+`
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(after))
		return err
	})
}

// recordMiss counts a daily check that did not find the record. At maxMisses it unmaps
// the hostname and leaves a claim that can be verified again.
func (s *Service) recordMiss(ctx context.Context, c claim, fault VerificationFault) error {
	var misses int
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockStore(ctx, tx, c.StoreID); err != nil {
			return err
		}
		err := tx.Get(ctx, &misses, `UPDATE hostname_claims SET checked_at = $4, check_after = $5, fault = $6, misses = misses + 1
			WHERE store_id = $1 AND hostname = $2 AND token = $3 AND check_after <= $4 RETURNING misses`,
			c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(recheckInterval), string(fault))
		if errors.Is(err, masterdb.ErrNotFound) {
			return nil // the hostname was removed meanwhile, or counted by another run of the job
		}
		if err != nil || misses < maxMisses {
			return err
		}
		if _, err := unmap(ctx, tx, c.StoreID, c.Hostname); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = $3 WHERE store_id = $1 AND hostname = $2`,
			c.StoreID, c.Hostname, tx.Now.Add(claimLifetime))
		if err != nil {
			return err
		}
		return recordEvent(ctx, tx, authz.Principal{}, audit.HostnameLost, c.StoreID, c.Hostname)
	})
	switch {
	case err != nil:
	case misses >= maxMisses:
		s.log.WarnContext(ctx, "hostname lost: its record is gone", "store", c.StoreID.String(), "hostname", c.Hostname, "fault", string(fault))
	case misses > 0:
		s.log.InfoContext(ctx, "hostname's record not found", "store", c.StoreID.String(), "hostname", c.Hostname,
			"fault", string(fault), "misses", misses)
	}
	return err
}
