package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Credentials returns the credentials of a store's managed database, for the store's
// own software. Each reading is in the audit log. It fails with not_found for an
// embedded database, which has no address, and for one of the owner's own.
func (s *Service) Credentials(ctx context.Context, p authz.Principal, store stoa.StoreID) (credential.Credentials, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadCredentials); err != nil {
		return credential.Credentials{}, err
	}
	c, err := s.tenants.Load(ctx, s.db, store)
	switch {
	case err != nil:
		return credential.Credentials{}, err
	case c.Kind != credential.Managed:
		return credential.Credentials{}, stoa.Errorf(stoa.NotFound, "This database is your own: its provider shows its connection string.")
	case c.Engine == credential.SQLite:
		return credential.Credentials{}, stoa.Errorf(stoa.NotFound, "This database is embedded in the platform and has no address. Reach its data through the API.")
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.CredentialsShown, Store: store})
	})
	if err != nil {
		return credential.Credentials{}, err
	}
	return c, nil
}
