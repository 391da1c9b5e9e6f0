package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
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
	if err := s.registry.Connected(ctx, store); err != nil {
		return err
	}
	found, err := s.examine(ctx, store, c, true, func(ctx context.Context, db *tenantdb.DB) error {
		return shop.ProveWritable(ctx, db, store)
	})
	if err != nil {
		s.log.InfoContext(ctx, "rotation refused", "store", store.String(), "code", string(stoa.CodeOf(err)), "err", err)
		return s.recordLook(ctx, access.CredentialsRotated, p, store, c, err, nil)
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.replace(ctx, tx, p, store, c, found) })
	// Also after an error: whether a lost connection has committed is unknown.
	s.tenants.Forget(store)
	return err
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
	if err := s.registry.HoldConnected(ctx, tx, store); err != nil {
		return err
	}
	if err := s.checkRotatable(ctx, tx, store); err != nil {
		return err
	}
	// Credentials that cannot be read any more are there to be replaced.
	if current, err := s.tenants.Load(ctx, tx, store); err != nil || current != c {
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
