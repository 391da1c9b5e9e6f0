// Package stores is the registry of stores: their lifecycle, hostnames and
// how a hostname leads to a store. It joins what the master knows of a store
// with the profile that lives in the store's own database.
package stores

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/cloud"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/page"
	"github.com/stoahq/stoa/quotas"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Status is where a store is in its life:
// pending_database → provisioning → active ⇄ suspended → deleting → deleted.
type Status string

// The states of a store.
const (
	PendingDatabase Status = "pending_database"
	Provisioning    Status = "provisioning"
	Active          Status = "active"
	Suspended       Status = "suspended"
	Deleting        Status = "deleting"
	Deleted         Status = "deleted"
)

// Store is what the platform knows of one store, as one of its members sees
// it. Database and Credits may be nil in places that do not read them;
// Profile is nil until the store is active, and while its database is down.
type Store struct {
	ID        stoa.StoreID
	Name      string
	Slug      string
	Status    Status
	Role      access.Role
	CreatedAt time.Time
	UpdatedAt time.Time

	DeleteAfter *time.Time // when a store that is being deleted will be gone, or a deleted one went
	Held        bool       // suspended by the operator: its owner cannot resume it

	StatusBefore *Status // of a store that is being deleted

	Hostnames []Hostname       `db:"-"`
	Database  *tenantdb.Info   `db:"-"`
	Credits   *credits.Balance `db:"-"`
	Profile   *shop.Profile    `db:"-"`
}

// Registry knows every store.
type Registry struct {
	db       *masterdb.DB
	ledger   *credits.Ledger
	tenants  *tenantdb.Manager
	queue    *jobs.Queue
	resolver *Resolver
	domain   string
	grace    time.Duration // see KeepDeleted
	dns      dns
	platform platform      // see ServePlatformAt
	quotas   quotas.Limits // see UseQuotas

	keepSlugs time.Duration
	cloud     *cloud.Service // see UseCloud
	log       *slog.Logger
}

// New returns a registry whose stores live at <slug>.<domain>.
func New(db *masterdb.DB, ledger *credits.Ledger, tenants *tenantdb.Manager, queue *jobs.Queue, domain string, log *slog.Logger) *Registry {
	r := &Registry{
		db: db, ledger: ledger, tenants: tenants, queue: queue, resolver: newResolver(db),
		domain: domain, grace: DefaultGrace, keepSlugs: DefaultKeepSlugs, dns: newDNS(""), log: log,
	}
	db.Subscribe(ChangeTopic, r.changed, r.resolver.forgetAll)
	return r
}

// UseCloud lets the registry find out what is wrong with the Supabase project
// of a store whose database is down. It is for the time before the registry is
// used.
func (r *Registry) UseCloud(c *cloud.Service) { r.cloud = c }

// UseQuotas sets how many stores a user may have, and how many custom
// hostnames a store. It is for the time before the registry is used.
func (r *Registry) UseQuotas(l quotas.Limits) { r.quotas = l }

// ServeStale sets the maximum age of a cached hostname, which is used while the
// master database is unreachable. Call it before the registry is used.
func (r *Registry) ServeStale(d time.Duration) { r.resolver.maxStale = d }

// StaleLookups returns how many lookups were answered from the cache because the
// master database gave no answer.
func (r *Registry) StaleLookups() uint64 { return r.resolver.stale.Load() }

// Get returns the store with all there is to know. A tenant database that
// cannot be read does not fail the call: Profile is nil and Database.Status
// is failed.
func (r *Registry) Get(ctx context.Context, p access.Principal, id stoa.StoreID) (Store, error) {
	s, err := r.read(ctx, p, id)
	if err != nil {
		return Store{}, err
	}
	if !s.worksWithDatabase() {
		return s, nil
	}
	return s, r.addProfile(ctx, &s)
}

// worksWithDatabase: before it was active for the first time, a store's
// credentials may lead to anybody's database.
func (s Store) worksWithDatabase() bool {
	status := s.Status
	if s.StatusBefore != nil {
		status = *s.StatusBefore
	}
	return status == Active || status == Suspended
}

// read returns what the master knows of the store.
func (r *Registry) read(ctx context.Context, p access.Principal, id stoa.StoreID) (Store, error) {
	role, err := access.Check(ctx, r.db, p, id, access.ReadStore)
	if err != nil {
		return Store{}, err
	}
	var s Store
	err = r.db.Get(ctx, &s, `
		SELECT id, name, slug, status, created_at, updated_at, delete_after, held, status_before FROM stores WHERE id = $1`, id)
	if err != nil {
		return Store{}, err
	}
	s.Role = role
	if s.Hostnames, err = readHostnames(ctx, r.db, id); err != nil {
		return Store{}, err
	}
	if s.Database, err = tenantdb.ReadInfo(ctx, r.db, id); err != nil {
		return Store{}, err
	}
	balance, err := r.ledger.ReadBalance(ctx, r.db, id)
	if err != nil {
		return Store{}, err
	}
	s.Credits = &balance
	return s, nil
}

// addProfile reads the profile from the store's own database and keeps the
// registry's note of that database's health in step with what it met. Down
// or in disorder, it is the merchant's to mend and does not fail the call.
func (r *Registry) addProfile(ctx context.Context, s *Store) error {
	profile, cause := r.readProfile(ctx, s.ID)
	status := tenantdb.StatusOK
	switch {
	case cause == nil:
		s.Profile = &profile
	case ctx.Err() != nil:
		return ctx.Err() // the caller has gone, which says nothing about the database
	case tenantdb.IsBusy(cause):
		return cause
	default:
		status = tenantdb.StatusFailed
		r.log.WarnContext(ctx, "tenant database unavailable", "store", s.ID.String(), "err", cause)
		if s.Database != nil && s.Database.Kind == tenantdb.KindSupabase {
			if fault := r.cloud.ProjectFault(ctx, s.ID, cause); fault != nil {
				cause = fault
			}
		}
	}
	if s.Database == nil || s.Database.Status == status && s.Database.LastError == tenantdb.HealthCode(cause) {
		return nil
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if err := tenantdb.RecordHealthOf(ctx, tx, s.ID, s.Database.CredentialVersion, cause); err != nil {
			return err
		}
		s.Database, err = tenantdb.ReadInfo(ctx, tx, s.ID)
		return err
	})
}

func (r *Registry) readProfile(ctx context.Context, id stoa.StoreID) (shop.Profile, error) {
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return shop.Profile{}, err
	}
	defer lease.Release()
	return shop.ReadProfile(ctx, lease.DB, id)
}

// Page is one page of a list of stores, newest first.
type Page struct {
	Stores     []Store
	NextCursor *string
}

// List returns the caller's stores with hostnames, database and credits but
// without profiles: a list must not open a database for each of its rows.
// Limit is 1 to page.MaxLimit, or 0 for page.DefaultLimit; cursor is NextCursor
// of the page before. It fails with invalid_request.
func (r *Registry) List(ctx context.Context, p access.Principal, limit int, cursor string) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.StoreID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	// An API key is of one store.
	if err := p.Within(p.Key.StoreID, access.ReadStore); err != nil {
		return Page{}, err
	}
	only := ""
	if p.IsKey() {
		only = p.Key.StoreID.String()
	}
	var list []Store
	err := r.db.Select(ctx, &list, `
		SELECT s.id, s.name, s.slug, s.status, m.role, s.created_at, s.updated_at, s.delete_after, s.held
		FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.user_id = $1 AND m.store_id < $2 AND s.status <> 'deleted' AND ($4 = '' OR CAST(m.store_id AS text) = $4)
		ORDER BY m.store_id DESC LIMIT $3`, p.UserID, bounds.Before, bounds.Rows(), only)
	if err != nil || len(list) == 0 {
		return Page{}, err
	}
	list, next := page.Cut(list, bounds.Limit, Store.cursor)
	err = addDetails(ctx, r.db, list, ` JOIN store_members m ON m.store_id = x.store_id AND m.user_id = $3`, p.UserID)
	r.addRefusals(list)
	return Page{Stores: list, NextCursor: next}, err
}

func (s Store) cursor() string { return s.ID.String() }

// addRefusals marks the stores whose callers are turned away: that is newer
// than what the registry has noted.
func (r *Registry) addRefusals(page []Store) {
	for _, s := range page {
		if cause := r.tenants.Refusing(s.ID); s.Database != nil && cause != nil {
			s.Database.Status, s.Database.LastError = tenantdb.StatusFailed, tenantdb.HealthCode(cause)
		}
	}
}

// addDetails fills a page, sorted by id descending, with four queries
// whatever its length. join, with its argument as $3, may leave out rows of
// stores between the first and the last.
func addDetails(ctx context.Context, q masterdb.Querier, page []Store, join string, args ...any) error {
	args = append([]any{page[0].ID, page[len(page)-1].ID}, args...)
	at := make(map[stoa.StoreID]*Store, len(page))
	for i := range page {
		at[page[i].ID] = &page[i]
	}
	between := ` x` + join + ` WHERE x.store_id <= $1 AND x.store_id >= $2`

	var hostnames []Hostname
	err := q.Select(ctx, &hostnames, `SELECT x.store_id, x.hostname, x.is_primary, x.custom, x.verified_at
		FROM store_hostnames`+between+` ORDER BY x.is_primary DESC, x.created_at, x.hostname`, args...)
	if err != nil {
		return err
	}
	var claimed []Hostname
	err = q.Select(ctx, &claimed, selectUnproven+between+` AND `+unproven+` ORDER BY x.created_at, x.hostname`, args...)
	if err != nil {
		return err
	}
	for _, h := range append(hostnames, claimed...) {
		if s := at[h.StoreID]; s != nil {
			s.Hostnames = append(s.Hostnames, h)
		}
	}
	var databases []struct {
		StoreID stoa.StoreID
		tenantdb.Info
	}
	err = q.Select(ctx, &databases, `SELECT x.store_id, `+tenantdb.InfoColumns+` FROM store_databases`+between, args...)
	if err != nil {
		return err
	}
	for i := range databases {
		if s := at[databases[i].StoreID]; s != nil {
			s.Database = &databases[i].Info
		}
	}
	var balances []credits.Balance
	err = q.Select(ctx, &balances, `SELECT x.store_id, x.balance, x.reserved, x.debt, x.lifetime_purchased,
		x.lifetime_spent, x.updated_at FROM credit_balances`+between, args...)
	if err != nil {
		return err
	}
	for i := range balances {
		if s := at[balances[i].StoreID]; s != nil {
			s.Credits = &balances[i]
		}
	}
	return nil
}
