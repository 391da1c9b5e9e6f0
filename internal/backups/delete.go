package backups

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Delete is the job that deletes an archive.
type Delete struct {
	ID stoa.BackupID `json:"id"`
}

// Kind implements jobs.Args.
func (Delete) Kind() string { return "backups.delete" }

// RetryWithin implements jobs.RetryWithin.
func (Delete) RetryWithin() time.Duration { return time.Hour }

// Delete deletes an archive. It fails with not_found, and with backup_in_use while a restore
// needs the archive.
func (s *Service) Delete(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID) error {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ManageBackups); err != nil {
		return err
	}
	return s.DeleteByOperator(ctx, p, store, id)
}

// DeleteByOperator does what Delete does, for an operator with access to the master
// database. It checks no permission.
func (s *Service) DeleteByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var used int
		err := tx.Get(ctx, &used, `SELECT count(*) FROM backup_restores WHERE state IN ('queued', 'running') AND (backup_id = $1 OR saved_id = $1)`, id)
		if err != nil {
			return err
		}
		if used > 0 {
			return stoa.Errorf(stoa.BackupInUse, "A restore needs this archive. Wait until it is done.")
		}
		marked, err := s.markDeleting(ctx, tx, `id = $1 AND store_id = $2`, id, store)
		if err != nil {
			return err
		}
		if len(marked) == 0 {
			return errNoBackup()
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupDeleted, Store: store, Details: map[string]string{"backup": id.String()}})
	})
}

// markDeleting marks archives and enqueues their jobs. An execution that makes or checks one
// loses its lease.
func (s *Service) markDeleting(ctx context.Context, tx *masterdb.Tx, where string, args ...any) (marked []stoa.BackupID, err error) {
	err = tx.Select(ctx, &marked, `UPDATE backups SET state = 'deleting', claimed_by = NULL, claimed_until = NULL WHERE `+where+` AND state <> 'deleting' RETURNING id`, args...)
	if err != nil {
		return nil, err
	}
	for _, id := range marked {
		if err := s.queue.EnqueueOnce(ctx, tx, Delete{ID: id}); err != nil {
			return nil, err
		}
	}
	return marked, nil
}

// RunDelete runs the job. The row is deleted after the file, so that no file is forgotten.
func (s *Service) RunDelete(ctx context.Context, job Delete) error {
	return s.leased(ctx, backupLeases, job.ID, func(ctx context.Context, owner lease.Owner) error {
		r, err := read(ctx, s.db, `b.id = $1 AND b.state = 'deleting' AND b.claimed_by = $2`, job.ID, string(owner))
		if stoa.CodeOf(err) == stoa.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		if r.Name != "" {
			if err := s.storage.Delete(ctx, r.Name); err != nil {
				return err
			}
		}
		return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
			_, err := tx.Exec(ctx, `DELETE FROM backups WHERE id = $1 AND claimed_by = $2`, job.ID, string(owner))
			return err
		})
	})
}
