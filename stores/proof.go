package stores

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
)

const (
	checkEvery  = 24 * time.Hour // a proven hostname
	checkSooner = time.Hour      // one whose DNS did not answer
	maxMisses   = 3              // daily checks in a row that find no record; then the hostname is lost
	askEvery    = 3 * time.Second
	checksAtOne = 16 // of the daily checks
)

// VerifyHostname looks for the record that proves a claim and, when it is
// there, has the store answer at the hostname. A record that is not there is
// a result, told by Proof.Fault, and no error; the claim goes on. It fails
// with not_found, with rate_limited when the hostname was asked for a moment
// ago, and with hostname_taken when another store has proven the name before.
func (r *Registry) VerifyHostname(ctx context.Context, p access.Principal, id stoa.StoreID, given string) (HostnameDetails, error) {
	name, err := r.manage(ctx, p, id, given)
	if err != nil {
		return HostnameDetails{}, err
	}
	if r.platform.hosts[name] { // claimed before the platform answered there
		return HostnameDetails{}, invalidHostname("belongs to the platform")
	}
	c, err := r.askFor(ctx, id, name)
	if err != nil {
		return HostnameDetails{}, err
	}
	fault := r.dns.prove(ctx, name, c.Token) // outside any transaction
	if ctx.Err() != nil {
		return HostnameDetails{}, ctx.Err()
	}
	if fault == "" {
		err = r.proven(ctx, p, c)
	} else {
		err = r.noteFault(ctx, p, c, fault)
	}
	if err != nil {
		return HostnameDetails{}, err
	}
	return r.hostname(ctx, id, name)
}

// askFor returns the claim to check, unless it was checked just now: a store
// has no way to keep the DNS, or this server, busy.
func (r *Registry) askFor(ctx context.Context, id stoa.StoreID, name string) (c claim, err error) {
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := holdPresent(ctx, tx, id); err != nil {
			return err
		}
		if c, err = readClaim(ctx, tx, id, name); err != nil {
			if owned, lookup := mapped(ctx, tx, id, name); lookup == nil && owned {
				return stoa.Errorf(stoa.HostnameInvalid, "This is the store's address on the platform. It needs no proof.")
			}
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE hostname_claims SET asked_at = $3
			WHERE store_id = $1 AND hostname = $2 AND (asked_at IS NULL OR asked_at <= $4)`, id, name, tx.Now, tx.Now.Add(-askEvery))
		if err == nil && n == 0 {
			err = &stoa.Error{Code: stoa.RateLimited, Message: "This hostname was checked a moment ago. Try again in a few seconds.", RetryAfter: askEvery}
		}
		return err
	})
	return c, err
}

// proven maps the hostname, or finds it mapped, and notes the proof.
func (r *Registry) proven(ctx context.Context, p access.Principal, c claim) error {
	var first bool
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := holdPresent(ctx, tx, c.StoreID); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			VALUES ($1, $2, false, true, $3, $3) ON CONFLICT (hostname) DO NOTHING`, c.Hostname, c.StoreID, tx.Now)
		if err != nil {
			return err
		}
		if first = n == 1; !first {
			owned, err := mapped(ctx, tx, c.StoreID, c.Hostname)
			if err != nil {
				return err
			}
			if !owned {
				return stoa.Errorf(stoa.HostnameTaken, "Another store answers at %s. It loses the name %d days after its own TXT record is removed.",
					c.Hostname, maxMisses)
			}
		}
		n, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = NULL, checked_at = $4, check_after = $5, fault = NULL, misses = 0
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(checkEvery))
		if err != nil || !first && n == 1 {
			return err
		}
		if n == 0 {
			return errNoHostname() // given up meanwhile; the transaction takes the mapping back
		}
		if err := recordHostname(ctx, tx, p, access.HostnameVerified, c.StoreID, c.Hostname); err != nil {
			return err
		}
		return notify(tx, c.StoreID)
	})
	if err == nil && first {
		r.log.InfoContext(ctx, "hostname verified", "store", c.StoreID.String(), "hostname", c.Hostname)
	}
	return err
}

// noteFault records a check that was asked for. It never costs a hostname.
func (r *Registry) noteFault(ctx context.Context, p access.Principal, c claim, fault ProofFault) error {
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE hostname_claims SET checked_at = $4, fault = $5
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, string(fault))
		if err != nil {
			return err
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.HostnameVerified, Store: c.StoreID, Outcome: access.Failed,
			Details: map[string]string{"hostname": c.Hostname, "fault": string(fault)}})
	})
}

// CheckHostnames is the job that ends claims nobody has proven and looks
// whether the proven ones still are, each once a day. It is to run more often
// than that: a check that could not be made is made again soon.
type CheckHostnames struct{}

// Kind implements jobs.Args.
func (CheckHostnames) Kind() string { return "stores.check_hostnames" }

// How often the job runs, and how long one run may take. What it does not
// come to is first in the next.
const (
	CheckHostnamesEvery   = time.Hour
	CheckHostnamesTimeout = 10 * time.Minute
)

// expiredClaims is the rule by which claims that nobody has proven go.
var expiredClaims = masterdb.Expiry{Table: "hostname_claims", Key: []string{"store_id", "hostname"}, Age: "expires_at", Keep: time.Microsecond}

// CheckHostnames runs the job.
func (r *Registry) CheckHostnames(ctx context.Context, _ CheckHostnames) error {
	if _, err := r.db.DeleteExpired(ctx, []masterdb.Expiry{expiredClaims}); err != nil {
		return err
	}
	var now time.Time
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		now = tx.Now
		_, err := tx.Exec(ctx, `DELETE FROM hostname_claims WHERE (store_id, hostname) IN (
			SELECT c.store_id, c.hostname FROM hostname_claims c JOIN stores s ON s.id = c.store_id WHERE s.status = 'deleted' LIMIT 1000)`)
		return err
	})
	for err == nil {
		var due []claim
		err = r.db.Select(ctx, &due, `SELECT c.store_id, c.hostname, c.token FROM hostname_claims c
			JOIN store_hostnames h ON h.hostname = c.hostname AND h.store_id = c.store_id
			WHERE c.expires_at IS NULL AND c.check_after <= $1 ORDER BY c.check_after LIMIT 100`, now)
		if err != nil || len(due) == 0 {
			return err
		}
		err = r.checkAll(ctx, due)
	}
	return err
}

func (r *Registry) checkAll(ctx context.Context, due []claim) error {
	next := make(chan claim)
	errs := make([]error, checksAtOne)
	var running sync.WaitGroup
	for i := range errs {
		running.Go(func() {
			for c := range next {
				errs[i] = cmp.Or(errs[i], stoa.CatchPanic(func() error { return r.checkAgain(ctx, c) })) // a stranger's DNS answers
			}
		})
	}
	for _, c := range due {
		next <- c
	}
	close(next)
	running.Wait()
	return errors.Join(errs...)
}

// checkAgain is the daily check of one hostname.
func (r *Registry) checkAgain(ctx context.Context, c claim) error {
	fault := r.dns.prove(ctx, c.Hostname, c.Token)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case fault == RecordNotFound || fault == RecordMismatch:
		return r.missed(ctx, c, fault)
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		set, after := `fault = NULL, misses = 0`, checkEvery
		if fault == DNSUnavailable { // which says nothing about the record
			set, after = `fault = 'dns_unavailable'`, checkSooner
		}
		_, err := tx.Exec(ctx, `UPDATE hostname_claims SET checked_at = $4, check_after = $5, `+set+`
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(after))
		return err
	})
}

// missed counts an answer that the record is not there. The last one takes
// the hostname away, and leaves a claim that can be proven again.
func (r *Registry) missed(ctx context.Context, c claim, fault ProofFault) error {
	var misses int
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockStatus(ctx, tx, c.StoreID); err != nil {
			return err
		}
		err := tx.Get(ctx, &misses, `UPDATE hostname_claims SET checked_at = $4, check_after = $5, fault = $6, misses = misses + 1
			WHERE store_id = $1 AND hostname = $2 AND token = $3 AND check_after <= $4 RETURNING misses`,
			c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(checkEvery), string(fault))
		if errors.Is(err, masterdb.ErrNotFound) {
			return nil // given up, or counted by another run of the job
		}
		if err != nil || misses < maxMisses {
			return err
		}
		if _, err := unmap(ctx, tx, c.StoreID, c.Hostname); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = $3 WHERE store_id = $1 AND hostname = $2`,
			c.StoreID, c.Hostname, tx.Now.Add(claimLife))
		if err != nil {
			return err
		}
		return recordHostname(ctx, tx, access.Principal{}, access.HostnameLost, c.StoreID, c.Hostname)
	})
	switch {
	case err != nil:
	case misses >= maxMisses:
		r.log.WarnContext(ctx, "hostname lost: its record is gone", "store", c.StoreID.String(), "hostname", c.Hostname, "fault", string(fault))
	case misses > 0:
		r.log.InfoContext(ctx, "hostname's record not found", "store", c.StoreID.String(), "hostname", c.Hostname,
			"fault", string(fault), "misses", misses)
	}
	return err
}
