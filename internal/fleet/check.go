package fleet

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Checked is the result of a check of a store's schema.
type Checked struct {
	Store   Store
	Lagging bool      // the schema was not checked, since a migration would change it
	Drift   []string  // descriptions of the differences
	Code    stoa.Code // why it could not be checked, or ""
	Message string
}

// OK reports whether the schema is the expected one.
func (c Checked) OK() bool { return c.Code == "" && len(c.Drift) == 0 }

// checkTimeout limits the check of one store.
const checkTimeout = 30 * time.Second

// Check compares the schema of the stores, all or only those given, with the schema
// of the built-in migrations, and passes each result to report, one call at a time.
// It changes nothing. Additions of the operator's custom migrations are not checked.
// Their changes to the built-in schema and faults in their order are reported.
func (s *Service) Check(ctx context.Context, only []stoa.StoreID, concurrency int, report func(Checked)) error {
	list, err := s.list(ctx, selectStores+` ORDER BY s.id`)
	if err != nil {
		return err
	}
	queue, results := make(chan Store), make(chan Checked)
	var workers sync.WaitGroup
	for range max(concurrency, 1) {
		workers.Go(func() {
			for st := range queue {
				results <- s.check(ctx, st)
			}
		})
	}
	go func() {
		defer close(queue)
		for _, st := range list {
			if len(only) > 0 && !slices.Contains(only, st.ID) {
				continue
			}
			select {
			case queue <- st:
			case <-ctx.Done():
				return
			}
		}
	}()
	go func() {
		workers.Wait()
		close(results)
	}()
	for c := range results {
		report(c)
	}
	return ctx.Err()
}

func (s *Service) check(ctx context.Context, st Store) Checked {
	c := Checked{Store: st}
	if c.Lagging = behind(st.Schema, s.tenants.Expected()); c.Lagging {
		return c
	}
	ctx, cancel := context.WithTimeout(ctx, checkTimeout)
	defer cancel()
	err := stoa.CatchPanic(func() (err error) {
		c.Drift, err = s.drift(ctx, st)
		return err
	})
	if err != nil {
		c.Code, c.Message = cause(err)
		s.logPanic(ctx, st.ID, err)
	}
	return c
}

func (s *Service) drift(ctx context.Context, st Store) ([]string, error) {
	registered, err := s.tenants.Read(ctx, s.db, st.ID)
	if err != nil {
		return nil, err
	}
	db, err := s.tenants.OpenUnleased(registered.Credentials)
	if err != nil {
		return nil, err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := db.PinSession(ctx, st.ID); err != nil {
		return nil, err
	}
	if err := checkHoldsStore(ctx, db, st.ID); err != nil {
		return nil, err
	}
	expected, err := tenantdb.Expected(db.Engine)
	if err != nil {
		return nil, err
	}
	live, err := db.Structure(ctx)
	if err != nil {
		return nil, err
	}
	drift := live.Drift(expected, s.tenants.Expected().Own == 0 && st.Schema.Own == 0)
	if st.Schema.Own == 0 {
		return drift, nil
	}
	applied, err := db.CustomVersions(ctx)
	for _, f := range s.tenants.CustomMigrations().OrderFaults(db.Engine, applied) {
		drift = append(drift, f.String())
	}
	return drift, err
}
