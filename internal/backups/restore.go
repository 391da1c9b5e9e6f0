package backups

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/provisioning"
)

// Restore is the loading of an archive into a store's database.
type Restore struct {
	ID         stoa.RestoreID
	StoreID    stoa.StoreID // that gets the rows
	BackupID   stoa.BackupID
	SourceID   stoa.StoreID // whose archive it is
	State      State
	Step       string
	RowsDone   int64               // that the step has read or loaded
	RowsTotal  int64               // that it has to; 0: not known
	Fault      *provisioning.Fault `db:"-"` // why it failed, or is being undone
	Unsaved    bool                // what was there before is not archived
	SavedID    *stoa.BackupID      // the archive of what was there before
	CreatedBy  *stoa.UserID
	CreatedAt  time.Time
	FinishedAt *time.Time
}

// Clone reports whether the archive is of another store.
func (r Restore) Clone() bool { return r.SourceID != r.StoreID }

// Done reports whether the restore has ended, with success or not.
func (r Restore) Done() bool { return r.State == Succeeded || r.State == Failed }

// restoreRow is a row of backup_restores.
type restoreRow struct {
	Restore
	Attempt                 int
	Without                 string
	ErrorCode, ErrorMessage *string

	owner lease.Owner // of the lease, in an execution
}

func (r restoreRow) restore() Restore {
	r.Fault = provisioning.NewFault(r.ErrorCode, r.ErrorMessage)
	return r.Restore
}

const selectRestore = `SELECT id, store_id, backup_id, source_id, state, step, rows_done, rows_total, attempt, without, unsaved, saved_id, error_code, error_message,
	created_by, created_at, finished_at FROM backup_restores WHERE `

func readRestore(ctx context.Context, q masterdb.Querier, where string, args ...any) (restoreRow, error) {
	var r restoreRow
	err := q.Get(ctx, &r, selectRestore+where, args...)
	if errors.Is(err, masterdb.ErrNotFound) {
		return r, stoa.Errorf(stoa.NotFound, "There is no such restore of this store.")
	}
	return r, err
}

// RunRestore is the job that executes a restore.
type RunRestore struct {
	jobs.AtTenant `json:"-"`

	ID stoa.RestoreID `json:"id"`
}

// Kind implements jobs.Args.
func (RunRestore) Kind() string { return "backups.restore" }

// RetryWithin implements jobs.RetryWithin: the store is closed.
func (RunRestore) RetryWithin() time.Duration { return 30 * time.Second }

// RestoreOptions choose how an archive is restored.
type RestoreOptions struct {
	// Unsaved restores a store whose present rows cannot be archived, for instance because
	// its database is damaged. They are lost.
	Unsaved bool
}

// Restore starts to replace the store's rows with those of one of its archives. First the
// present rows are archived. The store is closed meanwhile. It fails with not_found for an
// archive that is not complete, with restore_in_progress, and as Make does for a store
// without a usable database.
func (s *Service) Restore(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID, o RestoreOptions) (Restore, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.RestoreBackup); err != nil {
		return Restore{}, err
	}
	return s.RestoreByOperator(ctx, p, store, id, o)
}

// RestoreByOperator does what Restore does, for an operator with access to the master
// database. It checks no permission.
func (s *Service) RestoreByOperator(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.BackupID, o RestoreOptions) (Restore, error) {
	return s.startRestore(ctx, p, restoreRow{Restore: Restore{StoreID: store, BackupID: id, SourceID: store, Step: stepCheck, Unsaved: o.Unsaved}})
}

// startRestore records a restore and enqueues its job.
func (s *Service) startRestore(ctx context.Context, p authz.Principal, r restoreRow) (Restore, error) {
	r.ID = stoa.NewID[stoa.RestoreID]()
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := read(ctx, tx, `b.id = $1 AND b.store_id = $2 AND b.state = 'succeeded'`, r.BackupID, r.SourceID); err != nil {
			return err
		}
		if !r.Clone() {
			if err := s.registry.LockNotMoving(ctx, tx, r.StoreID); err != nil {
				return err
			}
		}
		n, err := tx.Exec(ctx, `INSERT INTO backup_restores (id, store_id, backup_id, source_id, state, step, without, unsaved, created_by, created_at)
			VALUES ($1, $2, $3, $4, 'queued', $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
			r.ID, r.StoreID, r.BackupID, r.SourceID, r.Step, r.Without, r.Unsaved, creator(p), tx.Now)
		if err != nil {
			return err
		}
		if n == 0 {
			return errRestoreInProgress()
		}
		event := audit.Event{Action: audit.BackupRestore, Store: r.StoreID, Details: map[string]string{"backup": r.BackupID.String(), "restore": r.ID.String()}}
		if r.Clone() {
			event.Details["source"] = r.SourceID.String()
		}
		if err := audit.Record(ctx, tx, p, event); err != nil {
			return err
		}
		return s.queue.EnqueueOnce(ctx, tx, RunRestore{ID: r.ID})
	})
	if err != nil {
		return Restore{}, err
	}
	started, err := readRestore(ctx, s.db, `id = $1`, r.ID)
	return started.restore(), err
}

func errRestoreInProgress() error {
	return stoa.Errorf(stoa.RestoreInProgress, "An archive is being restored into this store. Wait until that is done.")
}

// LastRestore returns the last restore into the store. It fails with not_found if there was
// none.
func (s *Service) LastRestore(ctx context.Context, p authz.Principal, store stoa.StoreID) (Restore, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadBackups); err != nil {
		return Restore{}, err
	}
	return s.LastRestoreByOperator(ctx, store)
}

// LastRestoreByOperator does what LastRestore does, for an operator with access to the
// master database. It checks no permission.
func (s *Service) LastRestoreByOperator(ctx context.Context, store stoa.StoreID) (Restore, error) {
	r, err := readRestore(ctx, s.db, `store_id = $1 ORDER BY id DESC LIMIT 1`, store)
	return r.restore(), err
}

// The steps of a restore. A restore of the store's own archive begins with stepCheck.
const (
	stepDatabase = "database" // the database of a clone is being connected
	stepCheck    = "check"    // the archive is read whole: nothing is changed for a damaged one
	stepClose    = "close"
	stepDrain    = "drain" // requests that use the database end
	stepSave     = "save"  // the present rows are archived
	stepLoad     = "load"
	stepUndo     = "undo" // the saved rows are loaded, after stepLoad has failed
	stepOpen     = "open"
)

// restoreStep is one step. After an interruption it is executed again.
type restoreStep struct {
	name string
	do   func(*Service, context.Context, restoreRow) error
	// apply changes the master database in the transaction that records the end of the step.
	apply func(*Service, context.Context, *masterdb.Tx, restoreRow) error
	next  string // "": the restore ends
}

var restoreSteps = map[string]restoreStep{
	stepDatabase: {name: stepDatabase, do: (*Service).awaitDatabase, next: stepCheck},
	stepCheck:    {name: stepCheck, do: (*Service).checkSource, next: stepClose},
	stepClose:    {name: stepClose, apply: (*Service).closeDatabase, next: stepDrain},
	stepDrain:    {name: stepDrain, do: (*Service).drain, next: stepSave},
	stepSave:     {name: stepSave, do: (*Service).save, next: stepLoad},
	stepLoad:     {name: stepLoad, do: (*Service).load, next: stepOpen},
	stepUndo:     {name: stepUndo, do: (*Service).undo, next: stepOpen},
	stepOpen:     {name: stepOpen, apply: (*Service).reopen},
}

// RunRestore runs the job: it executes the steps that are left.
func (s *Service) RunRestore(ctx context.Context, job RunRestore) error {
	return s.leased(ctx, restoreLeases, job.ID, func(ctx context.Context, owner lease.Owner) error {
		for {
			r, err := readRestore(ctx, s.db, `id = $1`, job.ID)
			if err != nil || r.Done() {
				return err
			}
			r.owner = owner
			if err := s.runStep(ctx, r, owner); err != nil {
				return err
			}
		}
	})
}

// runStep executes one step and records which is next.
func (s *Service) runStep(ctx context.Context, r restoreRow, owner lease.Owner) error {
	step, cause := restoreSteps[r.Step], error(nil)
	if step.do != nil {
		cause = stoa.CatchPanic(func() error { return step.do(s, ctx, r) })
	}
	var waits *waitError
	switch {
	case cause == nil:
		return s.record(ctx, r, owner, step, nil)
	case errors.As(cause, &waits):
		return waits
	case ctx.Err() != nil:
		return cause
	}
	if stoa.CodeOf(cause) == stoa.StorePendingDatabase && r.Step != stepDatabase { // the store was deleted: there is nothing to open
		return s.record(ctx, r, owner, restoreStep{name: r.Step}, cause)
	}
	s.log.WarnContext(ctx, "step of a restore failed", "store", r.StoreID.String(), "restore", r.ID.String(), "step", r.Step, "attempt", r.Attempt+1, "err", cause)
	// Without its rows the store cannot be opened, so that undoing is never given up.
	if r.Step == stepUndo || mayPass(cause) && r.Attempt+1 < tries {
		return errors.Join(cause, s.countAttempt(ctx, r, owner))
	}
	return s.record(ctx, r, owner, restoreStep{name: r.Step, next: r.after(r.Step)}, cause)
}

// after returns the step that follows a failed one.
func (r restoreRow) after(failed string) string {
	switch {
	case failed == stepDatabase, failed == stepCheck:
		return "" // nothing was changed
	case failed != stepLoad:
		return stepOpen // the rows are as before
	case r.SavedID != nil:
		return stepUndo
	}
	// The database has some rows of the archive. The store stays closed: a clone would show
	// what it is to leave out. The next restore opens it.
	return ""
}

func (s *Service) countAttempt(ctx context.Context, r restoreRow, owner lease.Owner) error {
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE backup_restores SET attempt = attempt + 1 WHERE id = $1 AND claimed_by = $2`, r.ID, string(owner))
		return err
	})
}

// record records the end of a step: with a cause, it has failed.
func (s *Service) record(ctx context.Context, r restoreRow, owner lease.Owner, step restoreStep, cause error) error {
	if cause != nil && r.ErrorCode == nil {
		fault := provisioning.FaultOf(cause)
		code := string(fault.Code)
		r.ErrorCode, r.ErrorMessage = &code, &fault.Message
	}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		state, next, finished := Running, step.next, (*time.Time)(nil)
		if next == "" {
			next, finished, state = step.name, &tx.Now, Succeeded
			if r.ErrorCode != nil {
				state = Failed
			}
		}
		n, err := tx.Exec(ctx, `UPDATE backup_restores SET state = $3, step = $4, rows_done = 0, rows_total = 0, attempt = 0, error_code = $5, error_message = $6, finished_at = $7
			WHERE id = $1 AND claimed_by = $2`, r.ID, string(owner), string(state), next, r.ErrorCode, r.ErrorMessage, finished)
		if err == nil && n == 0 {
			err = lease.ErrLost
		}
		if err == nil && step.apply != nil && cause == nil {
			err = step.apply(s, ctx, tx, r)
		}
		if err != nil || finished == nil {
			return err
		}
		return s.auditRestore(ctx, tx, r, state)
	})
	s.tenants.Forget(r.StoreID) // also after an error: a transaction whose connection was lost may have committed
	return err
}

func (s *Service) auditRestore(ctx context.Context, tx *masterdb.Tx, r restoreRow, state State) error {
	by := authz.Principal{}
	if r.CreatedBy != nil {
		by.UserID = *r.CreatedBy
	}
	event := audit.Event{Action: audit.BackupRestored, Store: r.StoreID, Details: map[string]string{"backup": r.BackupID.String(), "restore": r.ID.String()}}
	if state == Failed {
		event.Outcome, event.Details["code"] = audit.Failed, *r.ErrorCode
	}
	return audit.Record(ctx, tx, by, event)
}

// withouts returns what a clone leaves out.
func (r restoreRow) withouts() []string {
	return strings.FieldsFunc(r.Without, func(c rune) bool { return c == ',' })
}
