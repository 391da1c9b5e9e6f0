package imports

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
)

// storeTimeout limits the work on one store. A run of a process that was killed is taken
// over when its lease has expired.
const storeTimeout = 2 * provisioning.Timeout

// Run imports the stores of a file. It checks the whole file first, and changes nothing if
// that finds faults, which are in the summary. The failure of one store does not end the
// import: see Result. When ctx ends, no more stores are begun and those in progress are
// completed. The error is for what prevented the import.
func (s *Service) Run(ctx context.Context, by authz.Principal, f *File, o Options, observer Observer) (Summary, error) {
	begun := time.Now()
	sum, err := s.check(ctx, f, o)
	if err != nil || sum.FaultCount > 0 {
		return sum, err
	}
	in, err := f.rows()
	if err != nil {
		return sum, err
	}
	r := &run{Service: s, by: by, opts: o, observer: observer, sum: sum,
		slots: make(chan struct{}, min(max(o.Parallel, 1), MaxParallel)), planned: map[string]bool{}}
	observer.Begin(sum.Lines)
	err = r.dispatch(ctx, in)
	r.workers.Wait()
	r.sum.NotReached = r.sum.Lines - r.ended
	r.sum.Duration = time.Since(begun)
	return r.sum, err
}

// run is one import of a file that was checked.
type run struct {
	*Service
	by       authz.Principal
	opts     Options
	observer Observer
	slots    chan struct{} // has a value for each store in progress
	workers  sync.WaitGroup
	planned  map[string]bool // the addresses of accounts that a dry run would create

	mu    sync.Mutex
	sum   Summary
	ended int
}

// dispatch reads the file again. It creates the owners, one after the other, so that the
// first line of each decides, and starts the work on the stores.
func (r *run) dispatch(ctx context.Context, in *rows) error {
	for {
		line, err := in.read()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case r.slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		if ctx.Err() != nil || r.stopped() {
			return nil
		}
		begun := time.Now()
		rec := r.decode(&line, r.opts.Verified)
		result := Result{Line: line.line, Email: rec.owner.Email, Slug: rec.store.Slug}
		owner, err := r.owner(context.WithoutCancel(ctx), line, rec, &result)
		r.workers.Go(func() {
			defer func() { <-r.slots }()
			if err == nil {
				err = r.store(context.WithoutCancel(ctx), owner, rec, &result)
			}
			r.end(begun, result, err)
		})
	}
}

// stopped reports whether a failure ends the import.
func (r *run) stopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.StopOnError && r.sum.Failed > 0
}

// end reports the result of a line.
func (r *run) end(begun time.Time, result Result, err error) {
	result.Duration = time.Since(begun)
	if err != nil {
		result.State = Failed
		result.Code, result.Message = stoa.CodeOf(err), "Something went wrong. The log has the cause; run the import again."
		var known *stoa.Error
		switch {
		case errors.As(err, &known):
			result.Message = known.Message
		case errors.Is(err, context.DeadlineExceeded):
			result.Message = fmt.Sprintf("The store was not ready after %s. Run the import again.", storeTimeout)
		default:
			r.log.Error("import of a store failed", "line", result.Line, "slug", result.Slug, "err", err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended++
	r.sum.add(result)
	r.observer.Add(result)
}

// owner returns the account of the line's owner, and creates it if there is none. In a dry
// run the id of an account that is missing is zero.
func (r *run) owner(ctx context.Context, line row, rec record, result *Result) (stoa.UserID, error) {
	if len(line.faults) > 0 {
		return stoa.UserID{}, stoa.Errorf(stoa.InvalidRequest, "The line was changed after it was checked. Run the import again.")
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var id stoa.UserID
	var err error
	if r.opts.DryRun {
		users, err := accounts.UsersByEmail(ctx, r.db, []string{rec.owner.Email})
		id = users[rec.owner.Email].ID
		if result.OwnerMade = err == nil && id.IsZero() && !r.planned[rec.owner.Email]; result.OwnerMade {
			r.planned[rec.owner.Email] = true
		}
		return id, err
	}
	id, result.OwnerMade, err = r.accounts.ImportUser(ctx, r.by, rec.owner)
	return id, err
}

// store makes what the line's store lacks.
func (r *run) store(ctx context.Context, owner stoa.UserID, rec record, result *Result) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	uses, err := r.registry.SlugUses(ctx, []string{rec.store.Slug})
	if err != nil {
		return err
	}
	use, used := uses[rec.store.Slug]
	if used && !use.OwnedBy(owner) {
		return stoa.Errorf(stoa.HostnameTaken, "The slug %q %s.", rec.store.Slug, takenText(use))
	}
	result.Store = use.Store
	if r.opts.DryRun {
		return r.plan(ctx, use, rec, result)
	}
	result.State = Kept
	if use.Store.IsZero() {
		var created bool
		if use, created, err = r.create(ctx, owner, rec); err != nil {
			return err
		}
		if result.Store = use.Store; created {
			result.State = Made
		}
	}
	if use.Status == stores.PendingDatabase || use.Status == stores.Provisioning {
		if result.State == Kept {
			result.State = Completed
		}
		if err := r.provision(ctx, use, rec, result); err != nil {
			return err
		}
		use.Status = stores.Active
	}
	if !use.Imported || use.Status != stores.Active {
		return nil
	}
	filled, err := r.registry.FillImported(ctx, r.by, use.Store, rec.profile)
	if filled && result.State == Kept {
		result.State = Completed
	}
	return err
}

// create creates the store. If an earlier import did and its owner has renamed it since,
// it returns that store.
func (r *run) create(ctx context.Context, owner stoa.UserID, rec record) (use stores.SlugUse, created bool, err error) {
	id, created, err := r.registry.Import(ctx, r.by, owner, rec.store)
	if err != nil {
		return stores.SlugUse{}, false, err
	}
	s, err := stores.Find(ctx, r.db, id.String())
	return stores.SlugUse{Store: id, Status: s.Status, Imported: true, Owners: []stoa.UserID{owner}}, created, err
}

// provision connects the store to its database, or goes on with what an earlier process
// has begun. If that has failed, it begins anew with what the file says now.
func (r *run) provision(ctx context.Context, use stores.SlugUse, rec record, result *Result) error {
	begun := use.Status == stores.Provisioning
	for {
		if !begun {
			_, err := r.provisioning.ConnectByOperator(ctx, r.by, use.Store, rec.database)
			switch stoa.CodeOf(err) {
			case "", stoa.ProvisioningInProgress, stoa.AlreadyConnected: // the last two: by another process
			default:
				return err
			}
		}
		ended, err := r.provisioning.FinishByOperator(ctx, use.Store)
		if err != nil {
			return err
		}
		if ended.State == provisioning.Succeeded {
			result.Warnings = ended.Warnings
			return nil
		}
		if !begun {
			return ended.Fault.Err()
		}
		begun = false
	}
}

// plan says what would be done, and looks into the owner's own database.
func (r *run) plan(ctx context.Context, use stores.SlugUse, rec record, result *Result) error {
	switch {
	case use.Store.IsZero():
		result.State = ToMake
	case use.Status == stores.PendingDatabase, use.Status == stores.Provisioning:
		result.State = ToComplete
	default:
		result.State = Kept
		return nil
	}
	if !rec.own() {
		return nil
	}
	found, err := r.provisioning.TestByOperator(ctx, r.by, use.Store, rec.database)
	if err != nil {
		return err
	}
	result.Warnings, result.Adoption = found.Warnings, found.Adoption
	return found.Fault.Err()
}
