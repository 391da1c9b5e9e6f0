package stores

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/quotas"
)

// A store answers at a hostname of its owner's once the owner has shown in
// the DNS that the name is theirs. Until then it has a claim to it, and other
// stores may have one too: whoever proves it first has the name.

// claimLife is how long a claim waits for its proof.
const claimLife = 7 * 24 * time.Hour

// HostnameDetails is a hostname with what its owner needs to put it to work.
type HostnameDetails struct {
	Hostname
	CreatedAt time.Time
	PointTo   string // the store's address on the platform, where the name should lead
	Proof     *Proof `db:"-"` // of a custom hostname
}

// Proof is what is to stand in the DNS and what was found there.
type Proof struct {
	Token     string
	ExpiresAt *time.Time // of a claim that is not proven
	CheckedAt *time.Time
	Fault     ProofFault // of the last check
	Misses    int        // daily checks in a row that did not find the record
}

// RecordName and RecordValue are the TXT record that proves the hostname.
func (h HostnameDetails) RecordName() string { return recordLabel + "." + h.Hostname.Hostname }

// RecordValue is the record's text, or "" for a hostname that needs no proof.
func (h HostnameDetails) RecordValue() string {
	if h.Proof == nil {
		return ""
	}
	return recordPrefix + h.Proof.Token
}

// Hostnames lists the store's hostnames, the primary one first and those not
// proven last.
func (r *Registry) Hostnames(ctx context.Context, p access.Principal, id stoa.StoreID) ([]HostnameDetails, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.ReadStore); err != nil {
		return nil, err
	}
	return readDetails(ctx, r.db, id, r.domain)
}

// ClaimHostname gives the store a claim to a hostname: to be proven with the
// record that the result names, within a week. Doing it again gives the same
// record and another week; made says whether the claim is new. It fails with
// hostname_invalid, and with quota_exceeded for a store that has as many
// custom hostnames, proven or not, as it may have.
func (r *Registry) ClaimHostname(ctx context.Context, p access.Principal, id stoa.StoreID, given string) (h HostnameDetails, made bool, err error) {
	if _, err := access.Check(ctx, r.db, p, id, access.ManageHostnames); err != nil {
		return h, false, err
	}
	name, err := r.customHostname(given)
	if err != nil {
		return h, false, err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := holdPresent(ctx, tx, id); err != nil {
			return err
		}
		if made, err = r.insertClaim(ctx, tx, id, name); err != nil || !made {
			return err
		}
		return recordHostname(ctx, tx, p, access.HostnameClaimed, id, name)
	})
	if err != nil {
		return h, false, err
	}
	if made {
		r.log.InfoContext(ctx, "hostname claimed", "store", id.String(), "hostname", name, "user", p.UserID.String())
	}
	h, err = r.hostname(ctx, id, name)
	return h, made, err
}

func recordHostname(ctx context.Context, tx *masterdb.Tx, by access.Principal, action string, id stoa.StoreID, name string) error {
	return access.Record(ctx, tx, by, access.Event{Action: action, Store: id, Details: map[string]string{"hostname": name}})
}

// holdPresent keeps the store as it is until tx ends, and refuses one that is
// on its way out.
func holdPresent(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStatus(ctx, tx, id)
	if err != nil {
		return err
	}
	switch status {
	case Deleting:
		return stoa.Errorf(stoa.StoreSuspended, "This store is being deleted. Restore it first.")
	case Deleted:
		return access.ErrStoreNotFound()
	case PendingDatabase, Provisioning, Active, Suspended: // a domain can be prepared before the store is
	}
	return nil
}

func (r *Registry) insertClaim(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, name string) (made bool, err error) {
	_, err = readClaim(ctx, tx, id, name)
	if stoa.CodeOf(err) != stoa.NotFound {
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE hostname_claims SET expires_at = $3
				WHERE store_id = $1 AND hostname = $2 AND expires_at IS NOT NULL`, id, name, tx.Now.Add(claimLife))
		}
		return false, err
	}
	var count int
	if err := tx.Get(ctx, &count, `SELECT count(*) FROM hostname_claims WHERE store_id = $1`, id); err != nil {
		return false, err
	}
	if quotas.Exceeded(r.quotas.Hostnames, count) {
		return false, quotas.Error(quotas.Hostnames, r.quotas.Hostnames, count,
			"This store has %d custom hostnames, and %d are allowed. Remove one first.", count, r.quotas.Hostnames)
	}
	_, err = tx.Exec(ctx, `INSERT INTO hostname_claims (store_id, hostname, token, created_at, expires_at, check_after)
		VALUES ($1, $2, $3, $4, $5, $4)`, id, name, strings.ToLower(rand.Text()), tx.Now, tx.Now.Add(claimLife))
	return err == nil, err
}

// MakePrimary makes one of the store's hostnames the one that it is shown
// under. It fails with not_found, and with hostname_invalid for one that is
// not proven.
func (r *Registry) MakePrimary(ctx context.Context, p access.Principal, id stoa.StoreID, given string) (HostnameDetails, error) {
	name, err := r.manage(ctx, p, id, given)
	if err != nil {
		return HostnameDetails{}, err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := holdPresent(ctx, tx, id); err != nil {
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
		if n == 0 { // the transaction takes the first statement back
			if _, err := readClaim(ctx, tx, id, name); err != nil {
				return err
			}
			return stoa.Errorf(stoa.HostnameInvalid, "%s is not verified yet. Verify it first.", name)
		}
		if err := recordHostname(ctx, tx, p, access.HostnamePrimary, id, name); err != nil {
			return err
		}
		return notify(tx, id)
	})
	if err != nil {
		return HostnameDetails{}, err
	}
	r.log.InfoContext(ctx, "hostname made primary", "store", id.String(), "hostname", name, "user", p.UserID.String())
	return r.hostname(ctx, id, name)
}

// RemoveHostname gives up a custom hostname, proven or not: the store answers
// there no more, and another may have it. It fails with not_found, and with
// hostname_invalid for the store's address on the platform.
func (r *Registry) RemoveHostname(ctx context.Context, p access.Principal, id stoa.StoreID, given string) error {
	name, err := r.manage(ctx, p, id, given)
	if err != nil {
		return err
	}
	err = r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockStatus(ctx, tx, id); err != nil {
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
			return recordHostname(ctx, tx, p, access.HostnameRemoved, id, name)
		}
		if owned, err := mapped(ctx, tx, id, name); err != nil || !owned {
			return cmp.Or(err, errNoHostname())
		}
		return stoa.Errorf(stoa.HostnameInvalid, "This is the store's address on the platform. It stays, and follows the store's slug.")
	})
	if err == nil {
		r.log.InfoContext(ctx, "hostname removed", "store", id.String(), "hostname", name, "user", p.UserID.String())
	}
	return err
}

// manage checks the caller's right and returns the name in stored form.
func (r *Registry) manage(ctx context.Context, p access.Principal, id stoa.StoreID, given string) (string, error) {
	if _, err := access.Check(ctx, r.db, p, id, access.ManageHostnames); err != nil {
		return "", err
	}
	name, err := NormalHostname(given)
	if err != nil {
		return "", errNoHostname()
	}
	return name, nil
}

func errNoHostname() error {
	return stoa.Errorf(stoa.NotFound, "This store has no such hostname. GET /api/stores/{id}/hostnames lists those it has.")
}

// unmap ends that the store answers at a custom hostname. The caller has
// locked the store.
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
	return true, notify(tx, id)
}

func mapped(ctx context.Context, q masterdb.Querier, id stoa.StoreID, name string) (bool, error) {
	var n int
	err := q.Get(ctx, &n, `SELECT count(*) FROM store_hostnames WHERE store_id = $1 AND hostname = $2`, id, name)
	return n > 0, err
}

// readDetails returns the store's hostnames, given the platform's domain.
func readDetails(ctx context.Context, q masterdb.Querier, id stoa.StoreID, domain string) ([]HostnameDetails, error) {
	identity, err := readIdentity(ctx, q, id)
	if err != nil {
		return nil, err
	}
	var all []HostnameDetails
	err = q.Select(ctx, &all, `SELECT store_id, hostname, is_primary, custom, verified_at, created_at FROM store_hostnames
		WHERE store_id = $1 ORDER BY is_primary DESC, created_at, hostname`, id)
	if err != nil {
		return nil, err
	}
	var claims []struct {
		Hostname  string
		CreatedAt time.Time
		Fault     *ProofFault
		Proof
	}
	err = q.Select(ctx, &claims, `SELECT hostname, created_at, token, expires_at, checked_at, fault, misses FROM hostname_claims
		WHERE store_id = $1 ORDER BY created_at, hostname`, id)
	if err != nil {
		return nil, err
	}
	for _, c := range claims {
		if c.Fault != nil {
			c.Proof.Fault = *c.Fault
		}
		at := slices.IndexFunc(all, func(h HostnameDetails) bool { return h.Hostname.Hostname == c.Hostname })
		if at < 0 {
			all = append(all, HostnameDetails{Hostname: Hostname{StoreID: id, Hostname: c.Hostname, Custom: true}, CreatedAt: c.CreatedAt})
			at = len(all) - 1
		}
		all[at].Proof = &c.Proof
	}
	for i := range all {
		all[i].PointTo = identity.Slug + "." + strings.ToLower(domain)
	}
	return all, nil
}

// hostname returns one hostname of the store, or not_found.
func (r *Registry) hostname(ctx context.Context, id stoa.StoreID, name string) (HostnameDetails, error) {
	all, err := readDetails(ctx, r.db, id, r.domain)
	if err != nil {
		return HostnameDetails{}, err
	}
	at := slices.IndexFunc(all, func(h HostnameDetails) bool { return h.Hostname.Hostname == name })
	if at < 0 {
		return HostnameDetails{}, errNoHostname()
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
		return c, errNoHostname()
	}
	return c, err
}
