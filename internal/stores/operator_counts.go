package stores

import (
	"context"
	"net"
	"strconv"
	"sync"
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
	Expected tenantdb.Schema // of this process
	Statuses []StatusCount   // in the order of the lifecycle, without deleted stores
	Versions []VersionCount  // of databases in use, the oldest first
	Servers  []ServerCount   // the one with the most databases first

	Behind           int // databases in use whose schema is older than that of this process
	Unreachable      int // databases in use whose last use failed
	FailedMigrations int
	Slow, Failing    int // stores, by the requests of this hour and the one before

	Purchased, Spent, Balance credits.Amount // of all stores, since the beginning
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

const (
	// countsFor is how long a process uses the counts before it counts again.
	countsFor = 30 * time.Second
	// maxServers is the number of servers in Counts.
	maxServers = 200
)

// Counts returns the counts of all stores, at most half a minute old. The caller must be
// an operator of the platform.
func (r *Registry) Counts(ctx context.Context, p authz.Principal) (Counts, error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil {
		return Counts{}, err
	}
	return r.counts.get(ctx, r)
}

// TenantStats returns the connections of this process to the stores' databases, with its
// limits. The caller must be an operator of the platform.
func (r *Registry) TenantStats(ctx context.Context, p authz.Principal) (tenantdb.Stats, tenantdb.Limits, error) {
	if err := authz.CheckOperator(ctx, r.db, p, authz.ReadStore); err != nil {
		return tenantdb.Stats{}, tenantdb.Limits{}, err
	}
	return r.tenants.Stats(), r.tenants.Limits(), nil
}

// countCache keeps the counts, so that the number of requests does not matter.
type countCache struct {
	mu     sync.Mutex
	counts Counts
	read   time.Time
}

func (c *countCache) get(ctx context.Context, r *Registry) (Counts, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.read.IsZero() && time.Since(c.read) < countsFor {
		return c.counts, nil
	}
	counts := Counts{At: r.db.Now(), Expected: r.tenants.Expected()}
	err := r.db.Snapshot(ctx, func(q masterdb.Querier) error { return counts.load(ctx, q) })
	if err != nil {
		return Counts{}, err
	}
	c.counts, c.read = counts, time.Now()
	return counts, nil
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
	err = q.Get(ctx, &sums, `SELECT CAST(coalesce(sum(lifetime_purchased), 0) AS bigint) AS purchased, CAST(coalesce(sum(lifetime_spent), 0) AS bigint) AS spent,
		CAST(coalesce(sum(balance), 0) AS bigint) AS balance FROM credit_balances`)
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
		v := VersionCount{Schema: tenantdb.Schema{Version: row.SchemaVersion, Own: row.OwnVersion}, Stores: row.Stores}
		c.Versions = append(c.Versions, v)
		if v.Schema.Version < c.Expected.Version || v.Schema.Own < c.Expected.Own {
			c.Behind += v.Stores
		}
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
