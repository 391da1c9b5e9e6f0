package stores

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Counts describes all stores, as they were at one time.
type Counts struct {
	At       time.Time
	Expected tenantdb.Schema `json:"-"` // of this process
	Statuses []StatusCount   // in the order of the lifecycle, without deleted stores
	Versions []VersionCount  // of databases in use, the oldest first
	Servers  []ServerCount   // the one with the most databases first

	Behind           int `json:"-"` // databases in use whose schema is older than that of this process
	Unreachable      int // databases in use whose last use failed
	FailedMigrations int
	Slow, Failing    int // stores, by the requests of this hour and the one before

	Purchased, Spent, Balance credits.Amount // since the beginning, of stores that are not deleted
}

// StatusCount is the number of stores in one state.
type StatusCount struct {
	Status Status
	Stores int
}

// VersionCount is the number of databases at one version.
type VersionCount struct {
	Schema tenantdb.Schema
	Stores int
}

// ServerCount is the number of stores' databases on one server.
type ServerCount struct {
	Host      string // empty: embedded databases
	Port      int
	Engine    credential.EngineName
	Databases int
	Failed    int // whose last use failed
}

// Name returns the server as ListFilter.Server names it.
func (s ServerCount) Name() string {
	if s.Host == "" {
		return EmbeddedServer
	}
	return net.JoinHostPort(s.Host, strconv.Itoa(s.Port))
}

// CountStores is the job that counts the stores of a large fleet, so that no page has to.
type CountStores struct{}

// Kind implements jobs.Args.
func (CountStores) Kind() string { return "stores.count" }

const (
	// CountStoresEvery is the interval of the job.
	CountStoresEvery = 2 * time.Minute
	// CountStoresTimeout limits one execution.
	CountStoresTimeout = time.Minute
	// smallFleet is how many stores are counted when somebody asks.
	smallFleet = 1000
	// maxServers is the number of servers in Counts.
	maxServers = 200
)

// Counts returns the counts of all stores: of a small fleet the present ones, of a larger
// one those that the job made last, which is every two minutes. What it reads does not
// grow with the fleet. The caller must be an operator of the platform.
func (r *Registry) Counts(ctx context.Context, p authz.Principal) (Counts, error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil {
		return Counts{}, err
	}
	return r.readCounts(ctx)
}

func (r *Registry) readCounts(ctx context.Context) (Counts, error) {
	var stored string
	err := r.db.Get(ctx, &stored, `SELECT counts FROM store_counts`)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return Counts{}, err
	}
	var c Counts
	if err == nil {
		if err := json.Unmarshal([]byte(stored), &c); err != nil {
			return Counts{}, err
		}
	}
	if c.stores() <= smallFleet {
		if c, err = r.count(ctx); err != nil {
			return Counts{}, err
		}
	}
	c.compare(r.tenants.Expected())
	return c, nil
}

// stores returns the number of stores.
func (c *Counts) stores() (n int) {
	for _, s := range c.Statuses {
		n += s.Stores
	}
	return n
}

// count reads all stores.
func (r *Registry) count(ctx context.Context) (Counts, error) {
	c := Counts{At: r.db.Now()}
	err := r.db.Snapshot(ctx, func(q *masterdb.Tx) error { return c.load(ctx, q) })
	return c, err
}

// CountAll is the handler of the job. It stores the counts, unless newer ones are stored. A
// small fleet has none.
func (r *Registry) CountAll(ctx context.Context, _ CountStores) error {
	var large bool
	err := r.db.Get(ctx, &large, `SELECT EXISTS (SELECT 1 FROM stores WHERE status <> 'deleted' LIMIT 1 OFFSET $1) OR EXISTS (SELECT 1 FROM store_counts)`, smallFleet)
	if err != nil || !large {
		return err
	}
	c, err := r.count(ctx)
	if err != nil {
		return err
	}
	stored, err := json.Marshal(c)
	if err != nil {
		return err
	}
	return r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO store_counts (id, counts, counted_at) VALUES (1, $1, $2) ON CONFLICT (id) DO UPDATE
			SET counts = excluded.counts, counted_at = excluded.counted_at WHERE store_counts.counted_at <= excluded.counted_at`, string(stored), c.At)
		return err
	})
}

// compare sets what depends on the release of this process.
func (c *Counts) compare(expected tenantdb.Schema) {
	c.Expected = expected
	for _, v := range c.Versions {
		if v.Schema.Version < expected.Version || v.Schema.Own < expected.Own {
			c.Behind += v.Stores
		}
	}
}

// TenantStats returns the connections of this process to the stores' databases, with its
// limits. The caller must be an operator of the platform.
func (r *Registry) TenantStats(ctx context.Context, p authz.Principal) (tenantdb.Stats, tenantdb.Limits, error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil {
		return tenantdb.Stats{}, tenantdb.Limits{}, err
	}
	return r.tenants.Stats(), r.tenants.Limits(), nil
}

func (c *Counts) load(ctx context.Context, q masterdb.Querier) error {
	if err := c.loadStatuses(ctx, q); err != nil {
		return err
	}
	if err := c.loadVersions(ctx, q); err != nil {
		return err
	}
	err := q.Select(ctx, &c.Servers, `SELECT x.host, x.port, x.engine, count(*) AS databases, sum(CASE WHEN x.status = 'failed' THEN 1 ELSE 0 END) AS failed
		FROM store_databases x GROUP BY x.host, x.port, x.engine ORDER BY count(*) DESC, x.host, x.port, x.engine LIMIT $1`, maxServers)
	if err != nil {
		return err
	}
	var health struct{ Unreachable, FailedMigrations int }
	err = q.Get(ctx, &health, `SELECT coalesce(sum(CASE WHEN x.status = 'failed' THEN 1 ELSE 0 END), 0) AS unreachable,
			coalesce(sum(CASE WHEN x.migration_error IS NOT NULL THEN 1 ELSE 0 END), 0) AS failed_migrations
		FROM store_databases x JOIN stores s ON s.id = x.store_id
		WHERE s.status IN ('active', 'suspended') AND (x.status = 'failed' OR x.migration_error IS NOT NULL)`)
	if err != nil {
		return err
	}
	c.Unreachable, c.FailedMigrations = health.Unreachable, health.FailedMigrations
	if err := c.loadTraffic(ctx, q); err != nil {
		return err
	}
	var sums struct{ Purchased, Spent, Balance credits.Amount }
	// Deleted stores keep their balances.
	err = q.Get(ctx, &sums, `SELECT CAST(coalesce(sum(b.lifetime_purchased), 0) AS bigint) AS purchased, CAST(coalesce(sum(b.lifetime_spent), 0) AS bigint) AS spent,
		CAST(coalesce(sum(b.balance), 0) AS bigint) AS balance FROM stores s JOIN credit_balances b ON b.store_id = s.id
		WHERE s.status IN ('pending_database', 'provisioning', 'active', 'suspended', 'deleting')`)
	c.Purchased, c.Spent, c.Balance = sums.Purchased, sums.Spent, sums.Balance
	return err
}

func (c *Counts) loadStatuses(ctx context.Context, q masterdb.Querier) error {
	var rows []StatusCount
	if err := q.Select(ctx, &rows, `SELECT status, count(*) AS stores FROM stores WHERE status <> 'deleted' GROUP BY status`); err != nil {
		return err
	}
	for _, status := range Statuses {
		for _, row := range rows {
			if row.Status == status {
				c.Statuses = append(c.Statuses, row)
			}
		}
	}
	return nil
}

func (c *Counts) loadVersions(ctx context.Context, q masterdb.Querier) error {
	var rows []struct {
		SchemaVersion, OwnVersion int64
		Stores                    int
	}
	err := q.Select(ctx, &rows, `SELECT x.schema_version, x.own_version, count(*) AS stores
		FROM store_databases x JOIN stores s ON s.id = x.store_id WHERE s.status IN ('active', 'suspended')
		GROUP BY x.schema_version, x.own_version ORDER BY x.schema_version, x.own_version`)
	for _, row := range rows {
		c.Versions = append(c.Versions, VersionCount{Schema: tenantdb.Schema{Version: row.SchemaVersion, Own: row.OwnVersion}, Stores: row.Stores})
	}
	return err
}

func (c *Counts) loadTraffic(ctx context.Context, q masterdb.Querier) error {
	since := c.At.UTC().Truncate(time.Hour).Add(-time.Hour)
	err := q.Get(ctx, &c.Slow, `SELECT count(DISTINCT store_id) FROM store_traffic WHERE hour >= $1 AND total_ms >= `+slowMS+` * requests`, since)
	if err != nil {
		return err
	}
	return q.Get(ctx, &c.Failing, `SELECT count(DISTINCT store_id) FROM store_traffic WHERE hour >= $1 AND errors > 0`, since)
}
