package provisioning

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// work is a run under way.
type work struct {
	*Service
	run      Run
	steps    []step // of the run
	claimant string
	crashes  int // of executions before this one that died, since the last step that was done
	database tenantdb.Registered
	tenant   *tenantdb.DB // of database, not yet shared with anybody
	then     string       // the step after the one under way, or ""
	passed   []passage    // not on record yet
	recorded time.Time    // when the record was last brought up to date
}

// Provision is the job handler. A step that fails ends the run: the owner
// sees the cause and mends it. An error is returned only when the run could
// not be worked on at all; the queue then tries again.
func (s *Service) Provision(ctx context.Context, job Provision) error {
	w, err := s.begin(ctx, job)
	if err == nil {
		err = w.carryOut(ctx, nil)
	}
	if errors.Is(err, errOvertaken) {
		return nil
	}
	return err
}

// begin claims the job's run and begins its next step, or fails with
// errOvertaken.
func (s *Service) begin(ctx context.Context, job Provision) (*work, error) {
	w := &work{Service: s, claimant: s.claimant()}
	err := s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		w.run, w.crashes, err = s.claim(ctx, tx, job, w.claimant)
		w.steps = w.run.steps()
		return err
	})
	w.recorded = time.Now()
	return w, err
}

// carryOut works on a run that is claimed. When it cannot come to an end it
// gives up the claim, and has handOver say who goes on unless that is nil.
func (w *work) carryOut(ctx context.Context, handOver func(context.Context, *masterdb.Tx) error) error {
	defer w.close()
	claimed, stop := w.keep(ctx)
	err := w.do(claimed)
	stop()
	if err != nil && !errors.Is(err, errOvertaken) {
		w.release(ctx, handOver)
	}
	return err
}

// do works on the run's steps in their order. A step that panics fails, as one
// does that returns an error.
func (w *work) do(ctx context.Context) error {
	if w.crashes >= maxCrashes {
		return w.fail(ctx, w.run.next(0), errCrashed())
	}
	for i, step := range w.steps {
		if w.run.did(step.name) {
			continue
		}
		w.then = w.run.next(i + 1)
		switch err := stoa.CatchPanic(func() error { return w.step(ctx, step.name, step.run) }); {
		case err == nil:
		case errors.Is(err, errOvertaken):
			return err
		case errors.Is(context.Cause(ctx), errOvertaken), errors.Is(context.Cause(ctx), errLapsed):
			return context.Cause(ctx)
		case errors.Is(ctx.Err(), context.Canceled):
			// Shutting down: the run stays as it is. The queue knows this error
			// and resumes the run without counting it as a failure.
			return fmt.Errorf("interrupted in step %s: %w", step.name, ctx.Err())
		default: // also when the time of the job is up
			return w.fail(ctx, step.name, err)
		}
	}
	return nil
}

// tryFor is how long after a step's first try another one may begin. Together
// with what a single try may take, the end comes before most callers of
// Connect have lost patience.
const tryFor = 6 * time.Second

// step works on one step, and tries again what may pass by itself: the fault
// is then on record while the step is still running.
func (w *work) step(ctx context.Context, name string, run func(*work, context.Context) error) error {
	begun := time.Now()
	for try := 0; ; try++ {
		err := w.try(ctx, run)
		if err == nil || ctx.Err() != nil || !tenantdb.IsTransient(err) || try == len(w.opts.Pauses) ||
			time.Since(begun)+w.opts.Pauses[try] > tryFor {
			return err
		}
		fault, pause := faultOf(err), time.After(w.opts.Pauses[try])
		w.log.InfoContext(ctx, "provisioning step is tried again", "store", w.run.StoreID.String(), "run", w.run.ID.String(),
			"step", name, "code", string(fault.Code), "err", err)
		if err := w.record(ctx, nil, change{step: name, state: Running, fault: fault}); err != nil {
			return err
		}
		select {
		case <-pause:
		case <-ctx.Done():
			return err
		}
	}
}

// try opens the database when the first step that needs it comes.
func (w *work) try(ctx context.Context, run func(*work, context.Context) error) error {
	if w.tenant == nil && (!w.run.InProject || w.run.did(stepProject)) {
		var err error
		if w.database, err = w.tenants.Read(ctx, w.db, w.run.StoreID); err != nil {
			return err
		}
		tenant, err := w.tenants.OpenUnleased(w.database.Credentials)
		if err != nil {
			return err
		}
		if w.run.did("connect") { // by an execution before this one, or on other credentials
			if err := tenant.PinSession(ctx, w.run.StoreID); err != nil {
				_ = tenant.Close()
				return err
			}
		}
		w.tenant = tenant
	}
	return run(w, ctx)
}

func (w *work) close() {
	if w.tenant != nil {
		_ = w.tenant.Close()
	}
}

// failTimeout bounds the recording of a failure, for which the job's own
// time may have run out.
const failTimeout = 10 * time.Second

// fail records the cause and gives the store back to its owner.
func (w *work) fail(ctx context.Context, step string, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), failTimeout)
	defer cancel()
	var earlier *passageError // of a step that was behind the run, but for its record
	if errors.As(cause, &earlier) {
		step, w.passed = earlier.step, w.passed[:earlier.place]
	}
	fault := faultOf(cause)
	w.log.WarnContext(ctx, "provisioning failed", "store", w.run.StoreID.String(), "run", w.run.ID.String(),
		"step", step, "code", string(fault.Code), "err", cause)
	w.logPanic(ctx, panicInRun, cause, "store", w.run.StoreID.String(), "run", w.run.ID.String())
	if len(w.passed) > 0 { // done, whether or not the failure can be recorded
		switch err := w.record(ctx, nil); {
		case errors.As(err, &earlier): // then that step is the one that failed; fewer are behind the run now
			return w.fail(ctx, step, err)
		case err != nil:
			return err
		}
	}
	return w.record(ctx, func(ctx context.Context, tx *masterdb.Tx) error {
		if err := tenantdb.RecordHealth(ctx, tx, w.run.StoreID, fault.Err()); err != nil {
			return err
		}
		return w.registry.FailProvisioning(ctx, tx, w.run.StoreID)
	}, change{step: step, state: Failed, fault: fault}, change{state: Failed, fault: fault})
}
