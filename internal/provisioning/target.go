package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestTarget checks a database that a store is to be moved to without changing it, as Test
// checks one for a store that waits for a database. Nothing in it is adopted.
func (s *Service) TestTarget(ctx context.Context, p authz.Principal, store stoa.StoreID, given *credential.Credentials) (Finding, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MoveDatabase); err != nil {
		return Finding{}, err
	}
	check := preflight{store: store, credentials: *given}
	check.credentials.Adopt = false
	if err := s.checkOwn(&check.credentials); err != nil {
		return Finding{}, err
	}
	found, err := s.test(ctx, check)
	return found, s.recordPreflight(ctx, audit.DatabaseTested, p, check, err, found.Fault.Err())
}

// PlanProject returns the plan of credentials in a Supabase project of the account that the
// store is connected to: see credential.Credentials.PlannedProject. It fails as
// ConnectProject does. It checks no permission.
func (s *Service) PlanProject(ctx context.Context, store stoa.StoreID, ref string) (credential.Credentials, error) {
	if err := s.opts.Cloud.Check(ctx, store, link.Choice{Ref: ref}); err != nil {
		return credential.Credentials{}, err
	}
	return credential.PlanProject(ref), nil
}

// PrepareProject makes the role that PlanProject has planned, and returns its credentials. It
// waits until the project is ready. It can be repeated.
func (s *Service) PrepareProject(ctx context.Context, store stoa.StoreID, planned credential.Credentials, reporter link.WaitReporter) (credential.Credentials, error) {
	return s.opts.Cloud.PrepareProject(ctx, store, planned.PlannedProject(), planned.RolePassword, reporter)
}

// OpenTarget opens a database that a store is to be moved to, as a run does that connects a
// store: it makes a managed database, and a role of the store's own in a Supabase project.
// It fails for a server that suits no store and for a database that is marked as another
// store's. It returns the credentials to be used from then on. It can be repeated. The
// caller closes the database.
func (s *Service) OpenTarget(ctx context.Context, store stoa.StoreID, c credential.Credentials) (_ *tenantdb.DB, _ credential.Credentials, in tenantdb.Inspection, err error) {
	if err := s.managed.Make(ctx, c); err != nil {
		return nil, c, in, err
	}
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return nil, c, in, err
	}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	if err := db.Ping(ctx); err != nil {
		return nil, c, in, err
	}
	isolation, err := s.tenants.PlanIsolation(ctx, db, store)
	if err != nil {
		return nil, c, in, err
	}
	if isolation.Role != "" {
		// To isolate the store again would change the password of the role in use.
		held, _, err := db.Isolated(ctx, store)
		if err == nil && held {
			err = stoa.Errorf(stoa.DatabaseNotEmpty, "This database holds the store already, in a schema of the store's own. Give the address of another one.")
		}
		if err != nil {
			return nil, c, in, err
		}
		if c, err = s.tenants.Isolate(ctx, db, isolation, c.RolePassword); err != nil {
			return nil, c, in, err
		}
		_ = db.Close()
		if db, err = s.tenants.OpenUnleased(c); err != nil {
			return nil, c, in, err
		}
	} else if err := db.EnsureSchema(ctx); err != nil {
		return nil, c, in, err
	}
	if err := db.PinSession(ctx, store); err != nil {
		return nil, c, in, err
	}
	if in, err = db.Inspect(ctx); err == nil {
		err = checkServer(in)
	}
	return db, c, in, err
}
