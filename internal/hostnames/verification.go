package hostnames

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// minCheckInterval is the minimum time between two checks of one hostname that its owner
// requests.
const minCheckInterval = 3 * time.Second

// Verify looks up the record that verifies a claim. If the record exists, the store
// answers at the hostname from then on. A missing record is not an error: it is reported
// in Verification.Fault, and the claim stays. Verify fails with not_found, with
// rate_limited when the hostname was checked less than minCheckInterval ago, and with
// hostname_taken when another store has already verified the name.
func (s *Service) Verify(ctx context.Context, p authz.Principal, id stoa.StoreID, given string) (Details, error) {
	name, err := s.authorize(ctx, p, id, given)
	if err != nil {
		return Details{}, err
	}
	if s.platform.hosts[name] { // the claim existed before the platform used the name
		return Details{}, invalid(platformFault)
	}
	c, err := s.beginCheck(ctx, id, name)
	if err != nil {
		return Details{}, err
	}
	fault := s.dns.check(ctx, name, c.Token) // outside any transaction
	if ctx.Err() != nil {
		return Details{}, ctx.Err()
	}
	if fault == "" {
		err = s.recordVerified(ctx, p, c)
	} else {
		err = s.recordFault(ctx, p, c, fault)
	}
	if err != nil {
		return Details{}, err
	}
	return s.read(ctx, id, name)
}

// beginCheck returns the claim to check. It fails with rate_limited when the claim was
// checked less than minCheckInterval ago, so that a store cannot overload the DNS or this
// server.
func (s *Service) beginCheck(ctx context.Context, id stoa.StoreID, name string) (c claim, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := lockPresentStore(ctx, tx, id); err != nil {
			return err
		}
		if c, err = readClaim(ctx, tx, id, name); err != nil {
			if mapped, lookup := isMapped(ctx, tx, id, name); lookup == nil && mapped {
				return stoa.Errorf(stoa.HostnameInvalid, "This is the store's address on the platform. It needs no verification.")
			}
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE hostname_claims SET asked_at = $3
			WHERE store_id = $1 AND hostname = $2 AND (asked_at IS NULL OR asked_at <= $4)`, id, name, tx.Now, tx.Now.Add(-minCheckInterval))
		if err == nil && n == 0 {
			err = &stoa.Error{Code: stoa.RateLimited, Message: "This hostname was checked a moment ago. Try again in a few seconds.", RetryAfter: minCheckInterval}
		}
		return err
	})
	return c, err
}

// recordVerified maps the hostname to the store, unless it is mapped already,
// and records the verification.
func (s *Service) recordVerified(ctx context.Context, p authz.Principal, c claim) error {
	var first bool
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := lockPresentStore(ctx, tx, c.StoreID); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			VALUES ($1, $2, false, true, $3, $3) ON CONFLICT (hostname) DO NOTHING`, c.Hostname, c.StoreID, tx.Now)
		if err != nil {
			return err
		}
		if first = n == 1; !first {
			mapped, err := isMapped(ctx, tx, c.StoreID, c.Hostname)
			if err != nil {
				return err
			}
			if !mapped {
				return stoa.Errorf(stoa.HostnameTaken, "Another store answers at %s. It loses the name %d days after its own TXT record is removed.",
					c.Hostname, maxMisses)
			}
		}
		n, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = NULL, checked_at = $4, check_after = $5, fault = NULL, misses = 0
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, tx.Now.Add(recheckInterval))
		if err != nil || !first && n == 1 {
			return err
		}
		if n == 0 {
			return errNotFound() // the claim was removed meanwhile; the error rolls back the mapping
		}
		if err := recordEvent(ctx, tx, p, audit.HostnameVerified, c.StoreID, c.Hostname); err != nil {
			return err
		}
		return NotifyChange(tx, c.StoreID)
	})
	if err == nil && first {
		s.log.InfoContext(ctx, "hostname verified", "store", c.StoreID.String(), "hostname", c.Hostname)
	}
	return err
}

// recordFault records the fault of a check that the owner requested. Such a check never
// unmaps a verified hostname.
func (s *Service) recordFault(ctx context.Context, p authz.Principal, c claim, fault VerificationFault) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE hostname_claims SET checked_at = $4, fault = $5
			WHERE store_id = $1 AND hostname = $2 AND token = $3`, c.StoreID, c.Hostname, c.Token, tx.Now, string(fault))
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.HostnameVerified, Store: c.StoreID, Outcome: audit.Failed,
			Details: map[string]string{"hostname": c.Hostname, "fault": string(fault)}})
	})
}
