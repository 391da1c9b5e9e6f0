package backups

import (
	"context"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
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
	var faults stoa.Invalid
	for _, w := range c.Without {
		if w != WithoutCustomers && w != WithoutOrders {
			faults.Add("without", "is a list of customers and orders")
		}
	}
	if err := faults.Err(); err != nil {
		return stores.Store{}, Restore{}, err
	}
	if _, err := read(ctx, s.db, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, id, store); err != nil {
		return stores.Store{}, Restore{}, err
	}
	created, err := s.registry.Create(ctx, p, c.New)
	if err != nil {
		return stores.Store{}, Restore{}, err
	}
	if earlier, err := readRestore(ctx, s.db, `store_id = $1 ORDER BY id LIMIT 1`, created.ID); stoa.CodeOf(err) != stoa.NotFound {
		return created, earlier.restore(), err // of an earlier call with the same key
	}
	r, err := s.startClone(ctx, p, created.ID, store, id, c.Without)
	return created, r, err
}

// startClone connects the new store's database and starts the restore. Both can follow an
// earlier call that was interrupted.
func (s *Service) startClone(ctx context.Context, p authz.Principal, created, source stoa.StoreID, id stoa.BackupID, without []string) (Restore, error) {
	_, err := s.provisioning.Connect(ctx, p, created, credential.Credentials{Kind: credential.Managed})
	if code := stoa.CodeOf(err); err != nil && code != stoa.AlreadyConnected && code != stoa.ProvisioningInProgress {
		return Restore{}, err
	}
	without = slices.Compact(slices.Sorted(slices.Values(without)))
	r, err := s.startRestore(ctx, p, restoreRow{
		Restore: Restore{StoreID: created, BackupID: id, SourceID: source, Step: stepDatabase}, Without: strings.Join(without, ","),
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
