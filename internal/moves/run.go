package moves

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Run is the job that works on a move until its end, or until the old database has to follow
// again. A job for a move that another execution works on does nothing.
type Run struct {
	jobs.AtTenant `json:"-"`

	MoveID stoa.MoveID `json:"moveId"`
}

// Kind implements jobs.Args.
func (Run) Kind() string { return "moves.run" }

// RetryWithin implements jobs.RetryWithin. A job fails only when the master does not answer.
func (Run) RetryWithin() time.Duration { return 10 * time.Second }

// Timeout limits one execution. A copy that takes longer fails, because a snapshot holds back
// the clean-up of old rows at its server.
const Timeout = 6 * time.Hour

// These are the recorded steps. Each can be repeated after an interruption.
//
//	prepare → copy → catch_up → freeze → swap → keep → drop
//
// A fault or an abort before the swap leads to undo, a rollback from keep to
// rollback_freeze → rollback_swap → rollback_drop.
const (
	stepPrepare        = "prepare"
	stepCopy           = "copy"
	stepCatchUp        = "catch_up"
	stepFreeze         = "freeze"
	stepSwap           = "swap"
	stepKeep           = "keep"
	stepDrop           = "drop"
	stepUndo           = "undo"
	stepRollbackFreeze = "rollback_freeze"
	stepRollbackSwap   = "rollback_swap"
	stepRollbackDrop   = "rollback_drop"
)

// applied is what a step changes in the master database.
type applied func(context.Context, *masterdb.Tx) error

// step does the work of a step and returns the next one, "" after the last, with what it
// changes in the master database together with the record of the step.
type step struct {
	do func(*execution, context.Context) (next string, apply applied, err error)
	// early marks the steps before the store uses the new database: a fault or an abort
	// undoes them.
	early bool
	// tries is how many executions a step gets. After that the move is undone if early, and
	// goes on otherwise.
	tries int
}

var steps = map[string]step{
	stepPrepare:        {do: (*execution).prepare, early: true, tries: 5},
	stepCopy:           {do: (*execution).copy, early: true, tries: 3},
	stepCatchUp:        {do: (*execution).catchUp, early: true, tries: 5},
	stepFreeze:         {do: (*execution).freeze, early: true, tries: 5},
	stepSwap:           {do: (*execution).swap, early: true, tries: 5},
	stepKeep:           {do: (*execution).keep},
	stepDrop:           {do: (*execution).drop},
	stepUndo:           {do: (*execution).undo},
	stepRollbackFreeze: {do: (*execution).rollbackFreeze, tries: 5},
	stepRollbackSwap:   {do: (*execution).rollbackSwap},
	stepRollbackDrop:   {do: (*execution).rollbackDrop},
}

// execution is one execution of a move by the owner of its lease.
type execution struct {
	*Service
	row
	move   Move
	lease  lease.Lease
	tables []archive.Table
	from   side // zero until it is open
	to     side

	rows, changes atomic.Int64
}

// errAborted ends the work of a step that is to be undone.
var errAborted = errors.New("moves: the move was aborted")

// errLater ends an execution whose move waits for its next round.
var errLater = errors.New("moves: later")

// Run is the handler of jobs.
func (s *Service) Run(ctx context.Context, job Run) error {
	done, err := s.occupySlot(ctx, job.MoveID)
	if err != nil {
		return err
	}
	defer done()
	e := &execution{Service: s}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		e.lease = lease.Lease{Table: moves, Key: job.MoveID, Owner: s.process.NewOwner(), Duration: s.opts.Lease}
		e.row, err = s.acquire(ctx, tx, job.MoveID, e.lease.Owner)
		return err
	})
	if errors.Is(err, lease.ErrLost) {
		return nil
	}
	if err != nil {
		return err
	}
	e.move = e.row.move()
	e.rows.Store(e.move.RowsCopied)
	e.changes.Store(e.move.Changes)
	defer e.close()
	leased, stop := e.lease.Keep(ctx, s.db, s.log)
	err = e.runPersistently(leased)
	stop()
	switch {
	case err == nil, errors.Is(err, lease.ErrLost):
		return nil
	case errors.Is(err, errLater):
		return e.release(ctx, s.opts.Follow)
	}
	s.log.WarnContext(ctx, "move interrupted", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "step", e.move.Step, "err", err)
	if ctx.Err() != nil { // the process stops: the queue runs the job again
		return errors.Join(err, e.release(ctx, 0))
	}
	return e.release(ctx, e.pause())
}

// busyPause is when a job looks for a slot again.
const busyPause = 5 * time.Second

// occupySlot takes a slot for a move, or returns an error that delays the job. A move in a
// step in which writers may be refused needs none.
func (s *Service) occupySlot(ctx context.Context, id stoa.MoveID) (done func(), err error) {
	var step string
	if err := s.db.Get(ctx, &step, `SELECT step FROM store_moves WHERE id = $1`, id); err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return nil, err
	}
	if urgent(step) {
		return func() {}, nil
	}
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	default:
		return nil, jobs.Snooze(busyPause)
	}
}

// maxPause limits the time between two executions after a fault.
const maxPause = time.Minute

// pause returns when the step is tried again after a fault.
func (e *execution) pause() time.Duration {
	return min(time.Second<<min(e.move.Executions, 10), maxPause)
}

// urgentPause is the time between two executions while writers may be refused. They wait for
// the end of a move as long as tenantdb lets them, which is shorter than the queue's pauses.
const urgentPause = 500 * time.Millisecond

// runPersistently does what run does. After a fault in a step in which writers may be
// refused, it does not leave the next execution to the queue.
func (e *execution) runPersistently(ctx context.Context) error {
	for {
		err := e.run(ctx)
		if err == nil || ctx.Err() != nil || errors.Is(err, errLater) || errors.Is(err, lease.ErrLost) || !urgent(e.move.Step) {
			return err
		}
		e.log.WarnContext(ctx, "move interrupted", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "step", e.move.Step, "err", err)
		e.close()
		if wait(ctx, urgentPause) != nil {
			return err
		}
		if err := e.countExecution(ctx); err != nil {
			return err
		}
	}
}

// urgent reports whether writers may be refused in a step.
func urgent(step string) bool {
	switch step {
	case stepFreeze, stepSwap, stepRollbackFreeze, stepRollbackSwap:
		return true
	}
	return false
}

// release leaves the move without an owner, and enqueues its next job after d. Without d, the
// job that runs is repeated.
func (e *execution) release(ctx context.Context, d time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	err := e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := e.lease.Release(ctx, tx); err != nil {
			return err
		}
		until := tx.Now.Add(d + max(e.opts.Lease, time.Minute))
		if _, err := tx.Exec(ctx, `UPDATE store_moves SET claimed_until = $2 WHERE id = $1`, e.move.ID, until); err != nil || d == 0 {
			return err
		}
		var wish string
		if err := tx.Get(ctx, &wish, `SELECT wish FROM store_moves WHERE id = $1`, e.move.ID); err != nil {
			return err
		}
		if e.move.Step == stepKeep && wish != "" { // its own job found this execution at work
			return e.queue.Enqueue(ctx, tx, Run{MoveID: e.move.ID})
		}
		return e.queue.EnqueueAt(ctx, tx, tx.Now.Add(d), Run{MoveID: e.move.ID})
	})
	if errors.Is(err, lease.ErrLost) {
		return nil
	}
	return err
}

// run does the steps of the move from the recorded one on.
func (e *execution) run(ctx context.Context) error {
	var err error
	if e.tables, err = archive.Tables(ctx, e.move.SchemaVersion); err != nil {
		return err
	}
	for e.move.Step != "" {
		next, apply, err := e.runStep(ctx, steps[e.move.Step])
		if err == nil {
			err = e.interrupted("end of " + e.move.Step)
		}
		if err != nil {
			return err
		}
		err = e.record(ctx, next, apply)
		if errors.Is(err, errAborted) {
			next, err = stepUndo, e.record(ctx, stepUndo, nil)
		}
		if err != nil {
			return err
		}
		e.log.InfoContext(ctx, "move goes on", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "done", e.move.Step, "next", next)
		e.move.Step, e.move.Executions = next, 1
	}
	return nil
}

// interrupted lets a test interrupt the move.
func (e *execution) interrupted(at string) error {
	if e.interrupt == nil {
		return nil
	}
	return e.interrupt(at)
}

// runStep does one step, unless the move is to be undone.
func (e *execution) runStep(ctx context.Context, s step) (next string, apply applied, err error) {
	if err := e.interrupted(e.move.Step); err != nil {
		return "", nil, err
	}
	if s.tries > 0 && e.move.Executions > s.tries {
		return e.afterFault(ctx, s, stoa.Errorf(stoa.MoveRefused, "The move was interrupted %d times in its step %s. Nothing is lost: the store uses the database it had. Start the move again.", s.tries, e.move.Step))
	}
	watched, stop := e.watch(ctx, s)
	err = stoa.CatchPanic(func() (err error) {
		next, apply, err = s.do(e, watched)
		return err
	})
	aborted := errors.Is(context.Cause(watched), errAborted)
	stop()
	switch {
	case err == nil:
		return next, apply, nil
	case aborted, errors.Is(err, errAborted):
		return e.afterFault(ctx, s, errAborted)
	case errors.Is(err, errLater), errors.Is(err, lease.ErrLost):
		return "", nil, err
	case ctx.Err() != nil: // the process stops, or the lease is lost
		return "", nil, errors.Join(context.Cause(ctx), err)
	}
	return e.afterFault(ctx, s, err)
}

// afterFault returns the step that follows on a fault. A transient fault, and one after the
// swap, is tried again by the queue.
func (e *execution) afterFault(ctx context.Context, s step, cause error) (string, applied, error) {
	if e.move.Step == stepRollbackFreeze {
		return e.cancelRollback(ctx, cause)
	}
	if !s.early || tenantdb.IsTransient(cause) && e.move.Executions <= s.tries {
		return "", nil, cause
	}
	e.log.WarnContext(ctx, "move is undone", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "step", e.move.Step, "err", cause)
	return stepUndo, func(ctx context.Context, tx *masterdb.Tx) error {
		if errors.Is(cause, errAborted) {
			return nil
		}
		return e.fail(ctx, tx, cause)
	}, nil
}

// progressEvery is how often the progress of a step is recorded and a wish is looked for.
const progressEvery = time.Second

// watch records the progress of a step while it is done. The context ends with errAborted
// when an early step is to be aborted.
func (e *execution) watch(ctx context.Context, s step) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(progressEvery)
		defer tick.Stop()
		for {
			var wish string
			err := e.db.Tx(ctx, func(tx *masterdb.Tx) error {
				if _, err := tx.Exec(ctx, `UPDATE store_moves SET rows_copied = $3, changes = $4 WHERE id = $1 AND claimed_by = $2`,
					e.move.ID, string(e.lease.Owner), e.rows.Load(), e.changes.Load()); err != nil {
					return err
				}
				return tx.Get(ctx, &wish, `SELECT wish FROM store_moves WHERE id = $1`, e.move.ID)
			})
			if err == nil && wish == wishAbort && s.early {
				cancel(errAborted)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// open opens both databases as they were prepared.
func (e *execution) open(ctx context.Context) error {
	if e.from.DB == nil {
		db, err := e.openSide(ctx, e.SourceCredentials)
		if err != nil {
			return err
		}
		e.from = side{db, source}
	}
	if e.to.DB == nil {
		db, err := e.openSide(ctx, e.TargetCredentials)
		if err != nil {
			return err
		}
		e.to = side{db, target}
	}
	return nil
}

func (e *execution) openSide(ctx context.Context, envelope string) (*tenantdb.DB, error) {
	c, err := e.tenants.UnsealCredentials(e.move.StoreID, envelope)
	if err != nil {
		return nil, err
	}
	db, err := e.tenants.OpenUnleased(c)
	if err != nil {
		return nil, err
	}
	if err := db.PinSession(ctx, e.move.StoreID); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

func (e *execution) close() {
	for _, s := range []*side{&e.from, &e.to} {
		if s.DB != nil {
			_ = s.Close()
			s.DB = nil
		}
	}
}

// forward returns the two databases before the swap, back those after it.
func (e *execution) forward() *pair {
	return &pair{from: e.from, to: e.to, store: e.move.StoreID, tables: e.tables}
}

func (e *execution) back() *pair {
	return &pair{from: e.to, to: e.from, store: e.move.StoreID, tables: e.tables}
}

// prepare checks the source, before it makes the target: tables that are not Stoa's, and the
// right to create triggers. It then makes the target, which must contain no store.
func (e *execution) prepare(ctx context.Context) (string, applied, error) {
	from, err := e.openSide(ctx, e.SourceCredentials)
	if err != nil {
		return "", nil, err
	}
	e.from = side{from, source}
	err = from.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		return (&pair{store: e.move.StoreID}).checkSchema(ctx, archive.NewRows(from, s))
	})
	if err == nil {
		err = e.from.begin(ctx, e.move.ID, e.tables)
	}
	if err != nil {
		return "", nil, err
	}
	c, err := e.tenants.UnsealCredentials(e.move.StoreID, e.TargetCredentials)
	if err != nil {
		return "", nil, err
	}
	to, c, in, err := e.databases.OpenTarget(ctx, e.move.StoreID, c)
	if err != nil {
		return "", nil, err
	}
	e.to = side{to, target}
	if err := e.to.checkEmpty(ctx, e.move, in.Tables); err != nil {
		return "", nil, err
	}
	if err := e.to.begin(ctx, e.move.ID, e.tables); err != nil {
		return "", nil, err
	}
	if err := to.Mark(ctx, e.move.StoreID); err != nil {
		return "", nil, err
	}
	sealed, err := e.tenants.SealCredentials(e.move.StoreID, c)
	if err != nil {
		return "", nil, err
	}
	e.TargetCredentials = sealed
	return stepCopy, func(ctx context.Context, tx *masterdb.Tx) error {
		place := placeOf(c)
		_, err := tx.Exec(ctx, `UPDATE store_moves SET target_credentials = $2, target_host = $3, target_port = $4, target_name = $5 WHERE id = $1`,
			e.move.ID, sealed, place.Host, place.Port, place.Name)
		return err
	}, nil
}

// copy records changes of the source from now on, and copies all its rows. A copy that was
// interrupted is emptied and done again.
func (e *execution) copy(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.from.record(ctx, e.tables); err != nil {
		return "", nil, err
	}
	// An interrupted execution may have fenced the target already.
	if err := e.to.unrecord(ctx, e.tables); err != nil {
		return "", nil, err
	}
	e.rows.Store(0)
	head, err := archive.Copy(ctx, e.from.DB, e.to.DB, e.move.StoreID, archive.CopyOptions{OnRows: func(n int64) { e.rows.Add(n) }})
	if err == nil {
		err = checkHead(head)
	}
	if err == nil {
		err = e.to.record(ctx, e.tables)
	}
	if err == nil {
		err = e.to.SelfTest(ctx)
	}
	if err == nil {
		err = e.to.ProveClosed(ctx)
	}
	return stepCatchUp, nil, err
}

func (e *execution) catchUp(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	n, err := e.forward().catchUp(ctx, batchChanges)
	e.changes.Add(n)
	return stepFreeze, nil, err
}

// freeze ends with a source that refuses changes and a target that has the same rows. An
// execution that finds the source fenced was interrupted after that.
func (e *execution) freeze(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	took, err := e.fence(ctx, e.from, e.forward())
	return stepSwap, func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE store_moves SET frozen_ms = coalesce($2, frozen_ms) WHERE id = $1`, e.move.ID, took)
		return err
	}, err
}

// fence fences the database in use of a pair, unless it is fenced already. It returns how
// long writers had to wait, in milliseconds.
func (e *execution) fence(ctx context.Context, from side, p *pair) (took *int64, err error) {
	c, err := from.control(ctx)
	if err != nil {
		return nil, err
	}
	if c == nil || c.MoveID != e.move.ID.String() {
		return nil, stoa.Errorf(stoa.MoveRefused, "Somebody removed the table %s from the store's database. Nothing is lost: the store uses the database it had. Start the move again.", controlTable)
	}
	if c.Fenced {
		return nil, nil //nolint:nilnil // documented: nobody had to wait for this execution
	}
	err = p.fence(ctx, func(d time.Duration, err error) {
		ms := d.Milliseconds()
		took = &ms
		e.log.InfoContext(ctx, "writers stopped for a move", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "duration_ms", ms, "err", err)
	})
	return took, err
}

// swap lets the target accept changes and makes it the store's database. Replicas that use
// the source meet the fence and continue in the target.
func (e *execution) swap(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.to.unfence(ctx); err != nil {
		return "", nil, err
	}
	return stepKeep, func(ctx context.Context, tx *masterdb.Tx) error {
		var wish string
		if err := tx.Get(ctx, &wish, `SELECT wish FROM store_moves WHERE id = $1`, e.move.ID); err != nil {
			return err
		}
		if wish == wishAbort {
			return errAborted
		}
		if err := e.use(ctx, tx, e.TargetCredentials); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE store_moves SET state = 'kept', swapped_at = $2, keep_until = $3 WHERE id = $1`, e.move.ID, tx.Now, tx.Now.Add(e.opts.Keep))
		return err
	}, nil
}

// use makes a database the store's, as a rotation of credentials does.
func (e *execution) use(ctx context.Context, tx *masterdb.Tx, envelope string) error {
	c, err := e.tenants.UnsealCredentials(e.move.StoreID, envelope)
	if err != nil {
		return err
	}
	c.RolePassword, c.Adopt = credential.Credentials{}.RolePassword, false
	if err := e.tenants.Save(ctx, tx, e.move.StoreID, c); err != nil {
		return err
	}
	if err := link.RecordProject(ctx, tx, e.move.StoreID, e.tenants.ProjectRef(c)); err != nil {
		return err
	}
	if err := tenantdb.RecordSchema(ctx, tx, e.move.StoreID, tenantdb.Schema{Version: e.move.SchemaVersion}); err != nil {
		return err
	}
	if err := tenantdb.RecordHealth(ctx, tx, e.move.StoreID, nil); err != nil {
		return err
	}
	details := map[string]string{"move": e.move.ID.String(), "to": placeOf(c).String()}
	return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.MoveSwapped, Store: e.move.StoreID, Details: details})
}

// maxJournal is how many entries a journal may have while the old database does not answer.
const maxJournal = 500_000

// maxFollow limits one round in which the old database follows.
const maxFollow = 5 * time.Minute

// keep lets the old database follow the new one, until the time for a rollback has passed.
func (e *execution) keep(ctx context.Context) (string, applied, error) {
	var now row
	if err := e.db.Get(ctx, &now, selectMoves+`id = $1`, e.move.ID); err != nil {
		return "", nil, err
	}
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	switch {
	case gone, now.Wish == wishFinish, !now.follows(e.db.Now()):
		return stepDrop, nil, nil
	case now.Wish == wishRollback:
		return stepRollbackFreeze, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxFollow)
	defer cancel()
	if err := e.open(ctx); err == nil {
		n, err := e.back().catchUp(ctx, frozenChanges)
		e.changes.Add(n)
		if err != nil {
			e.log.WarnContext(ctx, "old database of a move does not follow", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "err", err)
		}
	}
	if e.to.DB != nil {
		if n, err := e.to.entries(ctx, maxJournal); err == nil && n == maxJournal {
			return stepDrop, nil, nil
		}
	}
	return "", nil, errLater
}

// storeGone reports whether the store has been deleted for good since the move began.
func (e *execution) storeGone(ctx context.Context) (bool, error) {
	_, err := e.tenants.Load(ctx, e.db, e.move.StoreID)
	if stoa.CodeOf(err) == stoa.StorePendingDatabase {
		return true, nil
	}
	return false, err
}

// drop ends a move: the new database records no more, and the old one is removed if the
// platform manages it. One of the owner's own keeps its tables.
func (e *execution) drop(ctx context.Context) (string, applied, error) {
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	if !gone {
		if err := e.clean(ctx, e.move.Target, func(s side) error { return s.end(ctx, e.tables) }, e.TargetCredentials, target, dropTries); err != nil {
			return "", nil, err
		}
	}
	e.close()
	if err := e.remove(ctx, e.move.Source, func(s side) error { return s.end(ctx, e.tables) }, e.SourceCredentials, source); err != nil {
		return "", nil, err
	}
	return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, Succeeded) }, nil
}

// undoTries is how many executions try to clean up a database of the owner's that does not
// answer.
const undoTries = 10

// dropTries is the same for the database that the store uses: about an hour. It may be lost
// for good, and is restored from an archive only after the end of the move.
const dropTries = 60

// remove drops a managed database. In one of the owner's own it calls do.
func (e *execution) remove(ctx context.Context, place Place, do func(side) error, envelope string, r role) error {
	if place.Kind == credential.Managed {
		return e.tenants.DropManaged(ctx, e.move.StoreID, place.info())
	}
	return e.clean(ctx, place, do, envelope, r, undoTries)
}

// clean calls do with a database. If that does not answer in this number of executions, what
// the move has added stays there: the next move removes it.
func (e *execution) clean(ctx context.Context, place Place, do func(side) error, envelope string, r role, tries int) error {
	db, err := e.openSide(ctx, envelope)
	if err == nil {
		defer db.Close() //nolint:errcheck // no statement is pending
		err = do(side{db, r})
	}
	if err != nil && e.move.Executions >= tries && ctx.Err() == nil {
		e.log.WarnContext(ctx, "database not cleaned up after a move", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "database", place.String(), "err", err)
		return nil
	}
	return err
}

// undo ends a move before the swap: the source accepts changes and records no more, and
// nothing is left of the target.
func (e *execution) undo(ctx context.Context) (string, applied, error) {
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	if !gone {
		db, err := e.openSide(ctx, e.SourceCredentials)
		if err != nil {
			return "", nil, err
		}
		e.from = side{db, source}
		if c, err := e.from.control(ctx); err != nil {
			return "", nil, err
		} else if c != nil { // writers need not wait until all triggers are removed
			if _, err := db.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1`, false); err != nil {
				return "", nil, err
			}
		}
		if err := e.from.end(ctx, e.tables); err != nil {
			return "", nil, err
		}
	}
	e.close()
	var code *string
	if err := e.db.Get(ctx, &code, `SELECT error_code FROM store_moves WHERE id = $1`, e.move.ID); err != nil {
		return "", nil, err
	}
	if code != nil && *code == string(stoa.DatabaseNotEmpty) { // what is there is not the move's
		return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, Failed) }, nil
	}
	if err := e.remove(ctx, e.move.Target, func(s side) error { return s.erase(ctx, e.move, e.tables) }, e.TargetCredentials, target); err != nil {
		return "", nil, err
	}
	state := Failed
	if code == nil {
		state = Aborted
	}
	return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, state) }, nil
}

func (e *execution) rollbackFreeze(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	_, err := e.fence(ctx, e.to, e.back())
	return stepRollbackSwap, nil, err
}

// cancelRollback lets the store continue in the new database after a rollback has failed.
func (e *execution) cancelRollback(ctx context.Context, cause error) (string, applied, error) {
	if tenantdb.IsTransient(cause) && e.move.Executions <= steps[stepRollbackFreeze].tries {
		return "", nil, cause
	}
	db, err := e.openSide(ctx, e.TargetCredentials)
	if err != nil {
		return "", nil, errors.Join(cause, err)
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if _, err := db.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1`, false); err != nil {
		return "", nil, errors.Join(cause, err)
	}
	return stepKeep, func(ctx context.Context, tx *masterdb.Tx) error {
		if err := e.fail(ctx, tx, cause); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE store_moves SET wish = '' WHERE id = $1`, e.move.ID)
		return err
	}, nil
}

func (e *execution) rollbackSwap(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.from.unfence(ctx); err != nil {
		return "", nil, err
	}
	return stepRollbackDrop, func(ctx context.Context, tx *masterdb.Tx) error { return e.use(ctx, tx, e.SourceCredentials) }, nil
}

func (e *execution) rollbackDrop(ctx context.Context) (string, applied, error) {
	next, _, err := e.undo(ctx)
	return next, func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, RolledBack) }, err
}

// checkEmpty fails for a database that holds something else than what an interrupted
// execution of this move has left.
func (s side) checkEmpty(ctx context.Context, m Move, tables []string) error {
	c, err := s.control(ctx)
	if err != nil || c != nil && c.MoveID == m.ID.String() {
		return err // begin refuses the source
	}
	stoas, err := archive.Tables(ctx, m.SchemaVersion)
	if err != nil {
		return err
	}
	known := map[string]bool{tenantdb.VersionTable: true, tenantdb.CustomVersionTable: true, tenantdb.MarkerTable: true, controlTable: true, journalTable: true}
	for _, t := range stoas {
		known[t.Name] = true
	}
	there := map[string]bool{}
	for _, name := range tables {
		if there[name] = true; !known[name] {
			return stoa.Errorf(stoa.DatabaseNotEmpty, "The new database holds other tables (%.80q, for one). Give the store a database of its own.", name)
		}
	}
	for _, t := range stoas {
		if !there[t.Name] {
			continue
		}
		var rows int
		if err := s.Get(ctx, &rows, `SELECT count(*) FROM (SELECT 1 FROM `+t.Name+` LIMIT 1) one`); err != nil {
			return err
		}
		if rows > 0 {
			return stoa.Errorf(stoa.DatabaseNotEmpty, "The table %s of the new database has rows already. Use an empty database.", t.Name)
		}
	}
	return nil
}

// erase removes the store's tables from a target, if the move has made them.
func (s side) erase(ctx context.Context, m Move, tables []archive.Table) error {
	c, err := s.control(ctx)
	if err != nil || c == nil || c.MoveID != m.ID.String() || c.Role != target {
		return err
	}
	names := []string{tenantdb.VersionTable, tenantdb.MarkerTable}
	for _, t := range tables { // a table before those that it references
		names = append([]string{t.Name}, names...)
	}
	for _, name := range names {
		if err := s.ddl(ctx, []string{`DROP TABLE IF EXISTS ` + name}); err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
	}
	return s.end(ctx, tables) // the control row last: it says that the tables are the move's
}
