package provisioning

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// The methods of this file are for the import of stores by an operator with access to the
// master database. They check no permission.

// ConnectByOperator does what Connect does. The quota of managed databases does not apply.
func (s *Service) ConnectByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, c credential.Credentials) (Run, error) {
	return s.connect(ctx, request{principal: p, store: store, credentials: c, unlimited: true})
}

// takeOverAfter is how long FinishByOperator waits for the execution of a run, before it
// looks whether there is one.
const takeOverAfter = time.Second

// FinishByOperator returns the store's last run with its steps when it has ended. A run
// that no present process executes, because its process was killed or because it waits for
// its job, is executed within this call. It fails with not_found when the store has had no
// run, and when ctx ends before the run.
func (s *Service) FinishByOperator(ctx context.Context, store stoa.StoreID) (Run, error) {
	run, err := latest(ctx, s.db, store)
	if err != nil {
		return Run{}, err
	}
	for {
		if run, err = s.Wait(ctx, run.ID, takeOverAfter); err != nil || run.Done() {
			return run, err
		}
		// The job does nothing while another execution has the lease of the run.
		if err := s.Provision(ctx, Provision{RunID: run.ID, Attempt: run.Attempt}); err != nil {
			return Run{}, err
		}
	}
}

// TestByOperator checks, as Test does, a database for a store that waits for one or, with
// the zero id, for a store that does not exist yet.
func (s *Service) TestByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, c credential.Credentials) (Finding, error) {
	check := preflight{store: store, credentials: c}
	if err := s.checkOwn(&check.credentials); err != nil {
		return Finding{}, err
	}
	if store.IsZero() {
		check.store = stoa.NewID[stoa.StoreID]() // no database belongs to it
	}
	found, err := s.test(ctx, check)
	check.store = store // the audit log knows only stores that exist
	return found, s.recordPreflight(ctx, audit.DatabaseTested, p, check, err, found.Fault.Err())
}
