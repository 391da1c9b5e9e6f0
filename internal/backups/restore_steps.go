package backups

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// databasePoll is the interval at which a clone looks whether its database is connected.
const databasePoll = time.Second

// awaitDatabase waits until the database of a clone is connected.
func (s *Service) awaitDatabase(ctx context.Context, r restoreRow) error {
	err := s.registry.CheckConnected(ctx, r.StoreID)
	switch stoa.CodeOf(err) { //nolint:exhaustive // the others are errors
	case stoa.ProvisioningInProgress:
		return &waitError{databasePoll}
	case stoa.StorePendingDatabase:
		return stoa.Errorf(stoa.StorePendingDatabase, "The new store's database could not be connected. Connect one to it, and restore the archive again.")
	}
	return err
}

// checkSource reads the archive whole, and checks that its rows can replace the present ones.
func (s *Service) checkSource(ctx context.Context, r restoreRow) error {
	if err := s.checkPresent(ctx, r); err != nil {
		return err
	}
	b, err := read(ctx, s.db, `b.id = $1 AND b.state = 'succeeded'`, r.BackupID)
	if err != nil {
		return err
	}
	return s.reading(ctx, b, archive.ReadOptions{}, func(a *archive.Reader) error {
		if err := r.accepts(a.Head); err != nil {
			return err
		}
		if err := readAll(ctx, a, s.loading(ctx, r, b.RowCount)); err != nil {
			return err
		}
		return b.checkSame(a)
	})
}

// checkPresent fails if the restore would lose what no archive has, so that the store is not
// closed for nothing. A database that cannot be read may be what the restore is for.
func (s *Service) checkPresent(ctx context.Context, r restoreRow) error {
	if r.Clone() {
		return nil
	}
	db, err := s.open(ctx, r.StoreID)
	if err != nil {
		return nil //nolint:nilerr // see above
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := archive.CheckReplaceable(ctx, db); stoa.CodeOf(err) == stoa.ArchiveRefused {
		return err
	}
	return nil
}

// accepts fails for an archive that may not be loaded into the store.
func (r restoreRow) accepts(h archive.Head) error {
	if err := h.CheckSchema(); err != nil || r.Clone() {
		return err
	}
	return h.CheckStore(r.StoreID)
}

func (s *Service) closeDatabase(ctx context.Context, tx *masterdb.Tx, r restoreRow) error {
	return tenantdb.BeginRestore(ctx, tx, r.StoreID)
}

// drain waits until the requests that use the database have ended. Those of other processes
// are not known: they end within the time that a statement may take.
func (s *Service) drain(ctx context.Context, r restoreRow) error {
	s.tenants.Forget(r.StoreID)
	if err := s.tenants.AwaitClosed(ctx, r.StoreID); err != nil {
		return err
	}
	var others int
	if err := s.db.Get(ctx, &others, `SELECT count(*) FROM processes WHERE name <> $1`, s.process.Name()); err != nil || others == 0 {
		return err
	}
	select {
	case <-time.After(s.opts.CloseWait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// save archives the present rows, unless there are none.
func (s *Service) save(ctx context.Context, r restoreRow) error {
	if r.Clone() {
		return nil
	}
	fresh, err := s.checkReplaceable(ctx, r)
	if err != nil || fresh || r.Unsaved {
		return err
	}
	id, err := s.savedID(ctx, r)
	if err != nil {
		return err
	}
	if err := s.withLease(ctx, backupLeases, id, func(ctx context.Context, owner lease.Owner) error { return s.make(ctx, id, owner) }); err != nil {
		return err
	}
	saved, err := s.get(ctx, r.StoreID, id)
	switch {
	case err != nil:
		return err
	case saved.State == Failed:
		return stoa.Errorf(saved.Fault.Code, "The present rows could not be archived, so nothing was replaced: %s Restore without archiving them if they may be lost.", saved.Fault.Message)
	case saved.State != Succeeded:
		return &waitError{databasePoll}
	}
	_, err = s.checkReplaceable(ctx, r) // the owner's software may have written while the archive was made
	return err
}

// checkReplaceable fails if the restore would lose what no archive has. fresh reports that the
// database has no rows of a store.
func (s *Service) checkReplaceable(ctx context.Context, r restoreRow) (fresh bool, err error) {
	db, fresh, err := s.openTarget(ctx, r.StoreID)
	if err != nil {
		return false, err
	}
	if !fresh {
		err = archive.CheckReplaceable(ctx, db)
	}
	if r.Unsaved && stoa.CodeOf(err) != stoa.ArchiveRefused { // the database may be damaged
		err = nil
	}
	return fresh, errors.Join(err, db.Close())
}

// savedID returns the archive of the present rows, which it records once.
func (s *Service) savedID(ctx context.Context, r restoreRow) (id stoa.BackupID, err error) {
	if r.SavedID != nil {
		return *r.SavedID, nil
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		until := tx.Now.Add(savedFor)
		if id, err = s.insert(ctx, tx, r.StoreID, Saved, r.CreatedBy, &until); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE backup_restores SET saved_id = $2 WHERE id = $1`, r.ID, id)
		return err
	})
	return id, err
}

// openTarget opens the database that is to be loaded. It creates a managed one that is lost.
// fresh reports that it has no rows of a store.
func (s *Service) openTarget(ctx context.Context, store stoa.StoreID) (_ *tenantdb.DB, fresh bool, err error) {
	c, err := s.tenants.Load(ctx, s.db, store)
	if err != nil {
		return nil, false, err
	}
	if err := s.managed.Make(ctx, c); err != nil {
		return nil, false, err
	}
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if err != nil {
			_ = db.Close()
		}
	}()
	if err := db.EnsureSchema(ctx); err != nil {
		return nil, false, err
	}
	if err := db.PinSession(ctx, store); err != nil {
		return nil, false, err
	}
	in, err := db.Inspect(ctx)
	if err != nil {
		return nil, false, err
	}
	fresh, err = isFresh(ctx, db, in, store)
	return db, fresh, err
}

// isFresh reports whether a database has no rows of any store: a new embedded one has all
// tables already. It fails for one that is another store's.
func isFresh(ctx context.Context, db *tenantdb.DB, in tenantdb.Inspection, store stoa.StoreID) (bool, error) {
	if slices.Contains(in.Tables, tenantdb.MarkerTable) {
		marked, err := db.Marked(ctx, store)
		if errors.Is(err, tenantdb.ErrMarked) {
			return false, storedata.ErrForeignStore
		}
		if marked || err != nil {
			return false, err
		}
	}
	if !slices.Contains(in.Tables, "stores") {
		return true, nil
	}
	held, err := storedata.StoreIDs(ctx, db)
	if err == nil && slices.ContainsFunc(held, func(id stoa.StoreID) bool { return id != store }) {
		err = storedata.ErrForeignStore
	}
	return len(held) == 0, err
}

func (s *Service) load(ctx context.Context, r restoreRow) error {
	err := s.loadBackup(ctx, r, r.BackupID)
	var known *stoa.Error
	if r.SavedID == nil && errors.As(err, &known) {
		closed := *known
		closed.Message += " The store stays closed, because its rows are not complete: restore another archive."
		return &closed
	}
	return err
}

// undo loads the rows that the restore has replaced.
func (s *Service) undo(ctx context.Context, r restoreRow) error {
	return s.loadBackup(ctx, r, *r.SavedID)
}

// loadBackup replaces the rows of the store's database with those of an archive.
func (s *Service) loadBackup(ctx context.Context, r restoreRow, id stoa.BackupID) error {
	b, err := read(ctx, s.db, `b.id = $1 AND b.state = 'succeeded'`, id)
	if err != nil {
		return err
	}
	db, _, err := s.openTarget(ctx, r.StoreID)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := db.Mark(ctx, r.StoreID); err != nil {
		return err
	}
	schema, err := db.MigrateTo(ctx, tenantdb.MigrateOptions{})
	if err == nil {
		err = s.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.RecordSchema(ctx, tx, r.StoreID, schema) })
	}
	if err != nil {
		return err
	}
	err = s.reading(ctx, b, archive.ReadOptions{}, func(a *archive.Reader) error {
		if err := r.accepts(a.Head); err != nil {
			return err
		}
		if err := s.replaceRows(ctx, db, a, s.loading(ctx, r, b.RowCount)); err != nil {
			return err
		}
		return b.checkSame(a) // the storage may answer otherwise than for the check
	})
	if err != nil || !r.Clone() {
		return err
	}
	return s.becomeClone(ctx, db, r)
}

// replaceRows loads an archive into a database of the current schema. Rows of an earlier
// schema are brought to the current one in a temporary database first.
func (s *Service) replaceRows(ctx context.Context, db *tenantdb.DB, a *archive.Reader, onRows func(int64)) error {
	anew := archive.LoadOptions{Done: func(string) bool { return false }, OnRows: onRows} // tables that have rows are emptied
	if a.Head.SchemaVersion == tenantdb.LatestVersion() {
		return archive.Load(ctx, db, a, anew)
	}
	return s.upgraded(ctx, a, func(current *archive.Reader) error { return archive.Load(ctx, db, current, anew) })
}

// upgraded calls use with an archive of the same rows in the current schema.
func (s *Service) upgraded(ctx context.Context, a *archive.Reader, use func(*archive.Reader) error) (err error) {
	scratch, err := s.tenants.OpenScratch()
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	if err != nil {
		return err
	}
	if err := archive.Load(ctx, scratch.DB, a, archive.LoadOptions{}); err != nil {
		return err
	}
	if _, err := scratch.MigrateTo(ctx, tenantdb.MigrateOptions{}); err != nil {
		return err
	}
	key, err := archive.NewStoreKey()
	if err != nil {
		return err
	}
	file, err := os.OpenFile(filepath.Join(scratch.Folder, "upgraded.stoa"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer file.Close() //nolint:errcheck // it is deleted with its folder
	if _, _, err := archive.Write(ctx, scratch.DB, a.Head.Store, file, archive.WriteOptions{}, key.Recipients(nil)...); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	current, err := archive.NewReader(file, archive.ReadOptions{}, key.Identity())
	if err != nil {
		return err
	}
	defer current.Close()
	return use(current)
}

// becomeClone makes the rows of another store those of the new one.
func (s *Service) becomeClone(ctx context.Context, db *tenantdb.DB, r restoreRow) error {
	identity, err := s.registry.ReadIdentity(ctx, r.StoreID)
	if err != nil {
		return err
	}
	without := storedata.Without{Customers: slices.Contains(r.withouts(), WithoutCustomers), Orders: slices.Contains(r.withouts(), WithoutOrders)}
	if err := storedata.BecomeClone(ctx, db, storedata.Profile{ID: r.StoreID, ProfileValues: storedata.ProfileValues{Name: identity.Name, Slug: identity.Slug}}, without); err != nil {
		return err
	}
	owner, err := authz.OwnerOf(ctx, s.db, r.StoreID)
	if err != nil {
		return err
	}
	err = storedata.CreateOwner(ctx, db, storedata.Owner{ID: owner.UserID, Email: owner.Email, FirstName: owner.FirstName, LastName: owner.LastName})
	if stoa.CodeOf(err) == stoa.EmailTaken { // the owner is a customer of the store that was cloned
		return nil
	}
	return err
}

// reopen lets others use the database again, and brings what the master decides into it.
func (s *Service) reopen(ctx context.Context, tx *masterdb.Tx, r restoreRow) error {
	err := tenantdb.EndRestore(ctx, tx, r.StoreID)
	if stoa.CodeOf(err) == stoa.StorePendingDatabase {
		return nil // the store was deleted
	}
	if err != nil {
		return err
	}
	if err := tenantdb.RecordHealth(ctx, tx, r.StoreID, nil); err != nil {
		return err
	}
	return s.registry.SyncAfterRestore(ctx, tx, r.StoreID)
}
