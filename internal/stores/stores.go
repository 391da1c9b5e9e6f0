// Package stores is the registry of stores and their lifecycle. It combines a store's
// rows in the master database with the profile in the store's own database.
package stores

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
	"github.com/stoahq/stoa/internal/traffic"
)

// Status is a state of the store's lifecycle:
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

// Store is one store as one of its members sees it. Database and Credits may be
// nil in results that do not read them. Profile is nil until the store is active,
// and while its database is unreachable.
type Store struct {
	ID        stoa.StoreID
	Name      string
	Slug      string
	Status    Status
	Role      authz.Role
	CreatedAt time.Time
	UpdatedAt time.Time

	DeleteAfter         *time.Time // when a store that is being deleted will be deleted, or a deleted store was
	SuspendedByOperator bool       `db:"held"` // its owner cannot resume it

	StatusBefore *Status // of a store that is being deleted

	Hostnames []hostnames.Hostname `db:"-"`
	Database  *tenantdb.Info       `db:"-"`
	Credits   *credits.Balance     `db:"-"`
	Profile   *storedata.Profile   `db:"-"`
}

// Registry manages all stores. It is safe for concurrent use.
type Registry struct {
	db        *masterdb.DB
	ledger    *credits.Ledger
	tenants   *tenantdb.Manager
	managed   *managed.Databases
	queue     *jobs.Queue
	hostnames *hostnames.Service
	cloud     *link.Service    // see UseCloud
	traffic   *traffic.Service // see CountTraffic; nil: nothing is counted
	quotas    quotas.Limits    // see UseQuotas
	grace     time.Duration    // see KeepDeleted
	keepSlugs time.Duration    // see KeepSlugs
	log       *slog.Logger
}

// New returns a registry of stores, which answer at names of the hostname
// service.
func New(db *masterdb.DB, ledger *credits.Ledger, tenants *tenantdb.Manager, queue *jobs.Queue, hosts *hostnames.Service, log *slog.Logger) *Registry {
	return &Registry{
		db: db, ledger: ledger, tenants: tenants, managed: managed.New(db, tenants), queue: queue, hostnames: hosts,
		grace: DefaultGrace, keepSlugs: DefaultKeepSlugs, log: log,
	}
}

// UseCloud sets the service that determines the fault of the Supabase project of a store
// whose database is unreachable. Call it before the registry is in use.
func (r *Registry) UseCloud(c *link.Service) { r.cloud = c }

// CountTraffic sets the service that counts the requests of shoppers. Call it before the
// registry is in use.
func (r *Registry) CountTraffic(t *traffic.Service) { r.traffic = t }

// UseQuotas sets how many stores a user may have. Call it before the registry is
// in use.
func (r *Registry) UseQuotas(l quotas.Limits) { r.quotas = l }

// Resolve returns the store that answers at host, a Host header. It fails with
// store_not_found for an unknown name, and with store_suspended or
// store_pending_database when the store is not open.
func (r *Registry) Resolve(ctx context.Context, host string) (hostnames.Resolution, error) {
	found, err := r.hostnames.Resolve(ctx, host)
	if err != nil {
		return hostnames.Resolution{}, err
	}
	switch Status(found.Status) {
	case Active:
		return found, nil
	case Suspended, Deleting:
		return hostnames.Resolution{}, stoa.Errorf(stoa.StoreSuspended, "This store is closed at the moment.")
	case PendingDatabase, Provisioning:
		return hostnames.Resolution{}, stoa.Errorf(stoa.StorePendingDatabase, "This store is being set up.")
	case Deleted:
	}
	return hostnames.Resolution{}, hostnames.ErrUnknown()
}

// Answers reports whether a store, open or not, answers at host, and so whether to obtain
// a certificate for that name. It uses the cache of Resolve.
func (r *Registry) Answers(ctx context.Context, host string) (bool, error) {
	found, err := r.hostnames.Resolve(ctx, host)
	if stoa.CodeOf(err) == stoa.StoreNotFound {
		return false, nil
	}
	return err == nil && Status(found.Status) != Deleted, err
}

// Get returns the store with all its details. A tenant database that cannot be
// read does not fail the call: Profile is nil and Database.Status is failed.
func (r *Registry) Get(ctx context.Context, p authz.Principal, id stoa.StoreID) (Store, error) {
	return r.GetWith(ctx, p, id)
}

// GetWith is Get, and sends the queries in the same round trip as its own. What they have
// found must not be used when it fails.
func (r *Registry) GetWith(ctx context.Context, p authz.Principal, id stoa.StoreID, queries ...masterdb.Query) (Store, error) {
	s, err := r.read(ctx, p, id, queries...)
	if err != nil {
		return Store{}, err
	}
	if !s.hasUsableDatabase() {
		return s, nil
	}
	return s, r.addProfile(ctx, &s)
}

// hasUsableDatabase reports whether the store has been active. Before that its
// credentials may be for any database.
func (s Store) hasUsableDatabase() bool {
	status := s.Status
	if s.StatusBefore != nil {
		status = *s.StatusBefore
	}
	return status == Active || status == Suspended
}

// read returns the master's data about the store, for a caller who may read it.
func (r *Registry) read(ctx context.Context, p authz.Principal, id stoa.StoreID, queries ...masterdb.Query) (Store, error) {
	var found details
	role, err := authz.CheckWith(ctx, r.db, p, id, authz.ReadStore, append(found.queries(id), queries...)...)
	if err != nil {
		return Store{}, err
	}
	return found.as(role), nil
}

// readAs returns the master's data about the store, for a caller whose role was checked.
func (r *Registry) readAs(ctx context.Context, role authz.Role, id stoa.StoreID) (Store, error) {
	var found details
	if err := r.db.Batch(ctx, found.queries(id)...); err != nil {
		return Store{}, err
	}
	return found.as(role), nil
}

// details are the master's rows of one store.
type details struct {
	store     Store
	hostnames hostnames.Selection
	databases []*tenantdb.Info
	balance   credits.Balance
}

func (d *details) queries(id stoa.StoreID) []masterdb.Query {
	return append(d.hostnames.Queries(` WHERE x.store_id = $1`, id),
		masterdb.One(&d.store, `
			SELECT id, name, slug, status, created_at, updated_at, delete_after, held, status_before FROM stores WHERE id = $1`, id),
		tenantdb.InfoQuery(&d.databases, id),
		credits.BalanceQuery(&d.balance, id))
}

// as returns the store as it is for a member with this role.
func (d *details) as(role authz.Role) Store {
	s := d.store
	s.Role, s.Hostnames, s.Credits = role, d.hostnames.Hostnames(), &d.balance
	if len(d.databases) > 0 {
		s.Database = d.databases[0]
	}
	return s
}

// addProfile reads the profile from the store's own database and records that database's
// health if it has changed. An unreachable or damaged database is the merchant's to
// repair and does not fail the call.
func (r *Registry) addProfile(ctx context.Context, s *Store) error {
	profile, cause := r.readProfile(ctx, s.ID)
	switch {
	case cause == nil:
		s.Profile = &profile
	case ctx.Err() != nil:
		return ctx.Err() // the caller has left, which says nothing about the database's health
	case tenantdb.IsBusy(cause):
		return cause
	default:
		r.log.WarnContext(ctx, "tenant database unavailable", "store", s.ID.String(), "err", cause)
		if s.Database != nil && s.Database.Kind == credential.KindSupabase {
			if fault := r.cloud.ProjectFault(ctx, s.ID, cause); fault != nil {
				cause = fault
			}
		}
	}
	return r.recordHealth(ctx, s, cause)
}

// recordHealth records the result of a use of the store's database, unless it is already
// recorded. A nil cause means success.
func (r *Registry) recordHealth(ctx context.Context, s *Store, cause error) error {
	status := tenantdb.StatusOK
	if cause != nil {
		status = tenantdb.StatusFailed
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

func (r *Registry) readProfile(ctx context.Context, id stoa.StoreID) (storedata.Profile, error) {
	lease, err := r.tenants.Acquire(ctx, id)
	if err != nil {
		return storedata.Profile{}, err
	}
	defer lease.Release()
	return storedata.ReadProfile(ctx, lease.DB, id)
}

// Page is one page of a list of stores, newest first.
type Page struct {
	Stores     []Store
	NextCursor *string
}

// List returns the caller's stores with hostnames, database and credits but without
// profiles, since a list must not open a database for each row. limit is 1 to
// page.MaxLimit, or 0 for page.DefaultLimit. cursor is NextCursor of the previous page.
// It fails with invalid_request.
func (r *Registry) List(ctx context.Context, p authz.Principal, limit int, cursor string) (Page, error) {
	return r.ListWith(ctx, p, limit, cursor)
}

// pageOfStores selects the identifiers of a page: $1 is the user, $2 the identifier before
// which it begins, $3 how many, $4 the only store, or empty.
const pageOfStores = `SELECT m.store_id FROM store_members m JOIN stores s ON s.id = m.store_id
	WHERE m.user_id = $1 AND m.store_id < $2 AND s.status <> 'deleted' AND ($4 = '' OR CAST(m.store_id AS text) = $4)
	ORDER BY m.store_id DESC LIMIT $3`

// ListWith is List, and sends the queries in the same round trip.
func (r *Registry) ListWith(ctx context.Context, p authz.Principal, limit int, cursor string, queries ...masterdb.Query) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.StoreID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	// An API key belongs to one store.
	if err := p.Within(p.Key.StoreID, authz.ReadStore); err != nil {
		return Page{}, err
	}
	only := ""
	if p.IsKey() {
		only = p.Key.StoreID.String()
	}
	args := []any{p.UserID, bounds.Before, bounds.Rows(), only}
	var list []Store
	var found pageDetails
	queries = append(queries, masterdb.All(&list, `
		SELECT s.id, s.name, s.slug, s.status, m.role, s.created_at, s.updated_at, s.delete_after, s.held
		FROM (`+pageOfStores+`) page JOIN stores s ON s.id = page.store_id JOIN store_members m ON m.store_id = s.id AND m.user_id = $1
		ORDER BY s.id DESC`, args...))
	queries = append(queries, found.queries(` JOIN (`+pageOfStores+`) page ON page.store_id = x.store_id WHERE true`, args...)...)
	if err := r.db.Batch(ctx, queries...); err != nil {
		return Page{}, err
	}
	list, next := page.Cut(list, bounds.Limit, Store.cursor)
	found.addTo(list)
	r.addUnreachable(list)
	return Page{Stores: list, NextCursor: next}, nil
}

func (s Store) cursor() string { return s.ID.String() }

// addUnreachable marks the stores whose databases the connection manager currently
// refuses to open. That is newer than the recorded health.
func (r *Registry) addUnreachable(page []Store) {
	for _, s := range page {
		if cause := r.tenants.Refusing(s.ID); s.Database != nil && cause != nil {
			s.Database.Status, s.Database.LastError = tenantdb.StatusFailed, tenantdb.HealthCode(cause)
		}
	}
}

// pageDetails are the hostnames, databases and balances of some stores.
type pageDetails struct {
	hostnames hostnames.Selection
	databases []struct {
		StoreID stoa.StoreID
		tenantdb.Info
	}
	balances []credits.Balance
}

// queries returns the queries for the details that a condition on a table x selects. Their
// number does not depend on the number of stores.
func (d *pageDetails) queries(condition string, args ...any) []masterdb.Query {
	return append(d.hostnames.Queries(condition, args...),
		masterdb.All(&d.databases, `SELECT x.store_id, `+tenantdb.InfoColumns+` FROM store_databases x`+condition, args...),
		masterdb.All(&d.balances, `SELECT x.store_id, x.balance, x.reserved, x.debt, x.lifetime_purchased,
			x.lifetime_spent, x.updated_at FROM credit_balances x`+condition, args...))
}

// addDetails adds the details of some stores, which a condition on a table x selects.
func addDetails(ctx context.Context, q masterdb.Querier, list []Store, condition string, args ...any) error {
	var found pageDetails
	err := q.Batch(ctx, found.queries(condition, args...)...)
	found.addTo(list)
	return err
}

// addTo adds to each store of a page its details. Those of other stores are ignored.
func (d *pageDetails) addTo(page []Store) {
	at := make(map[stoa.StoreID]*Store, len(page))
	for i := range page {
		at[page[i].ID] = &page[i]
	}
	for _, h := range d.hostnames.Hostnames() {
		if s := at[h.StoreID]; s != nil {
			s.Hostnames = append(s.Hostnames, h)
		}
	}
	for i := range d.databases {
		if s := at[d.databases[i].StoreID]; s != nil {
			s.Database = &d.databases[i].Info
		}
	}
	for i := range d.balances {
		if s := at[d.balances[i].StoreID]; s != nil {
			s.Credits = &d.balances[i]
		}
	}
}
