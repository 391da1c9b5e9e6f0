package provisioning

import (
	"context"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// Rotate gives a store at work new credentials for the database it has. They
// are proven first: they must lead to this store's own data and be allowed to
// change them. Then they are saved, and who comes next is served with them,
// while leases that are out finish on the pool of before. Whatever fails
// before that leaves the old ones in use.
//
// It fails with a database_… code for what is wrong at the server, with
// database_not_empty or invalid_request for a database that is not this
// store's, and with provisioning_in_progress, store_pending_database or
// store_suspended in a state without a database at work. Of two calls at once
// both are proven and the last to be saved holds. The same credentials again
// change nothing.
func (s *Service) Rotate(ctx context.Context, p access.Principal, store stoa.StoreID, c tenantdb.Credentials) error {
	if _, err := access.Check(ctx, s.db, p, store, access.RotateCredentials); err != nil {
		return err
	}
	if err := s.checkOwn(&c); err != nil {
		return err
	}
	if err := s.checkRotatable(ctx, s.db, store); err != nil {
		return err
	}
	if err := s.registry.CheckConnected(ctx, store); err != nil {
		return err
	}
	// The schema is where the tables are, and is no credential: who leaves it out
	// means the same one.
	if current, err := s.tenants.Load(ctx, s.db, store); err == nil && c.Schema == "" && c.Kind == current.Kind {
		c.Schema = current.Schema
	}
	var found Finding
	c, err := s.roleCredentials(ctx, store, c)
	if err == nil {
		found, err = s.examine(ctx, store, c, true, func(ctx context.Context, db *tenantdb.DB) error {
			if err := shop.ProveWritable(ctx, db, store); err != nil {
				return err
			}
			return db.SelfTest(ctx)
		})
	}
	if err != nil {
		s.log.InfoContext(ctx, "rotation refused", "store", store.String(), "code", string(stoa.CodeOf(err)), "err", err)
		return s.recordLook(ctx, access.CredentialsRotated, p, store, c, err, nil)
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.replace(ctx, tx, p, store, c, found) })
	// Also after an error: whether a lost connection has committed is unknown.
	s.tenants.Forget(store)
	return err
}

// roleCredentials returns the credentials of the store's own role when the
// store has one in the Supabase project that c leads to and c is another's, such
// as the role postgres. The role's rights, settings and password are then made
// as they should be. The password stays the one that is stored, if that can be
// read: so nothing that fails afterwards, and no call at the same time, leaves
// a store with a password that is not its role's. Other credentials are returned
// as they are.
func (s *Service) roleCredentials(ctx context.Context, store stoa.StoreID, c tenantdb.Credentials) (tenantdb.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return c, err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	if err := db.Ping(ctx); err != nil {
		return c, err
	}
	in, err := s.tenants.PlanIsolation(ctx, db, store)
	if err != nil || in.Role == "" {
		return c, err
	}
	held, _, err := db.Isolated(ctx, store)
	if err == nil && !held {
		err = errNotHeld()
	}
	if err != nil {
		return c, err
	}
	password := tenantdb.NewPassword()
	if current, err := s.tenants.Load(ctx, s.db, store); err == nil && strings.HasPrefix(current.User, in.Role) {
		password = current.Password
	}
	return s.tenants.Isolate(ctx, db, in, password)
}

// checkRotatable refuses a store whose credentials are Stoa's own business.
func (s *Service) checkRotatable(ctx context.Context, q masterdb.Querier, store stoa.StoreID) error {
	info, err := tenantdb.ReadInfo(ctx, q, store)
	if err == nil && info != nil && info.Kind == tenantdb.Managed {
		var faults stoa.Invalid
		faults.Add("type", "this store's database is managed by Stoa: there are no credentials to rotate")
		return faults.Err()
	}
	return err
}

// replace saves proven credentials with what the proof has shown.
func (s *Service) replace(ctx context.Context, tx *masterdb.Tx, p access.Principal, store stoa.StoreID, c tenantdb.Credentials, found Finding) error {
	if err := s.registry.LockConnected(ctx, tx, store); err != nil {
		return err
	}
	if err := s.checkRotatable(ctx, tx, store); err != nil {
		return err
	}
	// Credentials that cannot be read any more are there to be replaced.
	current, err := s.tenants.Load(ctx, tx, store)
	current.RolePassword = keyring.Secret{} // planned for a run, and never needed
	if err != nil || current != c {
		if err := s.tenants.Save(ctx, tx, store, c); err != nil {
			return err
		}
		if err := access.Record(ctx, tx, p, access.Event{Action: access.CredentialsRotated, Store: store}); err != nil {
			return err
		}
	}
	if err := tenantdb.RecordSchema(ctx, tx, store, found.Schema); err != nil {
		return err
	}
	return tenantdb.RecordHealth(ctx, tx, store, nil)
}
