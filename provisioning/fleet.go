package provisioning

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/stores"
	"github.com/stoahq/stoa/tenantdb"
)

// Disorders that the registry alone does not show; see stores.Disorder.
const (
	RunWithoutJob stores.Disorder = "run_without_job"
	StuckStore    stores.Disorder = "stuck_in_provisioning"
	StrayDatabase stores.Disorder = "stray_database"
)

// Anomaly is something in the fleet that should not be.
type Anomaly struct {
	Disorder stores.Disorder
	StoreID  stoa.StoreID // zero for a stray database
	Name     string       // of the store, or of the stray database
	Detail   string       // what is wrong
	Remedy   string       // what to do about it
	Mended   bool

	mend func(context.Context) error // nil when that is not for a program to do
}

// Mendable reports whether Mend can put it in order.
func (a Anomaly) Mendable() bool { return a.mend != nil }

// Mend puts the anomaly in order, unless that has happened meanwhile. A stray
// database is dropped for good: have a person name it first.
func (a *Anomaly) Mend(ctx context.Context) error {
	if a.mend == nil {
		return nil
	}
	if err := a.mend(ctx); err != nil {
		return err
	}
	a.Mended = true
	return nil
}

// Anomalies finds what should not be, over the whole fleet: from the master
// database, the operator's database server and the data directory. It opens no
// store's database and changes nothing. It is the operator's: no request may
// come this way.
func (s *Service) Anomalies(ctx context.Context) ([]Anomaly, error) {
	var all []Anomaly
	for _, find := range []func(context.Context) ([]Anomaly, error){s.orphanedRuns, s.stuckStores, s.registryDisorders, s.strays} {
		found, err := find(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, found...)
	}
	return all, nil
}

// settling is how old something must be before it counts as left behind.
const settling = time.Minute

// orphanedRuns are those that nobody has claimed of late and that nothing in
// the queue will take further.
func (s *Service) orphanedRuns(ctx context.Context) (found []Anomaly, err error) {
	var runs []struct {
		ID      stoa.RunID
		StoreID stoa.StoreID
		Slug    string
		State   State
		Step    string
	}
	err = s.db.Select(ctx, &runs, `SELECT r.id, r.store_id, s.slug, r.state, r.step FROM provisioning_runs r JOIN stores s ON s.id = r.store_id
		WHERE r.state IN ('queued', 'running') AND r.created_at < $1
		AND (r.claimed_by IS NULL OR r.claimed_until IS NULL OR r.claimed_until < $1) ORDER BY r.id`, s.db.Now().Add(-settling))
	if err != nil {
		return nil, err
	}
	live, err := jobs.Unfinished[Provision](ctx, s.db)
	for _, run := range runs {
		if slices.ContainsFunc(live, func(job Provision) bool { return job.RunID == run.ID }) {
			continue
		}
		found = append(found, Anomaly{
			Disorder: RunWithoutJob, StoreID: run.StoreID, Name: run.Slug,
			Detail: fmt.Sprintf("run %s is %s (%s) and no job works on it", run.ID, run.State, run.Step),
			Remedy: "keep 'stoa serve' running: it takes up runs that were left behind",
		})
	}
	return found, err
}

// stuckStores are in provisioning although no run is under way.
func (s *Service) stuckStores(ctx context.Context) (found []Anomaly, err error) {
	var stuck []struct {
		ID   stoa.StoreID
		Slug string
	}
	err = s.db.Select(ctx, &stuck, `SELECT s.id, s.slug FROM stores s WHERE (s.status = 'provisioning' OR s.status_before = 'provisioning')
		AND s.updated_at < $1 AND NOT EXISTS (SELECT 1 FROM provisioning_runs r WHERE r.store_id = s.id AND r.state IN ('queued', 'running'))
		ORDER BY s.id`, s.db.Now().Add(-settling))
	for _, store := range stuck {
		found = append(found, Anomaly{
			Disorder: StuckStore, StoreID: store.ID, Name: store.Slug,
			Detail: "the store is in provisioning and no run is under way",
			Remedy: "--mend gives it back to its owner as pending_database, who connects the database again",
			mend: func(ctx context.Context) error {
				return s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.giveBack(ctx, tx, store.ID) })
			},
		})
	}
	return found, err
}

// giveBack ends a provisioning that no run is under way for any more.
func (s *Service) giveBack(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var open int
	err := tx.Get(ctx, &open, `SELECT count(*) FROM provisioning_runs WHERE store_id = $1 AND state IN ('queued', 'running')`, store)
	if err != nil || open > 0 {
		return err
	}
	return s.registry.FailProvisioning(ctx, tx, store)
}

// words are what an operator reads about a disorder of the registry.
var words = map[stores.Disorder]struct{ detail, remedy string }{
	stores.ActiveWithoutDatabase: {"the store is %s and has no database", "--mend sets it to pending_database, for its owner to connect one"},
	stores.DeletionOverdue:       {"the store (%s before it was deleted) should be gone by now", "--mend queues its deletion, unless a job for it waits already; 'stoa serve' runs it"},
	stores.DatabaseLeft: {"the store is deleted and its database is still in the registry (%s)",
		"mend what keeps it from being dropped: the server's log says why. --mend queues another attempt, unless one waits already"},
	stores.HostnameOfDeleted: {"the store is deleted and still holds the hostname %s", "--mend frees it"},
}

func (s *Service) registryDisorders(ctx context.Context) (found []Anomaly, err error) {
	cases, err := s.registry.Disorders(ctx)
	for _, c := range cases {
		w := words[c.Disorder]
		found = append(found, Anomaly{
			Disorder: c.Disorder, StoreID: c.StoreID, Name: c.Slug, Detail: fmt.Sprintf(w.detail, c.Detail), Remedy: w.remedy,
			mend: func(ctx context.Context) error { return s.registry.Mend(ctx, c) },
		})
	}
	return found, err
}

// strays are managed databases that no store has, such as one left when a
// store was connected to its merchant's own after a failed run.
func (s *Service) strays(ctx context.Context) (found []Anomaly, err error) {
	strays, err := s.tenants.Orphans(ctx)
	for _, stray := range strays {
		where := "on the server " + stray.Place
		if stray.Engine == tenantdb.SQLite {
			where = "in the file " + stray.Place
		}
		found = append(found, Anomaly{
			Disorder: StrayDatabase, Name: stray.Name,
			Detail: "a managed database that no store has, " + where,
			Remedy: "look at it; if nobody misses it: --mend --drop " + stray.Name,
			mend:   func(ctx context.Context) error { return s.tenants.DropOrphan(ctx, stray) },
		})
	}
	return found, err
}
