package backups

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Due is the job that starts the archives that are due, and deletes those that are no longer
// kept.
type Due struct{}

// Kind implements jobs.Args.
func (Due) Kind() string { return "backups.due" }

const (
	dueEvery   = 5 * time.Minute
	dueTimeout = 2 * time.Minute
	// dueAgain is the pause before the next round while more archives are due than the queue
	// has room for. With dueEvery alone a platform would make 28,800 archives a day.
	dueAgain = 5 * time.Second
	// maxWaiting limits the archives of schedules that wait or are being made, so that the
	// queue stays short for those that people ask for.
	maxWaiting = 100
	// batch limits the rows that one transaction changes.
	batch = 100
	// savedFor is how long the archive of what a restore has replaced is kept, and failedFor
	// the record of an archive that could not be made.
	savedFor  = 30 * 24 * time.Hour
	failedFor = 30 * 24 * time.Hour
)

// RunDue runs the job. Each part is idempotent, and does a bounded amount of work: the next
// round does the rest. While archives are due that the queue has no room for, the job snoozes
// and runs again soon.
func (s *Service) RunDue(ctx context.Context, _ Due) error {
	for _, part := range []func(context.Context) error{s.resume, s.addSchedules} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	more, err := s.startDue(ctx)
	if err != nil {
		return err
	}
	for _, part := range []func(context.Context) error{s.deleteExpired, s.deleteOfDeleted} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	if more {
		return jobs.Snooze(dueAgain)
	}
	return nil
}

// resume enqueues jobs for unfinished work that nobody does: the queue gives up a job that
// has failed many times, such as one whose database did not answer for long. A store that
// is being restored is closed until then.
func (s *Service) resume(ctx context.Context) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var restores []stoa.RestoreID
		err := tx.Select(ctx, &restores, `SELECT id FROM backup_restores WHERE `+restoreLeases.Where+` AND `+restoreLeases.Expired(1, 2)+` LIMIT $3`,
			tx.Now, s.process.Name(), batch)
		if err != nil {
			return err
		}
		for _, id := range restores {
			if err := s.queue.EnqueueOnce(ctx, tx, RunRestore{ID: id}); err != nil {
				return err
			}
		}
		var backups []struct {
			ID    stoa.BackupID
			State State
		}
		err = tx.Select(ctx, &backups, `SELECT id, state FROM backups WHERE (state = 'deleting' OR state IN ('queued', 'running') AND origin IN ('request', 'schedule'))
			AND `+backupLeases.Expired(1, 2)+` LIMIT $3`, tx.Now, s.process.Name(), 3*batch)
		if err != nil {
			return err
		}
		for _, b := range backups {
			var job jobs.Args = Make{ID: b.ID}
			if b.State == Deleting {
				job = Delete{ID: b.ID}
			}
			if err := s.queue.EnqueueOnce(ctx, tx, job); err != nil {
				return err
			}
		}
		return nil
	})
}

// addSchedules gives a first date to the stores that have none.
func (s *Service) addSchedules(ctx context.Context) error {
	interval := s.opts.Schedule.Interval()
	if interval == 0 {
		return nil
	}
	var missing []stoa.StoreID
	err := s.db.Select(ctx, &missing, `SELECT s.id FROM stores s WHERE s.status IN ('active', 'suspended')
		AND NOT EXISTS (SELECT 1 FROM backup_schedules x WHERE x.store_id = s.id) LIMIT $1`, 10*batch)
	if err != nil || len(missing) == 0 {
		return err
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		for _, store := range missing {
			if _, err := tx.Exec(ctx, `INSERT INTO backup_schedules (store_id, next_at) VALUES ($1, $2) ON CONFLICT (store_id) DO NOTHING`,
				store, firstDue(tx.Now, interval)); err != nil {
				return err
			}
		}
		return nil
	})
}

// startDue starts the archives that are due, as many as the queue has room for, and reports
// whether more are due.
func (s *Service) startDue(ctx context.Context) (more bool, err error) {
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var waiting int
		if err := tx.Get(ctx, &waiting, `SELECT count(*) FROM backups WHERE state IN ('queued', 'running') AND origin = 'schedule'`); err != nil {
			return err
		}
		room := max(maxWaiting-waiting, 0)
		var due []struct {
			scheduleRow
			StoreID stoa.StoreID
			Usable  bool
		}
		err := tx.Select(ctx, &due, `SELECT x.store_id, x.next_at, x.own, x.hourly, x.daily, x.weekly, x.monthly, s.status IN ('active', 'suspended') AS usable
			FROM backup_schedules x JOIN stores s ON s.id = x.store_id WHERE x.next_at <= $1 ORDER BY x.next_at LIMIT $2`, tx.Now, room+1)
		if err != nil {
			return err
		}
		more = len(due) > room
		for _, d := range due[:min(room, len(due))] {
			interval := s.of(d.scheduleRow).Interval()
			n, err := tx.Exec(ctx, `UPDATE backup_schedules SET next_at = $3 WHERE store_id = $1 AND next_at = $2`, d.StoreID, d.NextAt, nextDue(d.NextAt, tx.Now, interval))
			if err != nil {
				return err
			}
			if n == 0 || !d.Usable || interval == 0 { // another execution has started it, or there is nothing to archive
				continue
			}
			if _, err := s.insert(ctx, tx, d.StoreID, Scheduled, nil, nil); err != nil {
				return err
			}
		}
		return nil
	})
	return more, err
}

// idleAgain is when a store without archives is looked at again.
const idleAgain = 24 * time.Hour

// nextDue returns the time after now that continues the rhythm. What was missed, because no
// server ran, is made once.
func nextDue(due, now time.Time, interval time.Duration) time.Time {
	if interval == 0 {
		interval = idleAgain
	}
	return due.Add((now.Sub(due)/interval + 1) * interval)
}

// thin deletes the archives that a store's schedule does not keep. The newest one that was
// restored successfully is always kept.
func (s *Service) thin(ctx context.Context, store stoa.StoreID) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		schedule, err := s.schedule(ctx, tx, store)
		if err != nil {
			return err
		}
		var made []struct {
			ID         stoa.BackupID
			SnapshotAt time.Time
			Proved     bool
		}
		err = tx.Select(ctx, &made, `SELECT id, snapshot_at, check_state = 'passed' AND check_restored AS proved FROM backups
			WHERE store_id = $1 AND origin = 'schedule' AND state = 'succeeded' ORDER BY snapshot_at DESC, id DESC`, store)
		if err != nil {
			return err
		}
		times := make([]time.Time, len(made))
		for i, m := range made {
			times[i] = m.SnapshotAt
		}
		keep, proved := schedule.Keeps(times), false
		for i, m := range made {
			keep[i] = keep[i] || m.Proved && !proved
			proved = proved || m.Proved
			if keep[i] {
				continue
			}
			if _, err := s.markDeleting(ctx, tx, notRestoring+` AND id = $1`, m.ID); err != nil {
				return err
			}
		}
		return nil
	})
}

// notRestoring is the SQL condition of archives that no restore needs.
const notRestoring = `NOT EXISTS (SELECT 1 FROM backup_restores r WHERE r.state IN ('queued', 'running') AND (r.backup_id = backups.id OR r.saved_id = backups.id))`

// deleteExpired deletes archives whose time is over, and records of those that were not made.
func (s *Service) deleteExpired(ctx context.Context) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := s.markDeleting(ctx, tx, `id IN (SELECT id FROM backups WHERE keep_until < $1 AND state <> 'deleting' LIMIT $2) AND `+notRestoring, tx.Now, batch)
		return err
	})
}

// RestoreExpiry returns the rule for the records of restores.
func RestoreExpiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "backup_restores", Key: []string{"id"}, Age: "finished_at", Keep: keep}
}

// deleteOfDeleted deletes the archives of stores that were deleted long enough ago, and then
// the key, without which copies of the archives elsewhere cannot be opened.
func (s *Service) deleteOfDeleted(ctx context.Context) error {
	if s.opts.KeepDeleted == 0 {
		return nil
	}
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		const gone = `SELECT k.store_id FROM archive_keys k JOIN stores s ON s.id = k.store_id WHERE s.status = 'deleted' AND s.delete_after < $1 LIMIT $2`
		var stores []stoa.StoreID
		if err := tx.Select(ctx, &stores, gone, tx.Now.Add(-s.opts.KeepDeleted), batch); err != nil {
			return err
		}
		for _, store := range stores {
			if _, err := s.markDeleting(ctx, tx, `store_id = $1`, store); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `DELETE FROM archive_keys WHERE store_id = $1 AND NOT EXISTS (SELECT 1 FROM backups b WHERE b.store_id = $1)`, store); err != nil {
				return err
			}
			if _, err := tx.Exec(ctx, `DELETE FROM backup_schedules WHERE store_id = $1`, store); err != nil {
				return err
			}
		}
		return nil
	})
}
