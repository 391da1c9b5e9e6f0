// Package fleet keeps all tenant databases on one schema: which stores lag,
// their migration in order and with care, and what of a store's schema is not
// as it should be. It is the operator's: nothing here asks who is calling, so
// no request may come this way.
package fleet

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// Service looks after the fleet.
type Service struct {
	db      *masterdb.DB
	tenants *tenantdb.Manager
	log     *slog.Logger
	hold    bool
}

// Options tune a Service.
type Options struct {
	Hold bool // keeps the migrations back that no operator has asked for
}

// New returns a service. Its Run method is the handler of Migrations jobs.
func New(db *masterdb.DB, tenants *tenantdb.Manager, log *slog.Logger, opts Options) *Service {
	return &Service{db: db, tenants: tenants, log: log, hold: opts.Hold}
}

// Store is a store that has a database, as the registry knows it.
type Store struct {
	ID       stoa.StoreID
	Slug     string
	Engine   tenantdb.EngineName
	Schema   tenantdb.Schema
	Attempts int       // of migrations since the last that went well, those that died with their process too
	Code     stoa.Code // why the last one failed, or ""
	Message  string
	At       *time.Time // when it ended
}

// storeRow is Store as the registry has it.
type storeRow struct {
	ID                stoa.StoreID
	Slug              string
	Engine            tenantdb.EngineName
	SchemaVersion     int64
	OwnVersion        int64
	MigrationAttempts int
	Code              stoa.Code
	Message           string
	MigratedAt        *time.Time

	MigrationStarts    int // begun and not ended
	MigrationStartedAt *time.Time
}

// store counts a migration that has begun and not ended as one that failed when
// it began. It is under way, or its process died, as a database may have it do:
// either way it is not for others to begin at once.
func (r storeRow) store() Store {
	st := Store{r.ID, r.Slug, r.Engine, tenantdb.Schema{Version: r.SchemaVersion, Own: r.OwnVersion},
		r.MigrationAttempts + r.MigrationStarts, r.Code, r.Message, r.MigratedAt}
	if r.MigrationStarts > 0 && r.MigrationStartedAt != nil {
		st.Code, st.At = tenantdb.MigrationFailed, r.MigrationStartedAt
		st.Message = "The migration has begun and not ended: it is under way, or its process stopped unexpectedly."
	}
	return st
}

// selectStores are the stores that count: whose database is at work, open or
// suspended. One that waits for a database gets this binary's schema with it.
const selectStores = `SELECT s.id, s.slug, x.engine, x.schema_version, x.own_version, x.migration_attempts,
		coalesce(x.migration_error, '') AS code, coalesce(x.migration_message, '') AS message, x.migrated_at,
		x.migration_starts, x.migration_started_at
	FROM store_databases x JOIN stores s ON s.id = x.store_id` + counted

const counted = ` WHERE s.status IN ('active', 'suspended')`

// lags is the condition that a store is behind the versions $1 and $2.
const lags = ` AND (x.schema_version < $1 OR x.own_version < $2)`

// behind reports whether a schema lacks something of target.
func behind(s, target tenantdb.Schema) bool { return s.Version < target.Version || s.Own < target.Own }

// lagging lists the stores behind target, oldest first.
func (s *Service) lagging(ctx context.Context, target tenantdb.Schema) ([]Store, error) {
	return s.list(ctx, selectStores+lags+` ORDER BY s.id`, target.Version, target.Own)
}

func (s *Service) list(ctx context.Context, query string, args ...any) ([]Store, error) {
	var rows []storeRow
	if err := s.db.Select(ctx, &rows, query, args...); err != nil {
		return nil, err
	}
	list := make([]Store, len(rows))
	for i, r := range rows {
		list[i] = r.store()
	}
	return list, nil
}

// count is how many stores there are in all that count.
func (s *Service) count(ctx context.Context) (n int, err error) {
	err = s.db.Get(ctx, &n, `SELECT count(*) FROM store_databases x JOIN stores s ON s.id = x.store_id`+counted)
	return n, err
}

// Status is the state of the fleet.
type Status struct {
	Expected tenantdb.Schema `json:"expected"` // what this binary brings, with the operator's migrations
	Oldest   int64           `json:"oldestReadable"`
	Stores   int             `json:"stores"`
	Current  int             `json:"current"`
	Lagging  int             `json:"lagging"`
	Ahead    int             `json:"ahead"`  // of this binary: migrated by a newer one
	Failed   int             `json:"failed"` // the last migration did
	Versions []VersionCount  `json:"versions"`
	Causes   []Cause         `json:"causes"`
}

// VersionCount is how many stores are at one version.
type VersionCount struct {
	tenantdb.Schema
	Stores int `json:"stores"`
}

// Cause is why migrations failed, with the stores in which they did.
type Cause struct {
	Code    stoa.Code `json:"code"`
	Message string    `json:"message"`
	Stores  []string  `json:"stores"` // slugs
}

// Status reads the state of the fleet from the registry alone.
func (s *Service) Status(ctx context.Context) (Status, error) {
	st := Status{Expected: s.tenants.Expected(), Oldest: tenantdb.OldestReadable, Versions: []VersionCount{}, Causes: []Cause{}}
	var rows []struct {
		SchemaVersion, OwnVersion int64
		Stores                    int
	}
	err := s.db.Select(ctx, &rows, `SELECT x.schema_version, x.own_version, count(*) AS stores
		FROM store_databases x JOIN stores s ON s.id = x.store_id`+counted+`
		GROUP BY x.schema_version, x.own_version ORDER BY x.schema_version, x.own_version`)
	if err != nil {
		return st, err
	}
	for _, r := range rows {
		v := VersionCount{tenantdb.Schema{Version: r.SchemaVersion, Own: r.OwnVersion}, r.Stores}
		st.Versions = append(st.Versions, v)
		st.Stores += r.Stores
		switch {
		case behind(v.Schema, st.Expected):
			st.Lagging += r.Stores
		case v.Schema == st.Expected:
			st.Current += r.Stores
		default:
			st.Ahead += r.Stores
		}
	}
	failed, err := s.list(ctx, selectStores+` AND (x.migration_error IS NOT NULL OR x.migration_starts > 0) ORDER BY s.id`)
	if err != nil {
		return st, err
	}
	st.Failed = len(failed)
	for _, f := range failed {
		st.Causes = addCause(st.Causes, f.Code, f.Message, f.Slug)
	}
	return st, nil
}

// addCause groups stores by what went wrong in them.
func addCause(causes []Cause, code stoa.Code, message, slug string) []Cause {
	for i := range causes {
		if causes[i].Code == code && causes[i].Message == message {
			causes[i].Stores = append(causes[i].Stores, slug)
			return causes
		}
	}
	return append(causes, Cause{code, message, []string{slug}})
}
