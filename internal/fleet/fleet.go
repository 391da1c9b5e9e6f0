// Package fleet keeps all tenant databases on one schema: it lists the stores that lag,
// migrates them, and detects drift from the expected schema. Service is for the operator
// and checks no permissions, so requests must not reach it. Bulk checks them, and acts on
// many stores.
package fleet

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Service manages the schemas of all tenant databases. It is safe for concurrent
// use.
type Service struct {
	db      *masterdb.DB
	tenants *tenantdb.Manager
	log     *slog.Logger
	paused  bool
}

// Options configure a Service.
type Options struct {
	Paused bool // runs only the migrations that an operator starts
}

// New returns a service. Its Run method is the handler of Migrations jobs.
func New(db *masterdb.DB, tenants *tenantdb.Manager, log *slog.Logger, opts Options) *Service {
	return &Service{db: db, tenants: tenants, log: log, paused: opts.Paused}
}

// Store is a store that has a database, as the registry records it.
type Store struct {
	ID       stoa.StoreID
	Slug     string
	Engine   credential.EngineName
	Schema   tenantdb.Schema
	Attempts int       // migrations since the last success, including those whose process died
	Code     stoa.Code // of the last failure, or ""
	Message  string
	At       *time.Time // when the last migration ended
}

// storeRow is the registry's row of a Store.
type storeRow struct {
	ID                stoa.StoreID
	Slug              string
	Engine            credential.EngineName
	SchemaVersion     int64
	OwnVersion        int64
	MigrationAttempts int
	Code              stoa.Code
	Message           string
	MigratedAt        *time.Time

	MigrationStarts    int // started and not ended
	MigrationStartedAt *time.Time
}

// store converts the row to a Store. A migration that has started and not ended counts as
// one that failed when it started. It is in progress, or its process died, which the
// database may have caused. In both cases no other process may start one immediately.
func (r storeRow) store() Store {
	st := Store{
		ID: r.ID, Slug: r.Slug, Engine: r.Engine, Schema: tenantdb.Schema{Version: r.SchemaVersion, Own: r.OwnVersion},
		Attempts: r.MigrationAttempts + r.MigrationStarts, Code: r.Code, Message: r.Message, At: r.MigratedAt,
	}
	if r.MigrationStarts > 0 && r.MigrationStartedAt != nil {
		st.Code, st.At = stoa.MigrationFailed, r.MigrationStartedAt
		st.Message = "The migration has begun and not ended: it is under way, or its process stopped unexpectedly."
	}
	return st
}

// selectStores selects the stores whose database is in use: active and suspended ones. A
// store without a database gets the schema of this binary when its database is created.
const selectStores = selectColumns + ` FROM store_databases x JOIN stores s ON s.id = x.store_id` + inUse

const selectColumns = `SELECT s.id, s.slug, x.engine, x.schema_version, x.own_version, x.migration_attempts,
		coalesce(x.migration_error, '') AS code, coalesce(x.migration_message, '') AS message, x.migrated_at,
		x.migration_starts, x.migration_started_at`

const inUse = ` WHERE s.status IN ('active', 'suspended')`

// lags is the condition that a store's schema is older than the versions $1 and $2. A store
// whose database is moved is migrated after the move.
var lags = ` AND (x.schema_version < $1 OR x.own_version < $2)
	AND ` + tenantdb.NotMoving("x.store_id")

// hasFailed is the condition that a store's last migration failed. A partial index has it.
const hasFailed = ` AND (x.migration_error IS NOT NULL OR x.migration_starts > 0)`

// behind reports whether a schema lacks migrations of target.
func behind(s, target tenantdb.Schema) bool { return s.Version < target.Version || s.Own < target.Own }

// lagging lists the stores whose schema is behind target, oldest first.
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

// count returns the number of stores whose database is in use and for which condition, SQL
// that follows selectStores, holds.
func (s *Service) count(ctx context.Context, condition string, args ...any) (n int, err error) {
	err = s.db.Get(ctx, &n, `SELECT count(*) FROM store_databases x JOIN stores s ON s.id = x.store_id`+inUse+condition, args...)
	return n, err
}

// exists reports whether there is a store that count would count.
func (s *Service) exists(ctx context.Context, condition string, args ...any) (found bool, err error) {
	err = s.db.Get(ctx, &found, `SELECT EXISTS (SELECT 1 FROM store_databases x JOIN stores s ON s.id = x.store_id`+inUse+condition+`)`, args...)
	return found, err
}

// Status is the state of the fleet.
type Status struct {
	Expected tenantdb.Schema `json:"expected"` // of this binary and the operator's custom migrations
	Oldest   int64           `json:"oldestReadable"`
	Stores   int             `json:"stores"`
	Current  int             `json:"current"`
	Lagging  int             `json:"lagging"`
	Ahead    int             `json:"ahead"`  // migrated by a newer binary
	Failed   int             `json:"failed"` // stores whose last migration failed
	Versions []VersionCount  `json:"versions"`
	Causes   []Cause         `json:"causes"`
}

// VersionCount is the number of stores at one version.
type VersionCount struct {
	tenantdb.Schema
	Stores int `json:"stores"`
}

// Cause is a reason why migrations failed, with the stores where they did.
type Cause struct {
	Code    stoa.Code `json:"code"`
	Message string    `json:"message"`
	Stores  []string  `json:"stores"` // slugs
}

// Status reads the state of the fleet. It uses the registry only. It counts all stores and
// lists all that failed: it is for the command line, not for a page.
func (s *Service) Status(ctx context.Context) (Status, error) {
	st := Status{Expected: s.tenants.Expected(), Oldest: tenantdb.OldestReadable, Versions: []VersionCount{}, Causes: []Cause{}}
	var rows []struct {
		SchemaVersion, OwnVersion int64
		Stores                    int
	}
	err := s.db.Select(ctx, &rows, `SELECT x.schema_version, x.own_version, count(*) AS stores
		FROM store_databases x JOIN stores s ON s.id = x.store_id`+inUse+`
		GROUP BY x.schema_version, x.own_version ORDER BY x.schema_version, x.own_version`)
	if err != nil {
		return st, err
	}
	for _, r := range rows {
		v := VersionCount{Schema: tenantdb.Schema{Version: r.SchemaVersion, Own: r.OwnVersion}, Stores: r.Stores}
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
	failed, err := s.list(ctx, selectStores+hasFailed+` ORDER BY s.id`)
	if err != nil {
		return st, err
	}
	st.Failed = len(failed)
	for _, f := range failed {
		st.Causes = addCause(st.Causes, f.Code, f.Message, f.Slug)
	}
	return st, nil
}

// addCause adds a store to the cause of its failure.
func addCause(causes []Cause, code stoa.Code, message, slug string) []Cause {
	for i := range causes {
		if causes[i].Code == code && causes[i].Message == message {
			causes[i].Stores = append(causes[i].Stores, slug)
			return causes
		}
	}
	return append(causes, Cause{Code: code, Message: message, Stores: []string{slug}})
}
