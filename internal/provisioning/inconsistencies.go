package provisioning

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// The kinds of inconsistencies that cannot be found in the registry alone.
const (
	RunWithoutJob  stores.InconsistencyKind = "run_without_job"
	StuckStore     stores.InconsistencyKind = "stuck_in_provisioning"
	OrphanDatabase stores.InconsistencyKind = "stray_database"
)

// Inconsistency is an inconsistent state of a store or a database in the fleet.
type Inconsistency struct {
	Kind     stores.InconsistencyKind
	StoreID  stoa.StoreID // zero for an orphan database
	Name     string       // of the store, or of the orphan database
	Detail   string       // what is wrong
	Remedy   string       // what to do about it
	Repaired bool

	repair func(context.Context) error // nil when a person has to decide
}

// Repairable reports whether Repair can correct it.
func (i Inconsistency) Repairable() bool { return i.repair != nil }

// Repair corrects the inconsistency, unless it has been corrected meanwhile. It drops an
// orphan database permanently: let a person confirm the name of the database first.
func (i *Inconsistency) Repair(ctx context.Context) error {
	if i.repair == nil {
		return nil
	}
	if err := i.repair(ctx); err != nil {
		return err
	}
	i.Repaired = true
	return nil
}

// Inconsistencies returns the inconsistencies of the whole fleet, from the master
// database, the operator's database server and the data directory. It opens no store's
// database and changes nothing. It checks no permission: only the operator may call it.
func (s *Service) Inconsistencies(ctx context.Context) ([]Inconsistency, error) {
	var all []Inconsistency
	for _, find := range []func(context.Context) ([]Inconsistency, error){s.lostRuns, s.stuckStores, s.registryInconsistencies, s.orphans} {
		found, err := find(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// minAge is the minimum age of a state that is reported as inconsistent.
const minAge = time.Minute

// lostRuns returns the runs that no process executes and that have no job.
func (s *Service) lostRuns(ctx context.Context) (found []Inconsistency, err error) {
	var runs []struct {
		ID      stoa.RunID
		StoreID stoa.StoreID
		Slug    string
		State   State
		Step    string
	}
	err = s.db.Select(ctx, &runs, `SELECT r.id, r.store_id, s.slug, r.state, r.step FROM provisioning_runs r JOIN stores s ON s.id = r.store_id
		WHERE r.state IN ('queued', 'running') AND r.created_at < $1
		AND (r.claimed_by IS NULL OR r.claimed_until IS NULL OR r.claimed_until < $1) ORDER BY r.id`, s.db.Now().Add(-minAge))
	if err != nil {
		return nil, err
	}
	live, err := jobs.Unfinished[Provision](ctx, s.db)
	for _, run := range runs {
		if slices.ContainsFunc(live, func(job Provision) bool { return job.RunID == run.ID }) {
			continue
		}
		found = append(found, Inconsistency{
			Kind: RunWithoutJob, StoreID: run.StoreID, Name: run.Slug,
			Detail: fmt.Sprintf("run %s is %s (%s) and no job works on it", run.ID, run.State, run.Step),
			Remedy: "keep a server running: it resumes lost runs",
		})
	}
	return found, err
}

// stuckStores returns the stores that are in provisioning without a run.
func (s *Service) stuckStores(ctx context.Context) (found []Inconsistency, err error) {
	var stuck []struct {
		ID   stoa.StoreID
		Slug string
	}
	err = s.db.Select(ctx, &stuck, `SELECT s.id, s.slug FROM stores s WHERE (s.status = 'provisioning' OR s.status_before = 'provisioning')
		AND s.updated_at < $1 AND NOT EXISTS (SELECT 1 FROM provisioning_runs r WHERE r.store_id = s.id AND r.state IN ('queued', 'running'))
		ORDER BY s.id`, s.db.Now().Add(-minAge))
	for _, store := range stuck {
		found = append(found, Inconsistency{
			Kind: StuckStore, StoreID: store.ID, Name: store.Slug,
			Detail: "the store is in provisioning and no run is under way",
			Remedy: "a repair sets it to pending_database, for its owner to connect the database again",
			repair: func(ctx context.Context) error {
				return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.endProvisioning(ctx, tx, store.ID) })
			},
		})
	}
	return found, err
}

// endProvisioning sets a store in provisioning without a run to pending_database.
func (s *Service) endProvisioning(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var open int
	err := tx.Get(ctx, &open, `SELECT count(*) FROM provisioning_runs WHERE store_id = $1 AND state IN ('queued', 'running')`, store)
	if err != nil || open > 0 {
		return err
	}
	return s.registry.FailProvisioning(ctx, tx, store)
}

// explanations describe the inconsistencies of the registry to an operator.
var explanations = map[stores.InconsistencyKind]struct{ detail, remedy string }{
	stores.ActiveWithoutDatabase: {detail: "the store is %s and has no database", remedy: "a repair sets it to pending_database, for its owner to connect one"},
	stores.DeletionOverdue:       {detail: "the store (%s before it was deleted) should be gone by now", remedy: "a repair queues its deletion, unless a job for it waits already; a running server executes it"},
	stores.DeletedWithDatabase: {detail: "the store is deleted and its database is still in the registry (%s)",
		remedy: "correct what prevents it from being dropped: the server's log says why. A repair queues another attempt, unless one waits already"},
	stores.HostnameOfDeleted: {detail: "the store is deleted and still holds the hostname %s", remedy: "a repair frees it"},
}

func (s *Service) registryInconsistencies(ctx context.Context) (found []Inconsistency, err error) {
	cases, err := s.registry.FindInconsistencies(ctx)
	for _, c := range cases {
		text := explanations[c.Kind]
		found = append(found, Inconsistency{
			Kind: c.Kind, StoreID: c.StoreID, Name: c.Slug, Detail: fmt.Sprintf(text.detail, c.Detail), Remedy: text.remedy,
			repair: func(ctx context.Context) error { return s.registry.Repair(ctx, c) },
		})
	}
	return found, err
}

// orphans returns the managed databases that belong to no store, such as one that
// remained when a store was connected to its merchant's own database after a failed run.
func (s *Service) orphans(ctx context.Context) (found []Inconsistency, err error) {
	all, err := s.tenants.Orphans(ctx)
	for _, o := range all {
		where := "on the server " + o.Place
		if o.Engine == credential.SQLite {
			where = "in the file " + o.Place
		}
		found = append(found, Inconsistency{
			Kind: OrphanDatabase, Name: o.Name,
			Detail: "a managed database that belongs to no store, " + where,
			Remedy: "look at it; if nobody needs it, a repair drops it",
			repair: func(ctx context.Context) error { return s.tenants.DropOrphan(ctx, o) },
		})
	}
	return found, err
}
