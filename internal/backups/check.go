package backups

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
)

// Check is the job that reads an archive and checks all of it.
type Check struct {
	jobs.AtTenant `json:"-"`

	ID      stoa.BackupID `json:"id"`
	Restore bool          `json:"restore"` // it also loads it into a temporary database and compares the rows
}

// Kind implements jobs.Args.
func (Check) Kind() string { return "backups.check" }

// RetryWithin implements jobs.RetryWithin.
func (Check) RetryWithin() time.Duration { return 5 * time.Minute }

// Check starts a check of an archive in the background: it is read, loaded into a temporary
// database, and compared row by row. Get shows the result. It fails with not_found for an
// archive that is not complete.
func (s *Service) Check(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID) (Backup, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MakeBackup); err != nil {
		return Backup{}, err
	}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := read(ctx, tx, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, id, store); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE backups SET check_state = 'queued', check_message = NULL WHERE id = $1 AND check_state <> 'queued'`, id)
		if err != nil || n == 0 { // a check waits
			return err
		}
		return s.queue.Enqueue(ctx, tx, Check{ID: id, Restore: true})
	})
	if err != nil {
		return Backup{}, err
	}
	return s.get(ctx, store, id)
}

// CheckByOperator checks an archive at once and records the result, for an operator with
// access to the master database. It checks no permission. The error says what is wrong with
// the archive.
func (s *Service) CheckByOperator(ctx context.Context, store stoa.StoreID, id stoa.BackupID, restore bool) error {
	r, err := read(ctx, s.db, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, id, store)
	if err != nil {
		return err
	}
	begin := time.Now()
	fault := s.check(ctx, r, restore)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(fault, s.recordCheck(ctx, id, restore, time.Since(begin), fault))
}

// RunCheck runs the job. The result of the check is recorded; the job fails only if another
// attempt is to be made.
func (s *Service) RunCheck(ctx context.Context, job Check) error {
	return s.leased(ctx, backupLeases, job.ID, func(ctx context.Context, owner lease.Owner) error {
		r, err := read(ctx, s.db, `b.id = $1 AND b.state = 'succeeded' AND b.claimed_by = $2`, job.ID, string(owner))
		if stoa.CodeOf(err) == stoa.NotFound {
			return nil
		}
		if err != nil {
			return err
		}
		begin := time.Now()
		fault := s.check(ctx, r, job.Restore)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case fault != nil && mayPass(fault):
			s.log.WarnContext(ctx, "archive not checked", "store", r.StoreID.String(), "backup", job.ID.String(), "err", fault)
			return errors.Join(fault, s.recordCheck(ctx, job.ID, job.Restore, time.Since(begin), fault))
		case fault != nil:
			s.log.ErrorContext(ctx, "archive is not usable", "store", r.StoreID.String(), "backup", job.ID.String(), "err", fault)
		}
		return s.recordCheck(ctx, job.ID, job.Restore, time.Since(begin), fault)
	})
}

func (s *Service) recordCheck(ctx context.Context, id stoa.BackupID, restored bool, took time.Duration, fault error) error {
	state, message := CheckPassed, (*string)(nil)
	if fault != nil {
		state, message = CheckFailed, &provisioning.FaultOf(fault).Message
	}
	kind := "read"
	if restored {
		kind = "restore"
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		tx.AfterCommit(func() { s.metrics.checks.WithLabelValues(kind, string(state)).Inc() })
		_, err := tx.Exec(ctx, `UPDATE backups SET check_state = $2, check_restored = $3, check_message = $4, check_ms = $5, checked_at = $6 WHERE id = $1`,
			id, string(state), restored && fault == nil, message, took.Milliseconds(), tx.Now)
		return err
	})
}

// check reads the whole archive, and compares its totals with those on record.
func (s *Service) check(ctx context.Context, r row, restore bool) error {
	return s.reading(ctx, r, archive.ReadOptions{}, func(a *archive.Reader) (err error) {
		if err := a.Head.CheckStore(r.StoreID); err != nil && r.Origin != Uploaded {
			return err
		}
		if restore {
			err = s.loadScratch(ctx, a)
		} else {
			err = readAll(ctx, a, func(int64) {})
		}
		if err != nil {
			return err
		}
		return r.checkSame(a)
	})
}

// checkSame fails for an archive, read to its end, that is not the one on record: the storage
// may give back another one of the store.
func (r row) checkSame(a *archive.Reader) error {
	b, err := r.backup()
	if err == nil && a.Summary().Checksum != b.Manifest.Checksum {
		err = stoa.Errorf(stoa.ArchiveDamaged, "The archive in the storage is not the one that was stored. Make a new archive, and find out who writes to the storage.")
	}
	return err
}

// loadScratch loads an archive into a temporary database, which compares all rows.
func (s *Service) loadScratch(ctx context.Context, a *archive.Reader) (err error) {
	scratch, err := s.tenants.OpenScratch()
	defer func() { err = errors.Join(err, scratch.Remove()) }()
	if err != nil {
		return err
	}
	return archive.Load(ctx, scratch.DB, a, archive.LoadOptions{})
}

// readAll reads the rest of an archive. onRows is called with the number of rows of each
// block.
func readAll(ctx context.Context, a *archive.Reader, onRows func(int64)) error {
	for {
		part, err := a.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		}
		onRows(int64(len(part.Rows)))
	}
}

// reading opens an archive of the storage and calls use.
func (s *Service) reading(ctx context.Context, r row, limits archive.ReadOptions, use func(*archive.Reader) error) error {
	key, err := s.key(ctx, r.StoreID)
	if err != nil {
		return err
	}
	file, err := s.storage.Open(ctx, r.Name)
	if err != nil {
		return missing(err)
	}
	defer file.Close()
	a, err := archive.NewReader(file, limits, key.Identity())
	if err != nil {
		return err
	}
	defer a.Close()
	return use(a)
}

// missing returns the error for an archive that is on record but not in the storage.
func missing(err error) error {
	if stoa.CodeOf(err) != stoa.NotFound {
		return err
	}
	return stoa.Errorf(stoa.ArchiveDamaged, "The archive is not in the storage any more: somebody or a rule of the storage has deleted it. Make a new archive.").WithCause(err)
}
