package provisioning

import (
	"context"
	"fmt"
	"iter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/managed"
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

// Inconsistencies yields the inconsistencies of the whole fleet, from the master
// database, the operator's database server and the data directory. It holds a part of them
// in memory, opens no store's database and changes nothing. An error ends the sequence. It
// checks no permission: only the operator may call it.
func (s *Service) Inconsistencies(ctx context.Context) iter.Seq2[Inconsistency, error] {
	return func(yield func(Inconsistency, error) bool) {
		for _, find := range []func(context.Context) iter.Seq2[Inconsistency, error]{s.lostRuns, s.stuckStores, s.registryInconsistencies, s.orphans} {
			for i, err := range find(ctx) {
				if !yield(i, err) || err != nil {
					return
				}
			}
		}
	}
}

// described yields what describe makes of each of the rows.
func described[Row any](rows iter.Seq2[Row, error], describe func(Row) Inconsistency) iter.Seq2[Inconsistency, error] {
	return func(yield func(Inconsistency, error) bool) {
		for row, err := range rows {
			if err != nil {
				yield(Inconsistency{}, err)
				return
			}
			if !yield(describe(row), nil) {
				return
			}
		}
	}
}

// minAge is the minimum age of a state that is reported as inconsistent.
const minAge = time.Minute

// lostRuns yields the runs that no process executes and that have no job.
func (s *Service) lostRuns(ctx context.Context) iter.Seq2[Inconsistency, error] {
	type run struct {
		ID      stoa.RunID
		StoreID stoa.StoreID
		Slug    string
		State   State
		Step    string
	}
	before := s.db.Now().Add(-minAge)
	runs := page.All(func(r run) stoa.RunID { return r.ID }, func(after stoa.RunID) (list []run, err error) {
		err = s.db.Select(ctx, &list, `SELECT r.id, r.store_id, s.slug, r.state, r.step FROM provisioning_runs r JOIN stores s ON s.id = r.store_id
			WHERE r.state IN ('queued', 'running') AND r.created_at < $1
			AND (r.claimed_by IS NULL OR r.claimed_until IS NULL OR r.claimed_until < $1) AND r.id > $2 ORDER BY r.id LIMIT $3`, before, after, page.Part)
		return list, err
	})
	return func(yield func(Inconsistency, error) bool) {
		live, err := jobs.Unfinished[Provision](ctx, s.db)
		if err != nil {
			yield(Inconsistency{}, err)
			return
		}
		hasJob := map[stoa.RunID]bool{}
		for _, job := range live {
			hasJob[job.RunID] = true
		}
		for run, err := range runs {
			if err == nil && hasJob[run.ID] {
				continue
			}
			lost := Inconsistency{
				Kind: RunWithoutJob, StoreID: run.StoreID, Name: run.Slug,
				Detail: fmt.Sprintf("run %s is %s (%s) and no job works on it", run.ID, run.State, run.Step),
				Remedy: "keep a server running: it resumes lost runs",
			}
			if !yield(lost, err) {
				return
			}
		}
	}
}

// stuckStores yields the stores that are in provisioning without a run.
func (s *Service) stuckStores(ctx context.Context) iter.Seq2[Inconsistency, error] {
	type store struct {
		ID   stoa.StoreID
		Slug string
	}
	before := s.db.Now().Add(-minAge)
	stuck := page.All(func(s store) stoa.StoreID { return s.ID }, func(after stoa.StoreID) (list []store, err error) {
		err = s.db.Select(ctx, &list, `SELECT s.id, s.slug FROM stores s WHERE (s.status = 'provisioning' OR s.status_before = 'provisioning')
			AND s.updated_at < $1 AND NOT EXISTS (SELECT 1 FROM provisioning_runs r WHERE r.store_id = s.id AND r.state IN ('queued', 'running'))
			AND s.id > $2 ORDER BY s.id LIMIT $3`, before, after, page.Part)
		return list, err
	})
	return described(stuck, func(store store) Inconsistency {
		return Inconsistency{
			Kind: StuckStore, StoreID: store.ID, Name: store.Slug,
			Detail: "the store is in provisioning and no run is under way",
			Remedy: "a repair sets it to pending_database, for its owner to connect the database again",
			repair: func(ctx context.Context) error {
				return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.endProvisioning(ctx, tx, store.ID) })
			},
		}
	})
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

func (s *Service) registryInconsistencies(ctx context.Context) iter.Seq2[Inconsistency, error] {
	return described(s.registry.Inconsistencies(ctx), func(i stores.Inconsistency) Inconsistency {
		text := explanations[i.Kind]
		return Inconsistency{
			Kind: i.Kind, StoreID: i.StoreID, Name: i.Slug, Detail: fmt.Sprintf(text.detail, i.Detail), Remedy: text.remedy,
			repair: func(ctx context.Context) error { return s.registry.Repair(ctx, i) },
		}
	})
}

// orphans yields the managed databases that belong to no store, such as one that
// remained when a store was connected to its merchant's own database after a failed run.
func (s *Service) orphans(ctx context.Context) iter.Seq2[Inconsistency, error] {
	return described(s.managed.Orphans(ctx), func(o managed.Orphan) Inconsistency {
		where := "on the server " + o.Place
		if o.Engine.Embedded() {
			where = "in the file " + o.Place
		}
		return Inconsistency{
			Kind: OrphanDatabase, Name: o.Name,
			Detail: "a managed database that belongs to no store, " + where,
			Remedy: "look at it; if nobody needs it, a repair drops it",
			repair: func(ctx context.Context) error { return s.managed.DropOrphan(ctx, o) },
		}
	})
}
