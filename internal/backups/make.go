package backups

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Make is the job that makes an archive.
type Make struct {
	jobs.AtTenant `json:"-"`

	ID stoa.BackupID `json:"id"`
}

// Kind implements jobs.Args.
func (Make) Kind() string { return "backups.make" }

// RetryWithin implements jobs.RetryWithin.
func (Make) RetryWithin() time.Duration { return 5 * time.Minute }

// Make starts an archive of the store, in the background. If one that was asked for is not
// finished, it returns that one. It fails with quota_exceeded when the store has too many
// such archives, and as stores.Registry.CheckConnected does for a store without a usable
// database.
func (s *Service) Make(ctx context.Context, p authz.Principal, store stoa.StoreID) (Backup, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.MakeBackup); err != nil {
		return Backup{}, err
	}
	return s.MakeByOperator(ctx, p, store)
}

// MakeByOperator does what Make does, for an operator with access to the master database.
// It checks no permission.
func (s *Service) MakeByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID) (Backup, error) {
	var id stoa.BackupID
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := s.registry.LockConnected(ctx, tx, store); err != nil {
			return err
		}
		unfinished, err := read(ctx, tx, `b.store_id = $1 AND b.origin = 'request' AND b.state IN ('queued', 'running') ORDER BY b.id LIMIT 1`, store)
		if err == nil {
			id = unfinished.ID
			return nil
		}
		if stoa.CodeOf(err) != stoa.NotFound {
			return err
		}
		if err := checkQuota(ctx, tx, store); err != nil {
			return err
		}
		if id, err = s.insert(ctx, tx, store, Requested, creator(p), nil); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.BackupRequested, Store: store, Details: map[string]string{"backup": id.String()}})
	})
	if err != nil {
		return Backup{}, err
	}
	return s.get(ctx, store, id)
}

// creator returns the user who acts, or nil for a command.
func creator(p authz.Principal) *stoa.UserID {
	if p.UserID.IsZero() {
		return nil
	}
	return &p.UserID
}

// checkQuota limits the archives that stay until somebody deletes them.
func checkQuota(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	var n int
	err := tx.Get(ctx, &n, `SELECT count(*) FROM backups WHERE store_id = $1 AND origin IN ('request', 'upload') AND state <> 'deleting'`, store)
	if err != nil || n < maxRequested {
		return err
	}
	e := stoa.Errorf(stoa.QuotaExceeded, "This store has %d archives that were asked for or uploaded, which is the limit. Delete one of them first.", n)
	e.Quota = &stoa.Quota{Name: "backups", Limit: maxRequested, Used: n}
	return e
}

// insert records an archive that is to be made, and enqueues its job.
func (s *Service) insert(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, origin Origin, by *stoa.UserID, keepUntil *time.Time) (stoa.BackupID, error) {
	id := stoa.NewID[stoa.BackupID]()
	_, err := tx.Exec(ctx, `INSERT INTO backups (id, store_id, origin, state, created_by, created_at, keep_until) VALUES ($1, $2, $3, 'queued', $4, $5, $6)`,
		id, store, string(origin), by, tx.Now, keepUntil)
	if err != nil || origin == Saved { // the restore itself makes it
		return id, err
	}
	return id, s.queue.EnqueueOnce(ctx, tx, Make{ID: id})
}

// RunMake runs the job. It does nothing for an archive that is finished.
func (s *Service) RunMake(ctx context.Context, job Make) error {
	return s.leased(ctx, backupLeases, job.ID, func(ctx context.Context, owner lease.Owner) error {
		return s.make(ctx, job.ID, owner)
	})
}

// make makes an archive whose row is leased to the owner. It returns an error only if
// another attempt is to be made.
func (s *Service) make(ctx context.Context, id stoa.BackupID, owner lease.Owner) error {
	b, err := s.beginAttempt(ctx, id, owner)
	if err != nil || b == nil {
		return err
	}
	made, err := s.write(ctx, b.row, owner)
	var waits *waitError
	if err != nil && (ctx.Err() != nil || errors.As(err, &waits)) {
		return err // the process stops, the lease is lost, or the store is being restored: another execution begins anew
	}
	if err != nil {
		return s.recordFailure(ctx, *b, owner, err)
	}
	return s.recordSuccess(ctx, *b, owner, made)
}

// attempt is one attempt to make an archive.
type attempt struct {
	row
	earlier string // the name under which an interrupted attempt may have stored it
}

// beginAttempt records the name of the archive before anything is stored under it. It
// returns nil if there is nothing to make.
func (s *Service) beginAttempt(ctx context.Context, id stoa.BackupID, owner lease.Owner) (*attempt, error) {
	var a *attempt
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		a = nil
		r, err := read(ctx, tx, `b.id = $1 AND b.claimed_by = $2`+tx.ForUpdate(), id, string(owner))
		if stoa.CodeOf(err) == stoa.NotFound {
			return lease.ErrLost
		}
		if err != nil || r.State != Queued && r.State != Running {
			return err
		}
		a = &attempt{r, r.Name}
		a.Attempt, a.Name = r.Attempt+1, fileName(r, tx.Now)
		_, err = tx.Exec(ctx, `UPDATE backups SET state = 'running', attempt = $2, name = $3, tables_done = 0, rows_done = 0 WHERE id = $1`, id, a.Attempt, a.Name)
		return err
	})
	if err == nil && a != nil && a.earlier != "" {
		err = s.storage.Delete(ctx, a.earlier)
	}
	return a, err
}

// fileName returns the name of the next attempt's file: no name is used twice.
func fileName(r row, at time.Time) string {
	return archive.FileName(r.StoreID, at, r.ID.String()+"-"+string(rune('a'+r.Attempt%26)))
}

// made is an archive that was written.
type made struct {
	stored archive.Stored
	head   archive.Head
	total  archive.Summary
	tables []archive.Summary
}

// write writes the archive of a store's present rows to the storage. It waits while the
// store is being restored, except for the restore itself.
func (s *Service) write(ctx context.Context, r row, owner lease.Owner) (m made, err error) {
	before, err := s.tenants.Read(ctx, s.db, r.StoreID)
	if err != nil {
		return m, err
	}
	if before.Restoring && r.Origin != Saved {
		return m, &waitError{busyPause}
	}
	if m, err = s.writeNow(ctx, r, owner); err != nil || r.Origin == Saved {
		return m, err
	}
	// A restore that began meanwhile has another version. Its rows may be in the archive.
	after, err := s.tenants.Read(ctx, s.db, r.StoreID)
	if err == nil && after.Version != before.Version {
		err = &waitError{busyPause}
	}
	return m, err
}

func (s *Service) writeNow(ctx context.Context, r row, owner lease.Owner) (m made, err error) {
	key, err := s.key(ctx, r.StoreID)
	if err != nil {
		return m, err
	}
	db, err := s.open(ctx, r.StoreID)
	if err != nil {
		return m, err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := s.checkStorage(ctx); err != nil {
		return m, err
	}
	version, err := db.SchemaVersion(ctx)
	if err != nil {
		return m, err
	}
	tables, err := archive.Tables(ctx, version)
	if err != nil {
		return m, err
	}
	var done Progress
	progress := s.progress(func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE backups SET tables_done = $3, tables_total = $4, rows_done = $5 WHERE id = $1 AND claimed_by = $2`,
			r.ID, string(owner), done.Tables, len(tables), done.Rows)
		return err
	})
	m.stored, err = s.storage.Create(ctx, r.Name, func(w io.Writer) error {
		m.tables, done = nil, Progress{}
		m.head, m.total, err = archive.Write(ctx, db, r.StoreID, w, archive.WriteOptions{MaxBytes: s.opts.MaxContent, OnRow: func() {
			done.Rows++
			progress(ctx)
		}, OnTable: func(sum archive.Summary) {
			m.tables = append(m.tables, sum)
			done.Tables++
			progress(ctx)
		}}, key.Recipients(s.opts.Recipients)...)
		return err
	})
	return m, err
}

// open opens the store's database for one job, outside the pools that serve requests. It
// fails unless the database is marked as the store's.
func (s *Service) open(ctx context.Context, store stoa.StoreID) (*tenantdb.DB, error) {
	c, err := s.tenants.Load(ctx, s.db, store)
	if err != nil {
		return nil, err
	}
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return nil, err
	}
	err = db.PinSession(ctx, store)
	if err == nil {
		err = checkMarked(ctx, db, store)
	}
	if err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

// errLost is the cause of the error for a database that is the store's no more.
var errLost = errors.New("backups: the database has no mark")

// checkMarked fails unless the database is marked as the store's: otherwise an archive would
// contain another store's rows, or those of an empty database in place of a lost one.
func checkMarked(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) error {
	marked, err := db.Marked(ctx, store)
	switch {
	case errors.Is(err, tenantdb.ErrMarked):
		return storedata.ErrForeignStore
	case err == nil && marked:
		return nil
	case err == nil, stoa.CodeOf(err) == stoa.Internal, stoa.CodeOf(err) == stoa.TenantError:
		return stoa.Errorf(stoa.DatabaseContentInvalid, "This database does not hold the store any more: its mark is missing. Restore the store from its newest archive.").WithCause(errors.Join(errLost, err))
	}
	return err
}

// recordSuccess records a complete archive, and enqueues its check.
func (s *Service) recordSuccess(ctx context.Context, a attempt, owner lease.Owner, m made) error {
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return s.recordMade(ctx, tx, a, owner, m) })
	if errors.Is(err, lease.ErrLost) { // another execution has begun anew, or the archive is to be deleted
		return errors.Join(err, s.storage.Delete(context.WithoutCancel(ctx), a.Name))
	}
	if err == nil && a.Origin == Scheduled {
		err = s.thin(ctx, a.StoreID)
	}
	return err
}

// recordMade also ends the lease, which the job of the check needs.
func (s *Service) recordMade(ctx context.Context, tx *masterdb.Tx, a attempt, owner lease.Owner, m made) error {
	manifest, err := json.Marshal(Manifest{
		StoreID: m.head.Store, Engine: string(m.head.Engine), EngineVersion: m.head.EngineVersion, SchemaVersion: m.head.SchemaVersion,
		OwnVersion: m.head.OwnVersion, Release: m.head.Release, Checksum: m.total.Checksum, Tables: m.tables,
		NotIncluded: m.head.NotIncluded, Omitted: m.head.Omitted,
	})
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `UPDATE backups SET state = 'succeeded', bytes = $3, row_count = $4, manifest = $5, tables_done = $6, snapshot_at = $7, finished_at = $8,
		keep_until = CASE WHEN origin = 'upload' THEN NULL ELSE keep_until END, error_code = NULL, error_message = NULL, check_state = 'queued', claimed_by = NULL, claimed_until = NULL
		WHERE id = $1 AND claimed_by = $2`,
		a.ID, string(owner), m.stored.Bytes, m.total.Rows, string(manifest), len(m.tables), m.head.SnapshotAt, tx.Now)
	if err != nil {
		return err
	}
	if n == 0 {
		return lease.ErrLost
	}
	tx.AfterCommit(func() { s.metrics.made.WithLabelValues("succeeded").Inc() })
	data := map[string]string{"backupId": a.ID.String(), "bytes": strconv.FormatInt(m.stored.Bytes, 10)}
	if err := events.Record(ctx, tx, events.BackupSucceeded, a.StoreID, stoa.UserID{}, data); err != nil {
		return err
	}
	return s.queue.Enqueue(ctx, tx, Check{ID: a.ID, Restore: true})
}

// recordFailure records why an attempt failed, and ends the lease. It returns the cause if another attempt is
// to be made.
func (s *Service) recordFailure(ctx context.Context, a attempt, owner lease.Owner, cause error) error {
	again := a.Attempt < tries && mayPass(cause)
	s.log.WarnContext(ctx, "archive not made", "store", a.StoreID.String(), "backup", a.ID.String(), "attempt", a.Attempt, "again", again, "err", cause)
	state, fault := Failed, provisioning.FaultOf(cause)
	if again {
		state = Queued
	}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var finished, keepUntil *time.Time
		if !again {
			until := tx.Now.Add(failedFor)
			finished, keepUntil = &tx.Now, &until
		}
		n, err := tx.Exec(ctx, `UPDATE backups SET state = $3, error_code = $4, error_message = $5, finished_at = $6, keep_until = coalesce($7, keep_until),
			claimed_by = NULL, claimed_until = NULL
			WHERE id = $1 AND claimed_by = $2`, a.ID, string(owner), string(state), string(fault.Code), fault.Message, finished, keepUntil)
		if err == nil && n == 0 {
			err = lease.ErrLost
		}
		if err != nil {
			return err
		}
		outcome := "failed"
		if again {
			outcome = "retried"
		}
		tx.AfterCommit(func() { s.metrics.made.WithLabelValues(outcome).Inc() })
		if again {
			return nil
		}
		data := map[string]string{"backupId": a.ID.String(), "code": string(fault.Code), "message": fault.Message}
		return events.Record(ctx, tx, events.BackupFailed, a.StoreID, stoa.UserID{}, data)
	})
	if err == nil && again {
		err = cause
	}
	return err
}
