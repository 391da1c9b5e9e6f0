package provisioning

import (
	"context"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Rotate replaces the credentials of the database of a connected store. It verifies the
// new ones first: they must give access to the store's own data and permission to change
// it. Then it saves them. Later requests use them. Open leases of the database continue
// with the old ones. After a failure the old ones stay in use.
//
// It fails with a database_… code for a fault of the server, with database_not_empty or
// invalid_request for a database that is not this store's, and with
// provisioning_in_progress, store_pending_database or store_suspended for a store in a
// state without a usable database. Of two concurrent calls the last one to save takes
// effect. The same credentials again change nothing.
func (s *Service) Rotate(ctx context.Context, p authz.Principal, store stoa.StoreID, c credential.Credentials) error {
	if _, err := authz.Check(ctx, s.db, p, store, authz.RotateCredentials); err != nil {
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
	// The schema is the location of the tables and not a credential. Without one, the
	// present schema is used. How the tables came there stays as it is, too.
	c.Adopt = false
	if current, err := s.tenants.Load(ctx, s.db, store); err == nil && c.Kind == current.Kind {
		c.Adopt = current.Adopt
		if c.Schema == "" {
			c.Schema = current.Schema
		}
	}
	var found Finding
	c, err := s.roleCredentials(ctx, store, c)
	check := preflight{store: store, credentials: c, atWork: true, rotation: true}
	if err == nil {
		found, err = s.runPreflight(ctx, check)
	}
	if err != nil {
		s.log.InfoContext(ctx, "rotation refused", "store", store.String(), "code", string(stoa.CodeOf(err)), "err", err)
		return s.recordPreflight(ctx, audit.CredentialsRotated, p, check, err, nil)
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.replace(ctx, tx, p, store, c, found) })
	// The cache is dropped also after an error: a transaction whose connection was lost
	// may have committed.
	s.tenants.Forget(store)
	return err
}

// roleCredentials returns the credentials of the store's own role when the store has one
// in the Supabase project of c and c is for another role, such as postgres. It then
// restores the role's permissions, settings and password. The password stays the stored
// one, if that can be read. So neither a later failure nor a concurrent call leaves the
// store with a password that is not its role's. Other credentials are returned unchanged.
func (s *Service) roleCredentials(ctx context.Context, store stoa.StoreID, c credential.Credentials) (credential.Credentials, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return c, err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
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
	password := credential.NewPassword()
	if current, err := s.tenants.Load(ctx, s.db, store); err == nil && strings.HasPrefix(current.User, in.Role) {
		password = current.Password
	}
	return s.tenants.Isolate(ctx, db, in, password)
}

// checkRotatable fails for a managed database, whose credentials the owner may not
// change.
func (s *Service) checkRotatable(ctx context.Context, q masterdb.Querier, store stoa.StoreID) error {
	info, err := tenantdb.ReadInfo(ctx, q, store)
	if err == nil && info != nil && info.Kind == credential.Managed {
		var faults stoa.Invalid
		faults.Add("type", "this store's database is managed by Stoa: there are no credentials to rotate")
		return faults.Err()
	}
	return err
}

// replace saves verified credentials with the findings of the preflight.
func (s *Service) replace(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID, c credential.Credentials, found Finding) error {
	if err := s.registry.LockNotMoving(ctx, tx, store); err != nil {
		return err
	}
	if err := s.checkRotatable(ctx, tx, store); err != nil {
		return err
	}
	// Credentials that cannot be decrypted any more are replaced too.
	current, err := s.tenants.Load(ctx, tx, store)
	current.RolePassword = keyring.Secret{} // it was created for a run and is not needed any more
	if err != nil || current != c {
		if err := s.tenants.Save(ctx, tx, store, c); err != nil {
			return err
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.CredentialsRotated, Store: store}); err != nil {
			return err
		}
	}
	if err := tenantdb.RecordSchema(ctx, tx, store, found.Schema); err != nil {
		return err
	}
	return tenantdb.RecordHealth(ctx, tx, store, nil)
}
