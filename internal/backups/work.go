package backups

import (
	"context"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
)

// workPoll is the interval at which Finish and FinishRestore look at work of another process.
const workPoll = 300 * time.Millisecond

// Finish makes a queued archive in this process, or waits for the process that makes it. It
// checks no permission. show is called with the archive's progress.
func (s *Service) Finish(ctx context.Context, b Backup, show func(Backup)) (Backup, error) {
	for {
		if err := s.RunMake(ctx, Make{ID: b.ID}); err != nil && ctx.Err() != nil {
			return b, err // another attempt follows any other error, until the archive has failed
		}
		var err error
		if b, err = s.get(ctx, b.StoreID, b.ID); err != nil {
			return b, err
		}
		show(b)
		if b.State == Succeeded || b.State == Failed {
			return b, nil
		}
		if err := pause(ctx); err != nil {
			return b, err
		}
	}
}

// FinishRestore executes a restore in this process, or waits for the process that executes
// it. It checks no permission. show is called with the restore's progress.
func (s *Service) FinishRestore(ctx context.Context, r Restore, show func(Restore)) (Restore, error) {
	id := r.ID // r is written below, while the goroutine reads the identifier
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	defer func() {
		stop()
		watch.Wait()
	}()
	watch.Go(func() { // RunRestore executes all steps
		for pause(watching) == nil {
			if row, err := readRestore(watching, s.db, `id = $1`, id); err == nil {
				show(row.restore())
			}
		}
	})
	for {
		if err := s.RunRestore(ctx, RunRestore{ID: id}); err != nil && ctx.Err() != nil {
			return r, err
		}
		row, err := readRestore(ctx, s.db, `id = $1`, id)
		if err != nil {
			return r, err
		}
		if r = row.restore(); r.Done() {
			return r, nil
		}
		if err := pause(ctx); err != nil {
			return r, err
		}
	}
}

// FinishClone connects the database of a clone, and executes its restore as FinishRestore
// does. It checks no permission.
func (s *Service) FinishClone(ctx context.Context, r Restore, show func(Restore)) (Restore, error) {
	if !r.Done() {
		if _, err := s.provisioning.FinishByOperator(ctx, r.StoreID); err != nil {
			return r, err
		}
	}
	return s.FinishRestore(ctx, r, show) // it fails, and says so, without a database
}

// FinishDelete deletes an archive in this process, or waits for the process that does. It
// checks no permission. Delete came before.
func (s *Service) FinishDelete(ctx context.Context, id stoa.BackupID) error {
	for {
		if err := s.RunDelete(ctx, Delete{ID: id}); err != nil && !jobs.IsSnoozed(err) {
			return err
		}
		var n int
		if err := s.db.Get(ctx, &n, `SELECT count(*) FROM backups WHERE id = $1`, id); err != nil || n == 0 {
			return err
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context) error {
	select {
	case <-time.After(workPoll):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
