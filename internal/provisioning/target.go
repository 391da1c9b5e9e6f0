package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
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
