package hostnames

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
)

// claimLifetime is how long a claim can be verified.
const claimLifetime = 7 * 24 * time.Hour

// Details is a hostname with the data that its owner needs to set it up.
type Details struct {
	Hostname
	CreatedAt    time.Time
	PointTo      string        // the store's hostname below the platform's domain, to which the name should point
	Verification *Verification `db:"-"` // of a custom hostname
}

// Verification is the state of a custom hostname's verification.
type Verification struct {
	Token     string
	ExpiresAt *time.Time // of a claim that is not verified
	CheckedAt *time.Time
	Fault     VerificationFault // of the last check
	Misses    int               // daily checks in a row that did not find the record
}

// RecordName returns the name of the TXT record that verifies the hostname.
func (d Details) RecordName() string { return recordLabel + "." + d.Hostname.Hostname }

// RecordValue returns the text of the TXT record that verifies the hostname, or
// "" for a hostname that needs no verification.
func (d Details) RecordValue() string {
	if d.Verification == nil {
		return ""
	}
	return recordPrefix + d.Verification.Token
}

// List returns the store's hostnames, the primary one first and those that are
// not verified last.
func (s *Service) List(ctx context.Context, p authz.Principal, id stoa.StoreID) ([]Details, error) {
	if _, err := authz.Check(ctx, s.db, p, id, authz.ReadStore); err != nil {
		return nil, err
	}
	return ReadDetails(ctx, s.db, id, s.domain)
}

// Claim creates a claim of the store to a hostname. The claim is valid for a week, in
// which the owner verifies it with the record that the result contains. A repeated call
// returns the same record and extends the claim to another week. created reports whether
// the claim is new. It fails with hostname_invalid, and with quota_exceeded for a store
// that has as many custom hostnames, verified or not, as allowed.
func (s *Service) Claim(ctx context.Context, p authz.Principal, id stoa.StoreID, given string) (d Details, created bool, err error) {
	if _, err := authz.Check(ctx, s.db, p, id, authz.ManageHostnames); err != nil {
		return d, false, err
	}
	name, err := s.validate(given)
	if err != nil {
		return d, false, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := lockPresentStore(ctx, tx, id); err != nil {
			return err
		}
		if created, err = s.insertClaim(ctx, tx, id, name); err != nil || !created {
			return err
		}
		return recordEvent(ctx, tx, p, audit.HostnameClaimed, id, name)
	})
	if err != nil {
		return d, false, err
	}
	if created {
		s.log.InfoContext(ctx, "hostname claimed", "store", id.String(), "hostname", name, "user", p.UserID.String())
	}
	d, err = s.read(ctx, id, name)
	return d, created, err
}

// recordEvent writes an event of a hostname to the audit log.
func recordEvent(ctx context.Context, tx *masterdb.Tx, by authz.Principal, action string, id stoa.StoreID, name string) error {
	return audit.Record(ctx, tx, by, audit.Event{Action: action, Store: id, Details: map[string]string{"hostname": name}})
}

// insertClaim inserts a claim or extends the one that exists. The caller has
// locked the store.
func (s *Service) insertClaim(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, name string) (created bool, err error) {
	_, err = readClaim(ctx, tx, id, name)
	if stoa.CodeOf(err) != stoa.NotFound {
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = $3
				WHERE store_id = $1 AND hostname = $2 AND expires_at IS NOT NULL`, id, name, tx.Now.Add(claimLifetime))
		}
		return false, err
	}
	var count int
	if err := tx.Get(ctx, &count, `SELECT count(*) FROM hostname_claims WHERE store_id = $1`, id); err != nil {
		return false, err
	}
	if quotas.Exceeded(s.quota, count) {
		return false, quotas.Error(quotas.Hostnames, s.quota, count,
			"This store has %d custom hostnames, and %d are allowed. Remove one first.", count, s.quota)
	}
	_, err = tx.Exec(ctx, `INSERT INTO hostname_claims (store_id, hostname, token, created_at, expires_at, check_after)
		VALUES ($1, $2, $3, $4, $5, $4)`, id, name, strings.ToLower(rand.Text()), tx.Now, tx.Now.Add(claimLifetime))
	return err == nil, err
}

// MakePrimary sets the store's primary hostname, under which the store is shown. It fails
// with not_found, and with hostname_invalid for a hostname that is not verified.
func (s *Service) MakePrimary(ctx context.Context, p authz.Principal, id stoa.StoreID, given string) (Details, error) {
	name, err := s.authorize(ctx, p, id, given)
	if err != nil {
		return Details{}, err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := lockPresentStore(ctx, tx, id); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE store_hostnames SET is_primary = false WHERE store_id = $1 AND is_primary AND hostname <> $2`, id, name)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE store_hostnames SET is_primary = true
			WHERE store_id = $1 AND hostname = $2 AND verified_at IS NOT NULL`, id, name)
		if err != nil {
			return err
		}
		if n == 0 { // the error rolls back the first statement
			if _, err := readClaim(ctx, tx, id, name); err != nil {
				return err
			}
			return stoa.Errorf(stoa.HostnameInvalid, "%s is not verified yet. Verify it first.", name)
		}
		if err := recordEvent(ctx, tx, p, audit.HostnamePrimary, id, name); err != nil {
			return err
		}
		return NotifyChange(tx, id)
	})
	if err != nil {
		return Details{}, err
	}
	s.log.InfoContext(ctx, "hostname made primary", "store", id.String(), "hostname", name, "user", p.UserID.String())
	return s.read(ctx, id, name)
}

// Remove deletes a custom hostname, verified or not. The store no longer answers there,
// and another store can claim the name. It fails with not_found, and with
// hostname_invalid for the store's hostname below the platform's domain.
func (s *Service) Remove(ctx context.Context, p authz.Principal, id stoa.StoreID, given string) error {
	name, err := s.authorize(ctx, p, id, given)
	if err != nil {
		return err
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockStore(ctx, tx, id); err != nil {
			return err
		}
		unmapped, err := unmap(ctx, tx, id, name)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM hostname_claims WHERE store_id = $1 AND hostname = $2`, id, name)
		if err != nil {
			return err
		}
		if n > 0 || unmapped {
			return recordEvent(ctx, tx, p, audit.HostnameRemoved, id, name)
		}
		if mapped, err := isMapped(ctx, tx, id, name); err != nil || !mapped {
			return cmp.Or(err, errNotFound())
		}
		return stoa.Errorf(stoa.HostnameInvalid, "This is the store's address on the platform. It stays, and follows the store's slug.")
	})
	if err == nil {
		s.log.InfoContext(ctx, "hostname removed", "store", id.String(), "hostname", name, "user", p.UserID.String())
	}
	return err
}

// authorize checks that the caller may manage the store's hostnames. It returns the given
// hostname in stored form.
func (s *Service) authorize(ctx context.Context, p authz.Principal, id stoa.StoreID, given string) (string, error) {
	if _, err := authz.Check(ctx, s.db, p, id, authz.ManageHostnames); err != nil {
		return "", err
	}
	name, err := Normalize(given)
	if err != nil {
		return "", errNotFound()
	}
	return name, nil
}

func errNotFound() error {
	return stoa.Errorf(stoa.NotFound, "This store has no such hostname. List its hostnames to see those it has.")
}

// unmap deletes the mapping of a custom hostname to the store and reports
// whether there was one. The caller has locked the store.
func unmap(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, name string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM store_hostnames WHERE store_id = $1 AND hostname = $2 AND custom`, id, name)
	if err != nil || n == 0 {
		return false, err
	}
	_, err = tx.Exec(ctx, `UPDATE store_hostnames SET is_primary = true WHERE store_id = $1 AND NOT custom
		AND NOT EXISTS (SELECT 1 FROM store_hostnames WHERE store_id = $1 AND is_primary)`, id)
	if err != nil {
		return false, err
	}
	return true, NotifyChange(tx, id)
}

// isMapped reports whether the hostname is mapped to the store.
func isMapped(ctx context.Context, q masterdb.Querier, id stoa.StoreID, name string) (bool, error) {
	var n int
	err := q.Get(ctx, &n, `SELECT count(*) FROM store_hostnames WHERE store_id = $1 AND hostname = $2`, id, name)
	return n > 0, err
}

// ReadDetails returns the store's hostnames with their verification. Hostnames that are
// not verified are last. domain is the platform's. It checks no permissions.
func ReadDetails(ctx context.Context, q masterdb.Querier, id stoa.StoreID, domain string) ([]Details, error) {
	var slug string
	var all []Details
	var claims []struct {
		Hostname  string
		CreatedAt time.Time
		Fault     *VerificationFault
		Verification
	}
	err := q.Batch(ctx, masterdb.One(&slug, `SELECT slug FROM stores WHERE id = $1`, id),
		masterdb.All(&all, `SELECT store_id, hostname, is_primary, custom, verified_at, created_at FROM store_hostnames
			WHERE store_id = $1 ORDER BY is_primary DESC, created_at, hostname`, id),
		masterdb.All(&claims, `SELECT hostname, created_at, token, expires_at, checked_at, fault, misses FROM hostname_claims
			WHERE store_id = $1 ORDER BY created_at, hostname`, id))
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, authz.ErrStoreNotFound()
	}
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.Fault != nil {
			c.Verification.Fault = *c.Fault
		}
		at := indexOf(all, c.Hostname)
		if at < 0 {
			at = len(all)
			all = append(all, Details{Hostname: Hostname{StoreID: id, Hostname: c.Hostname, Custom: true}, CreatedAt: c.CreatedAt})
		}
		all[at].Verification = &c.Verification
	}
	for i := range all {
		all[i].PointTo = slug + "." + strings.ToLower(domain)
	}
	return all, nil
}

func indexOf(all []Details, name string) int {
	return slices.IndexFunc(all, func(d Details) bool { return d.Hostname.Hostname == name })
}

// read returns one hostname of the store, or not_found.
func (s *Service) read(ctx context.Context, id stoa.StoreID, name string) (Details, error) {
	all, err := ReadDetails(ctx, s.db, id, s.domain)
	if err != nil {
		return Details{}, err
	}
	at := indexOf(all, name)
	if at < 0 {
		return Details{}, errNotFound()
	}
	return all[at], nil
}

// claim is a row of hostname_claims.
type claim struct {
	StoreID  stoa.StoreID
	Hostname string
	Token    string
}

func readClaim(ctx context.Context, q masterdb.Querier, id stoa.StoreID, name string) (claim, error) {
	var c claim
	err := q.Get(ctx, &c, `SELECT store_id, hostname, token FROM hostname_claims WHERE store_id = $1 AND hostname = $2`, id, name)
	if errors.Is(err, masterdb.ErrNotFound) {
		return c, errNotFound()
	}
	return c, err
}
