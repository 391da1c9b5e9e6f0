package fleet

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// reachable selects the stores whose tables an HTTP API such as Supabase's might reach:
// those in merchants' own databases on PostgreSQL.
const reachable = ` AND x.engine = 'postgresql' AND x.kind <> 'managed'`

// unverified selects the stores of reachable that have not been verified as closed and
// that were not checked since the time $1.
const unverified = reachable + ` AND (x.exposure_checked_at IS NULL OR x.exposure_error IS NOT NULL AND x.exposure_checked_at < $1)`

const (
	// exposureTimeout bounds the work on one store.
	exposureTimeout = 30 * time.Second
	// exposurePause is the time between two attempts for a store that could not be
	// closed, such as one whose server was unreachable.
	exposurePause = time.Hour
	// exposurePassTimeout bounds one pass over the fleet, so that other jobs can run.
	exposurePassTimeout = 10 * time.Minute
)

// Exposure is the result of the check whether an HTTP API reaches a store's tables.
type Exposure struct {
	Store   Store
	Code    stoa.Code // database_exposed, or why it could not be checked; "" when the store is closed
	Message string
}

// Exposed checks all stores that an HTTP API might reach and passes each result to
// report, one call at a time. It changes nothing.
func (s *Service) Exposed(ctx context.Context, concurrency int, report func(Exposure)) error {
	for after := (stoa.StoreID{}); ; {
		list, err := s.list(ctx, selectStores+reachable+` AND s.id > $1 ORDER BY s.id LIMIT $2`, after, page.Part)
		if err != nil {
			return err
		}
		s.checkExposed(ctx, list, concurrency, report)
		if len(list) < page.Part || ctx.Err() != nil {
			return ctx.Err()
		}
		after = list[len(list)-1].ID
	}
}

func (s *Service) checkExposed(ctx context.Context, list []Store, concurrency int, report func(Exposure)) {
	var mu sync.Mutex
	s.each(ctx, list, concurrency, func(st Store) {
		x := Exposure{Store: st}
		err := stoa.CatchPanic(func() error {
			c, err := s.tenants.Load(ctx, s.db, st.ID)
			if err != nil {
				return err
			}
			return s.withDatabase(ctx, st.ID, c, func(ctx context.Context, db *tenantdb.DB) error { return db.ProveClosed(ctx) })
		})
		if err != nil {
			x.Code, x.Message = cause(err)
			s.logPanic(ctx, st.ID, err)
		}
		mu.Lock()
		defer mu.Unlock()
		report(x)
	})
}

// CloseExposed revokes all permissions on a store's tables from the roles of an HTTP API,
// verifies that, and records it. The tables are not moved, and the store is served
// meanwhile.
func (s *Service) CloseExposed(ctx context.Context, store stoa.StoreID) error {
	var version int64 // of the credentials; 0 means any version, until it is known
	err := stoa.CatchPanic(func() error {
		registered, err := s.tenants.Read(ctx, s.db, store)
		if version = registered.Version; err != nil {
			return err
		}
		return s.withDatabase(ctx, store, registered.Credentials, func(ctx context.Context, db *tenantdb.DB) error {
			if err := checkHoldsStore(ctx, db, store); err != nil {
				return err
			}
			if err := db.CloseToAPI(ctx); err != nil {
				return err
			}
			return db.ProveClosed(ctx)
		})
	})
	s.logPanic(ctx, store, err)
	if ctx.Err() != nil { // the process is stopping, which says nothing about the store's state
		return ctx.Err()
	}
	recordErr := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tenantdb.RecordExposure(ctx, tx, store, version, err)
	})
	if err != nil {
		return err
	}
	return recordErr
}

// closeAll closes the stores that have not been verified as closed. They were connected
// before each store had its own schema.
func (s *Service) closeAll(ctx context.Context) error {
	list, err := s.unverified(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	pass, cancel := context.WithTimeout(ctx, exposurePassTimeout)
	defer cancel()
	var closed atomic.Int64
	s.each(pass, list, jobConcurrency, func(st Store) {
		switch err := s.CloseExposed(pass, st.ID); {
		case err == nil:
			closed.Add(1)
		case pass.Err() == nil:
			code, _ := cause(err)
			s.log.WarnContext(ctx, "store not closed to HTTP APIs", "store", st.ID.String(), "code", string(code), "err", err)
		}
	})
	s.log.InfoContext(ctx, "stores closed to HTTP APIs", "closed", closed.Load(), "of", len(list))
	return ctx.Err()
}

func (s *Service) unverified(ctx context.Context) ([]Store, error) {
	return s.list(ctx, selectStores+unverified+` ORDER BY s.id`, s.db.Now().Add(-exposurePause))
}

// withDatabase opens the database of the credentials for fn, within
// exposureTimeout.
func (s *Service) withDatabase(ctx context.Context, store stoa.StoreID, c credential.Credentials, fn func(context.Context, *tenantdb.DB) error) error {
	ctx, cancel := context.WithTimeout(ctx, exposureTimeout)
	defer cancel()
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := db.PinSession(ctx, store); err != nil {
		return err
	}
	return fn(ctx, db)
}

// each calls fn for the stores, a number of them concurrently, until ctx ends.
func (s *Service) each(ctx context.Context, list []Store, concurrency int, fn func(Store)) {
	var workers sync.WaitGroup
	for part := range slices.Chunk(list, max(concurrency, 1)) {
		for _, st := range part {
			if ctx.Err() == nil {
				workers.Go(func() { fn(st) })
			}
		}
		workers.Wait()
	}
}
