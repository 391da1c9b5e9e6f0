package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Credentials returns the credentials of one role of a store's managed database, for the
// store's own software. It creates the role that may only read when it is asked for the
// first time, and completes a reset that was interrupted. Each reading is in the audit
// log. It fails with not_found for an embedded database, which has no address, and for one
// of the owner's own, and with provisioning_in_progress, store_pending_database or
// store_suspended for a store in a state without a usable database.
func (s *Service) Credentials(ctx context.Context, p authz.Principal, store stoa.StoreID, a credential.Access) (credential.Credentials, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadCredentials); err != nil {
		return credential.Credentials{}, err
	}
	return s.CredentialsByOperator(ctx, p, store, a)
}

// CredentialsByOperator does what Credentials does, for an operator with access to the
// master database. It checks no permission.
func (s *Service) CredentialsByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, a credential.Access) (credential.Credentials, error) {
	c, err := s.onServer(ctx, store)
	if err != nil {
		return credential.Credentials{}, err
	}
	if a == credential.ReadAccess && c.Reader.Password.IsZero() && c.Reader.Reset.Next.IsZero() {
		if c, err = s.planPassword(ctx, store, a, nil); err != nil {
			return credential.Credentials{}, err
		}
	}
	if !c.ResetOf(a).Next.IsZero() {
		if c, err = s.finishReset(ctx, store, a); err != nil {
			return credential.Credentials{}, err
		}
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.CredentialsShown, Store: store, Details: accessDetails(a)})
	})
	if err != nil {
		return credential.Credentials{}, err
	}
	return s.tenants.WithServerTLS(c).As(a), nil
}

func accessDetails(a credential.Access) map[string]string {
	return map[string]string{"access": string(a)}
}

// onServer returns the credentials of a store's managed database on a server. It fails as
// Credentials does.
func (s *Service) onServer(ctx context.Context, store stoa.StoreID) (credential.Credentials, error) {
	if err := s.registry.CheckConnected(ctx, store); err != nil {
		return credential.Credentials{}, err
	}
	return s.loadOnServer(ctx, store)
}

// loadOnServer does what onServer does for a store in any state.
func (s *Service) loadOnServer(ctx context.Context, store stoa.StoreID) (credential.Credentials, error) {
	c, err := s.tenants.Load(ctx, s.db, store)
	switch {
	case err != nil:
		return credential.Credentials{}, err
	case c.Kind != credential.Managed:
		return credential.Credentials{}, stoa.Errorf(stoa.NotFound, "This database is your own: its provider shows its connection string, and changes its password.")
	case c.Engine.Embedded():
		return credential.Credentials{}, stoa.Errorf(stoa.NotFound, "This database is embedded in the platform and has no address and no password. Reach its data through the API, or download an archive of it: a backup.")
	}
	return c, nil
}
