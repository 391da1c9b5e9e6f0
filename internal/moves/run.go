package moves

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
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
