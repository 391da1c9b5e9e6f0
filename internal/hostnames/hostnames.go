// Package hostnames determines which store answers at which hostname. It manages the
// names below the platform's domain, claims to custom hostnames and their verification in
// the DNS, and the resolution of a Host header to a store.
//
// A store answers at a custom hostname once its owner has proved in the DNS that they
// control the name. Before that the store has a claim to the name. Several stores may
// claim one name; the first one to verify it gets it.
package hostnames

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Hostname is a name at which a store answers, or will answer once its owner has verified
// it.
type Hostname struct {
	StoreID    stoa.StoreID
	Hostname   string
	Primary    bool `db:"is_primary"`
	Custom     bool
	VerifiedAt *time.Time
}

// Service manages the hostnames of all stores. It is safe for concurrent use.
type Service struct {
	db       *masterdb.DB
	domain   string // in lower case; stores answer at <slug>.<domain>
	dns      dnsChecker
	platform platform
	quota    int // custom hostnames of one store; 0 means no limit
	resolver *resolver
	log      *slog.Logger
}

// New returns a service for a platform whose stores answer at <slug>.<domain>.
func New(db *masterdb.DB, domain string, log *slog.Logger) *Service {
	s := &Service{db: db, domain: strings.ToLower(domain), dns: newDNSChecker(""), resolver: newResolver(db), log: log}
	db.Subscribe(ChangeTopic, s.changed, s.resolver.invalidateAll)
	return s
}

// LimitPerStore sets how many custom hostnames a store may have; 0 means no limit. Call
// it before the service is in use.
func (s *Service) LimitPerStore(n int) { s.quota = n }

// UseDNS sets the DNS server, as host:port, that verifies custom hostnames; ""
// means the system's servers. Call it before the service is in use.
func (s *Service) UseDNS(server string) { s.dns = newDNSChecker(server) }

// SetMaxStale sets the maximum age of a cached resolution, which is used while
// the master database is unreachable. Call it before the service is in use.
func (s *Service) SetMaxStale(d time.Duration) { s.resolver.maxStale = d }

// StaleLookups returns how many lookups were answered from the cache because the
// master database gave no answer.
func (s *Service) StaleLookups() uint64 { return s.resolver.stale.Load() }

// Resolve returns the store at host, a Host header, in any state of the store. It fails
// with store_not_found for an unknown name.
func (s *Service) Resolve(ctx context.Context, host string) (Resolution, error) {
	return s.resolver.lookup(ctx, host)
}

// ErrUnknown returns the error for a name at which no store answers.
func ErrUnknown() error { return stoa.Errorf(stoa.StoreNotFound, "No store answers at this address.") }

// Select returns the hostnames of stores: first those that are mapped to a store, with
// the primary one of each first, then the claims that are not verified. condition is SQL
// that follows a table of hostnames with the alias x, such as " WHERE x.store_id = $1".
func Select(ctx context.Context, q masterdb.Querier, condition string, args ...any) ([]Hostname, error) {
	var found Selection
	err := q.Batch(ctx, found.Queries(condition, args...)...)
	return found.Hostnames(), err
}

// Selection is what Select finds, for callers that send its queries together with others.
type Selection struct{ mapped, claimed []Hostname }

// Queries returns the queries of Select. Once they have been sent, Hostnames has the result.
func (s *Selection) Queries(condition string, args ...any) []masterdb.Query {
	return []masterdb.Query{
		masterdb.All(&s.mapped, `SELECT x.store_id, x.hostname, x.is_primary, x.custom, x.verified_at
			FROM store_hostnames x`+condition+` ORDER BY x.is_primary DESC, x.created_at, x.hostname`, args...),
		masterdb.All(&s.claimed, `SELECT x.store_id, x.hostname, false AS is_primary, true AS custom FROM hostname_claims x`+condition+
			` AND NOT EXISTS (SELECT 1 FROM store_hostnames h WHERE h.hostname = x.hostname AND h.store_id = x.store_id)
			ORDER BY x.created_at, x.hostname`, args...),
	}
}

// Hostnames returns what the queries have found.
func (s *Selection) Hostnames() []Hostname { return append(s.mapped, s.claimed...) }

// MapSlug gives the store the hostname <slug>.<domain>, which replaces an earlier one. It
// becomes the primary one unless the owner has chosen another. The caller has locked the
// store. An error for which masterdb.IsUnique holds means that another store answers
// there.
func (s *Service) MapSlug(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID, slug string) error {
	hostname := slug + "." + s.domain
	n, err := tx.Exec(ctx, `UPDATE store_hostnames SET hostname = $2 WHERE store_id = $1 AND NOT custom`, id, hostname)
	if err == nil && n == 0 {
		_, err = tx.Exec(ctx, `INSERT INTO store_hostnames (hostname, store_id, is_primary, custom, verified_at, created_at)
			VALUES ($1, $2, NOT EXISTS (SELECT 1 FROM store_hostnames WHERE store_id = $2 AND is_primary), false, $3, $3)`, hostname, id, tx.Now)
	}
	if err != nil {
		return err
	}
	return NotifyChange(tx, id)
}

// Release deletes the store's hostnames and claims, so that other stores can use them.
// The caller notifies the change.
func Release(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	if _, err := tx.Exec(ctx, `DELETE FROM hostname_claims WHERE store_id = $1`, id); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `DELETE FROM store_hostnames WHERE store_id = $1`, id)
	return err
}

// ChangeTopic is the notification topic for changes of a store's state or
// hostnames. The payload is the store's id.
const ChangeTopic = "stoa_stores"

// NotifyChange announces that the store's state or hostnames change. Call it in every
// transaction that changes them: after the commit no replica uses a resolution that it
// cached before.
func NotifyChange(tx *masterdb.Tx, id stoa.StoreID) error {
	return tx.Notify(ChangeTopic, id.String())
}

// changed handles a notification from this replica or another.
func (s *Service) changed(payload string) {
	id, err := stoa.ParseID[stoa.StoreID](payload)
	if err != nil {
		s.log.Warn("notification without a store's id", "topic", ChangeTopic, "err", err)
		return
	}
	s.resolver.invalidate(id)
}

// lockStore locks the store's row until tx ends and returns its state.
func lockStore(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) (status string, err error) {
	err = tx.Get(ctx, &status, `SELECT status FROM stores WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return "", authz.ErrStoreNotFound()
	}
	return status, err
}

// lockPresentStore locks the store as lockStore does. It fails for a store that is
// deleted or being deleted. A hostname can be prepared before the store has a database.
func lockPresentStore(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	status, err := lockStore(ctx, tx, id)
	switch {
	case err != nil:
		return err
	case status == "deleting":
		return stoa.Errorf(stoa.StoreSuspended, "This store is being deleted. Restore it first.")
	case status == "deleted":
		return authz.ErrStoreNotFound()
	}
	return nil
}
