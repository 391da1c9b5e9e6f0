package backups

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Discover puts the store's archives on record that are in the storage only, because they
// were made after the backup of the master that was restored. It reads each of them whole,
// and leaves out those that cannot be used. They are kept until somebody deletes them. It
// checks no permission.
func (s *Service) Discover(ctx context.Context, p authz.Principal, store stoa.StoreID) (found []Backup, err error) {
	var known []string
	if err := s.db.Select(ctx, &known, `SELECT name FROM backups WHERE store_id = $1`, store); err != nil {
		return nil, err
	}
	recorded := map[string]bool{}
	for _, name := range known {
		recorded[name] = true
	}
	var files []archive.Stored
	err = s.storage.List(ctx, archive.StorePrefix(store), func(file archive.Stored) error {
		if !recorded[file.Name] {
			files = append(files, file)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		b, err := s.adopt(ctx, p, store, file)
		switch {
		case err == nil:
			found = append(found, b)
		case ctx.Err() != nil, mayPass(err):
			return found, err
		default:
			s.log.WarnContext(ctx, "archive in the storage cannot be used", "store", store.String(), "name", file.Name, "err", err)
		}
	}
	return found, nil
}

// adopt reads a file of the storage and records it.
func (s *Service) adopt(ctx context.Context, p authz.Principal, store stoa.StoreID, file archive.Stored) (Backup, error) {
	r := row{Backup: Backup{ID: stoa.NewID[stoa.BackupID](), StoreID: store, Origin: Uploaded}, Name: file.Name}
	m := made{stored: file}
	if err := s.readMade(ctx, r, &m); err != nil {
		return Backup{}, err
	}
	if err := m.head.CheckStore(store); err != nil {
		return Backup{}, err
	}
	owner := s.process.NewOwner()
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO backups (id, store_id, origin, state, attempt, name, created_by, created_at, claimed_by) VALUES ($1, $2, 'upload', 'running', 1, $3, $4, $5, $6)`,
			r.ID, store, file.Name, creator(p), tx.Now, string(owner))
		if err != nil {
			return err
		}
		event := audit.Event{Action: audit.BackupUploaded, Store: store, Details: map[string]string{"backup": r.ID.String(), "file": file.Name}}
		if err := audit.Record(ctx, tx, p, event); err != nil {
			return err
		}
		return s.recordMade(ctx, tx, attempt{row: r}, owner, m)
	})
	if err != nil {
		return Backup{}, err
	}
	return s.get(ctx, store, r.ID)
}

// Lost reports whether the database of the store is there no more: it is not the store's, or
// it is empty. A database that does not answer is an error, not lost. It checks no permission.
func (s *Service) Lost(ctx context.Context, store stoa.StoreID) (bool, error) {
	db, err := s.open(ctx, store)
	if err == nil {
		return false, db.Close()
	}
	if errors.Is(err, errLost) {
		return true, nil
	}
	return false, err
}
