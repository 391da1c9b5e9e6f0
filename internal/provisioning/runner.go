package provisioning

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// A run is executed by the process that recorded it, since that is faster than through
// the queue. When that process has no free slot, stops or ends, a job of the queue
// executes the run. Both call execution.execute:
//
//	acquire the lease → for each step: begin, do, record → end the run
//
// The only recorded state is the run in the master database; see runstore.go.

// execution is one execution of a run by the owner of the run's lease.
type execution struct {
	*Service
	run     Run
	lease   lease.Lease
	steps   []step // of the run
	crashes int    // executions that ended with their process since the last recorded end of a step
	inQueue bool   // a job of the queue executes the run; after an error the queue runs it again

	database tenantdb.Registered
	tenant   *tenantdb.DB // the open database, used by this execution only; nil when not open

	pending    []transition // not recorded yet
	recordedAt time.Time    // when the run was last recorded

	// Results of steps. They are recorded with the end of the step.
	credentials *credential.Credentials // new credentials of the store
	schema      tenantdb.Schema
	warnings    []tenantdb.Warning
}

func (s *Service) newExecution(run Run, l lease.Lease) *execution {
	run.Steps = slices.Clone(run.Steps) // the execution changes its own slice
	return &execution{Service: s, run: run, lease: l, steps: run.steps(), recordedAt: time.Now()}
}

// Provision is the handler of jobs. A step that fails ends the run: the owner of the
// store sees the cause and corrects it. An error is returned only when the run could not
// be executed; the queue then retries the job.
func (s *Service) Provision(ctx context.Context, job Provision) error {
	e, err := s.begin(ctx, job)
	if err == nil {
		err = e.execute(ctx)
	}
	if errors.Is(err, lease.ErrLost) { // the run has ended, or another execution or a later attempt has its lease
		return nil
	}
	return err
}

// begin acquires the lease of the job's run and starts its next step. It fails with
// lease.ErrLost when the job may not execute the run.
func (s *Service) begin(ctx context.Context, job Provision) (e *execution, err error) {
	owner := s.process.NewOwner()
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		e, err = s.acquire(ctx, tx, job, owner)
		return err
	})
	if err != nil {
		return nil, err
	}
	e.inQueue = true
	return e, nil
}

// executeInProcess executes a run whose lease was acquired when it was recorded.
func (s *Service) executeInProcess(sl slot, e *execution) {
	defer s.releaseSlot(sl)
	ctx, cancel := context.WithTimeout(sl.ctx, Timeout)
	defer cancel()
	// After a panic outside the steps the lease expires, as after a crash.
	err := stoa.CatchPanic(func() error { return e.execute(ctx) })
	s.logPanic(ctx, panicInRun, err, "store", e.run.StoreID.String(), "run", e.run.ID.String())
	if err != nil && !errors.Is(err, lease.ErrLost) {
		s.log.WarnContext(ctx, "provisioning run handed over to the queue", "store", e.run.StoreID.String(), "run", e.run.ID.String(), "err", err)
	}
}

// execute executes the run whose lease was just acquired. A run that does not end is
// handed over to the queue: the lease is released, and the run has a job.
func (e *execution) execute(ctx context.Context) error {
	defer e.close()
	leased, stop := e.lease.Keep(ctx, e.db, e.log)
	err := e.runSteps(leased)
	stop()
	if err != nil && !errors.Is(err, lease.ErrLost) {
		e.handOver(ctx)
	}
	return err
}

// runSteps executes the steps that have not succeeded, in order. A step that panics fails
// like a step that returns an error.
func (e *execution) runSteps(ctx context.Context) error {
	if e.crashes >= maxCrashes {
		return e.fail(ctx, e.run.next(0), errCrashed())
	}
	for i, s := range e.steps {
		if e.run.did(s.name) {
			continue
		}
		switch err := stoa.CatchPanic(func() error { return e.runStep(ctx, s, e.run.next(i+1)) }); {
		case err == nil:
		case errors.Is(err, lease.ErrLost):
			return err
		case errors.Is(context.Cause(ctx), lease.ErrLost), errors.Is(context.Cause(ctx), lease.ErrExpired):
			return context.Cause(ctx)
		case errors.Is(ctx.Err(), context.Canceled):
			// The process is stopping: the run keeps its state. The queue recognizes this
			// error and resumes the run without counting it as a failure.
			return fmt.Errorf("interrupted in step %s: %w", s.name, ctx.Err())
		default: // also when the execution has timed out
			return e.fail(ctx, s.name, err)
		}
	}
	e.adopt(ctx)
	return nil
}

// runStep does the work of one step and records its end together with the start of the
// next step.
func (e *execution) runStep(ctx context.Context, s step, next string) error {
	if err := e.try(ctx, s); err != nil {
		return err
	}
	t := transition{ended: s, begun: next, at: e.db.Now()}
	if e.mayDefer(t) {
		e.pending = append(e.pending, t)
	} else if err := e.record(ctx, t); err != nil {
		return err
	}
	e.run.pass(s.name)
	return nil
}

// tryFor is how long after the first attempt of a step another attempt may start. With
// the duration of one attempt, the step ends before most callers of Connect time out.
const tryFor = 6 * time.Second

// try does the work of one step, and repeats it after a transient fault. The fault is
// recorded while the step is still running.
func (e *execution) try(ctx context.Context, s step) error {
	begun := time.Now()
	for try := 0; ; try++ {
		err := e.do(ctx, s)
		if err == nil || ctx.Err() != nil || !tenantdb.IsTransient(err) || try == len(e.opts.Pauses) ||
			time.Since(begun)+e.opts.Pauses[try] > tryFor {
			return err
		}
		fault, pause := FaultOf(err), time.After(e.opts.Pauses[try])
		e.log.InfoContext(ctx, "provisioning step is tried again", "store", e.run.StoreID.String(), "run", e.run.ID.String(),
			"step", s.name, "code", string(fault.Code), "err", err)
		if err := e.record(ctx, transition{begun: s.name, fault: fault}); err != nil {
			return err
		}
		select {
		case <-pause:
		case <-ctx.Done():
			return err
		}
	}
}

// do does the work of one step once, with the database open.
func (e *execution) do(ctx context.Context, s step) error {
	if err := e.open(ctx); err != nil || s.do == nil {
		return err
	}
	return s.do(e, ctx)
}

// open opens the store's database, unless it is open or there are no credentials yet.
func (e *execution) open(ctx context.Context) (err error) {
	if e.tenant != nil || e.run.InProject && !e.run.did(stepProject) {
		return nil
	}
	if e.database, err = e.tenants.Read(ctx, e.db, e.run.StoreID); err != nil {
		return err
	}
	tenant, err := e.tenants.OpenUnleased(e.database.Credentials)
	if err != nil {
		return err
	}
	if e.run.did("connect") { // in an earlier execution, or with other credentials
		if err := tenant.PinSession(ctx, e.run.StoreID); err != nil {
			_ = tenant.Close()
			return err
		}
	}
	e.tenant = tenant
	return nil
}

func (e *execution) close() {
	if e.tenant != nil {
		_ = e.tenant.Close()
		e.tenant = nil
	}
}

// adopt passes the open database to the connection manager, for the requests to the store
// that is active now. It may wait until another database is closed.
func (e *execution) adopt(ctx context.Context) {
	if e.tenant != nil {
		e.tenants.Adopt(ctx, e.run.StoreID, e.database, e.tenant)
		e.tenant = nil
	}
}

// endTimeout limits the recording of a failure or of a hand-over. The execution itself
// may already have timed out.
const endTimeout = 10 * time.Second

// fail ends the run with the cause and moves the store back to pending_database.
func (e *execution) fail(ctx context.Context, step string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	var earlier *applyError // of a step whose work was done
	if errors.As(cause, &earlier) {
		step, e.pending = earlier.step, e.pending[:earlier.index]
	}
	fault := FaultOf(cause)
	e.log.WarnContext(ctx, "provisioning failed", "store", e.run.StoreID.String(), "run", e.run.ID.String(),
		"step", step, "code", string(fault.Code), "err", cause)
	e.logPanic(ctx, panicInRun, cause, "store", e.run.StoreID.String(), "run", e.run.ID.String())
	if len(e.pending) > 0 { // these steps have ended, whether or not the failure can be recorded
		switch err := e.record(ctx); {
		case errors.As(err, &earlier): // that step is the one that failed; fewer transitions are pending now
			return e.fail(ctx, step, err)
		case err != nil:
			return err
		}
	}
	return e.record(ctx, failure(step, fault))
}

// handOver releases the lease of a run that has not ended. The run's job resumes it at
// once. A run without a job gets one. A lease that cannot be released expires, and the
// execution counts as a crash.
func (e *execution) handOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	err := e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := e.releaseRun(ctx, tx); err != nil || e.inQueue {
			return err
		}
		return e.enqueue(ctx, tx, e.run)
	})
	if err != nil && !errors.Is(err, lease.ErrLost) {
		e.log.WarnContext(ctx, "lease of a provisioning run not released; it expires", "run", e.run.ID.String(), "err", err)
		e.slots.countUnreleased()
	}
}

const panicInRun = "panic in a provisioning run"

// logPanic logs the stack of err if it is a panic.
func (s *Service) logPanic(ctx context.Context, message string, err error, attributes ...any) {
	var p *stoa.Panic
	if errors.As(err, &p) {
		s.log.ErrorContext(ctx, message, append(attributes, "panic", p.Error(), "stack", string(p.Stack))...)
	}
}
