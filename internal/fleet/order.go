package fleet

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

const (
	// orderSample is how many stores of each version are checked at a start. The oldest
	// are checked, since a store that was connected after a file was added has that
	// file's migration.
	orderSample = 5
	// orderVersions limits the versions whose stores are checked, to those of most
	// stores.
	orderVersions = 8
	// orderTimeout limits the check of the sample. orderSearchTimeout limits the check of
	// all stores, which only adds the names of the stores that have a fault.
	orderTimeout       = 5 * time.Second
	orderSearchTimeout = 30 * time.Second
	// orderConcurrency is how many stores are checked at the same time.
	orderConcurrency = 16
)

// OrderFault is a fault in the order of the operator's custom migrations, with the
// stores that it concerns.
type OrderFault struct {
	tenantdb.MigrationOrderFault
	Stores  []string // slugs of the stores that were found
	Asked   int      // stores that answered and could have the fault
	managed bool     // a database on the operator's own server has it
}

// Refuses reports whether no process may start with these files: a managed database has
// the fault, or most of the checked stores have it. The answer of a single merchant's
// database must not prevent a start.
func (f OrderFault) Refuses() bool { return f.managed || 2*len(f.Stores) > f.Asked }

// same reports whether of is the same fault: the files of each engine have the
// same numbers.
func (f OrderFault) same(of OrderFault) bool { return of.Version == f.Version && of.Gone() == f.Gone() }

// String describes the fault, its stores, and what to do.
func (f OrderFault) String() string {
	const few = 3
	list := strings.Join(f.Stores[:min(few, len(f.Stores))], ", ")
	if more := len(f.Stores) - few; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("%s (stores: %s)", f.MigrationOrderFault, list)
}

// storeVersions contains the rows of a store's version table.
type storeVersions struct {
	store   Store
	managed bool
	applied []int64
}

// CheckOrder checks that the operator's custom migrations can run in the order of their
// numbers: that no file was added below one that has run already, and that no file that
// has run is missing. The registry has only the highest version of each store, so
// CheckOrder reads the version tables of a sample of the stores, or of every store if all
// is set. Stores that do not answer in time are left out. If a fault in the sample
// prevents a start, all stores are checked, to name those that have it.
func (s *Service) CheckOrder(ctx context.Context, all bool) ([]OrderFault, error) {
	own := s.tenants.CustomMigrations()
	if own == nil {
		return nil, nil
	}
	list, err := s.list(ctx, selectStores+` AND x.own_version > $1 ORDER BY x.created_at, s.id`, own.First())
	if err != nil {
		return nil, err
	}
	if all {
		return orderFaults(own, s.readVersions(ctx, list, orderSearchTimeout)), nil
	}
	faults := orderFaults(own, s.readVersions(ctx, sample(list), orderTimeout))
	if slices.ContainsFunc(faults, OrderFault.Refuses) {
		for _, f := range orderFaults(own, s.readVersions(ctx, list, orderSearchTimeout)) {
			if i := slices.IndexFunc(faults, f.same); i >= 0 && len(f.Stores) > len(faults[i].Stores) {
				faults[i].Stores = f.Stores
			}
		}
	}
	return faults, nil
}

// sample returns the first orderSample stores of each version, for the orderVersions
// versions with the most stores.
func sample(list []Store) (few []Store) {
	count := map[int64]int{}
	for _, st := range list {
		count[st.Schema.Own]++
	}
	var versions []int64
	for v := range count {
		versions = append(versions, v)
	}
	slices.SortFunc(versions, func(a, b int64) int { return count[b] - count[a] })
	for _, v := range versions[:min(orderVersions, len(versions))] {
		n := 0
		for _, st := range list {
			if st.Schema.Own == v && n < orderSample {
				few, n = append(few, st), n+1
			}
		}
	}
	return few
}

// readVersions reads the version tables of the stores that answer in time, and returns
// them in the order of the stores.
func (s *Service) readVersions(ctx context.Context, list []Store, limit time.Duration) []storeVersions {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answers := make([]*storeVersions, len(list))
	queue := make(chan int)
	var workers sync.WaitGroup
	for range min(orderConcurrency, len(list)) {
		workers.Go(func() {
			for i := range queue {
				answers[i] = s.versionsOf(ctx, list[i])
			}
		})
	}
	for i := range list {
		if ctx.Err() != nil {
			break
		}
		queue <- i
	}
	close(queue)
	workers.Wait()
	var found []storeVersions
	for _, a := range answers {
		if a != nil {
			found = append(found, *a)
		}
	}
	return found
}

// versionsOf reads a store's version table. It returns nil if that fails.
func (s *Service) versionsOf(ctx context.Context, st Store) *storeVersions {
	answer := &storeVersions{store: st}
	err := stoa.CatchPanic(func() error {
		c, err := s.tenants.Load(ctx, s.db, st.ID)
		if err != nil {
			return err
		}
		answer.managed = c.Kind == credential.Managed
		return s.withDatabase(ctx, st.ID, c, func(ctx context.Context, db *tenantdb.DB) (err error) {
			if err := checkHoldsStore(ctx, db, st.ID); err != nil {
				return err
			}
			answer.applied, err = db.CustomVersions(ctx)
			return err
		})
	})
	s.logPanic(ctx, st.ID, err)
	if err != nil {
		return nil
	}
	return answer
}

// orderFaults collects the faults in the answers of the stores.
func orderFaults(own *tenantdb.CustomMigrations, answers []storeVersions) (faults []OrderFault) {
	for _, a := range answers {
		for _, f := range own.OrderFaults(a.store.Engine, a.applied) {
			i := slices.IndexFunc(faults, OrderFault{MigrationOrderFault: f}.same)
			if i < 0 {
				i, faults = len(faults), append(faults, OrderFault{MigrationOrderFault: f})
			}
			faults[i].Stores = append(faults[i].Stores, a.store.Slug)
			faults[i].managed = faults[i].managed || a.managed
		}
	}
	for i, f := range faults {
		for _, a := range answers {
			if len(a.applied) > 0 && slices.Max(a.applied) >= f.Version {
				faults[i].Asked++
			}
		}
	}
	slices.SortFunc(faults, func(a, b OrderFault) int { return cmp.Compare(a.Version, b.Version) })
	return faults
}
