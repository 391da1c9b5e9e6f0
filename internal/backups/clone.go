package backups

import (
	"context"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// What a clone can leave out. Without customers it has no orders either, because they name
// customers.
const (
	WithoutCustomers = "customers"
	WithoutOrders    = "orders"
)

// Clone describes a new store with the rows of an archive.
type Clone struct {
	New     stores.NewStore
	Without []string // of WithoutCustomers and WithoutOrders
}

// Clone creates a store that belongs to the caller, connects a managed database to it, and
// starts to load the archive into that. The new store has no credits, keys, hostnames and
// members of the old one. A repeated call with the same idempotency key returns the same
// store. It fails with invalid_request, and as stores.Registry.Create does.
func (s *Service) Clone(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID, c Clone) (stores.Store, Restore, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.DownloadBackup); err != nil {
		return stores.Store{}, Restore{}, err
	}
	if err := s.checkClone(ctx, store, id, c); err != nil {
		return stores.Store{}, Restore{}, err
	}
	created, err := s.registry.Create(ctx, p, c.New)
	if err != nil {
		return stores.Store{}, Restore{}, err
	}
	r, err := s.startClone(ctx, p, created.ID, store, id, c.Without, s.provisioning.Connect)
	return created, r, err
}

// CloneByOperator does what Clone does, for an operator with access to the master database.
// The new store belongs to the owner of the archive's store. It checks no permission and no
// quota. A repeated call with the same archive, name, slug and omissions returns the same
// store.
func (s *Service) CloneByOperator(ctx context.Context, by authz.Principal, store stoa.StoreID, id stoa.BackupID, c Clone) (stores.Store, Restore, error) {
	if err := s.checkClone(ctx, store, id, c); err != nil {
		return stores.Store{}, Restore{}, err
	}
	owner, err := authz.OwnerOf(ctx, s.db, store)
	if err != nil {
		return stores.Store{}, Restore{}, err
	}
	c.New.IdempotencyKey = "clone:" + id.String() + ":" + credits.RequestHash("clone", c.New.Name, c.New.Slug, joined(c.Without))
	created, err := s.registry.CreateByOperator(ctx, by, owner.UserID, c.New)
	if err != nil {
		return stores.Store{}, Restore{}, err
	}
	if created.Status == stores.Deleting || created.Status == stores.Deleted {
		return stores.Store{}, Restore{}, stoa.Errorf(stoa.IdempotencyConflict, "This archive was cloned before into a store of this name and slug, which has been deleted since. Give the new store another name or slug.")
	}
	r, err := s.startClone(ctx, by, created.ID, store, id, c.Without, s.provisioning.ConnectByOperator)
	return created, r, err
}

// checkClone fails unless the archive is a complete one of the store, and the clone leaves
// out what can be left out.
func (s *Service) checkClone(ctx context.Context, store stoa.StoreID, id stoa.BackupID, c Clone) error {
	var faults stoa.Invalid
	for _, w := range c.Without {
		if w != WithoutCustomers && w != WithoutOrders {
			faults.Add("without", "is a list of customers and orders")
		}
	}
	if err := faults.Err(); err != nil {
		return err
	}
	_, err := read(ctx, s.db, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, id, store)
	return err
}

// connector connects a store to a database.
type connector func(context.Context, authz.Principal, stoa.StoreID, credential.Credentials) (provisioning.Run, error)

// startClone connects the new store's database and starts the restore, unless an earlier
// call has started it. Both can follow an earlier call that was interrupted.
func (s *Service) startClone(ctx context.Context, p authz.Principal, created, source stoa.StoreID, id stoa.BackupID, without []string, connect connector) (Restore, error) {
	earlier, err := readRestore(ctx, s.db, `store_id = $1 ORDER BY id LIMIT 1`, created)
	if stoa.CodeOf(err) != stoa.NotFound {
		return earlier.restore(), err
	}
	_, err = connect(ctx, p, created, credential.Credentials{Kind: credential.Managed})
	if code := stoa.CodeOf(err); err != nil && code != stoa.AlreadyConnected && code != stoa.ProvisioningInProgress {
		return Restore{}, err
	}
	r, err := s.startRestore(ctx, p, restoreRow{
		Restore: Restore{StoreID: created, BackupID: id, SourceID: source, Step: stepDatabase}, Without: joined(without),
	})
	if stoa.CodeOf(err) == stoa.RestoreInProgress { // a call at the same time has started it
		return s.LastRestoreByOperator(ctx, created)
	}
	if err != nil {
		return Restore{}, err
	}
	return r, s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupCloned, Store: source, Details: map[string]string{"backup": id.String(), "into": created.String()}})
	})
}

// joined returns what a clone leaves out as the restore records it.
func joined(without []string) string {
	return strings.Join(slices.Compact(slices.Sorted(slices.Values(without))), ",")
}
