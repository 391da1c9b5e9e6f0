package provisioning

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// A run begins in the process that was asked for it, which claims it in the
// transaction that records it: so nobody waits until the queue has found a job,
// and a fleet is spared half of the statements. The queue gets the run when this
// process has enough to do, is about to stop, or cannot go on; and when it
// dies, the claim lapses, as any other does.

// atOnceHere is how many runs are under way here at the same time.
const atOnceHere = 10

// here are the runs that began in this process.
type here struct {
	mu      sync.Mutex
	ctx     context.Context // of all of them; nil while none may begin
	cancel  context.CancelFunc
	free    int // places
	running sync.WaitGroup
	kept    int // runs that could not be handed over in a stop: their claims lapse
}

// keep counts a run that could not be handed over, if that was for a stop.
func (h *here) keep() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.cancel != nil && h.ctx == nil {
		h.kept++
	}
}

// Start has runs begin in this process from now on. They outlive ctx; Stop
// ends them.
func (s *Service) Start(ctx context.Context) {
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	s.here.ctx, s.here.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.here.free = atOnceHere
}

// Stop has no more runs begin here, waits a while for those under way, hands
// what is left over to the queue, and returns when none is left or ctx is
// done. It fails when a run is then still under way or could not be handed
// over: such a run goes on elsewhere when its claim has lapsed.
func (s *Service) Stop(ctx context.Context) error {
	s.here.mu.Lock()
	cancel := s.here.cancel
	s.here.ctx = nil
	s.here.mu.Unlock()
	if cancel == nil {
		return nil // it was never started
	}
	defer cancel()
	ended := make(chan struct{})
	go func() {
		s.here.running.Wait()
		close(ended)
	}()
	interrupt := time.AfterFunc(s.opts.Drain, cancel)
	defer interrupt.Stop()
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("provisioning runs under way: %d: %w", s.UnderWay(), ctx.Err())
	}
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	if s.here.kept > 0 {
		return fmt.Errorf("provisioning runs that could not be handed over: %d", s.here.kept)
	}
	return nil
}

// UnderWay is how many runs are under way that began in this process.
func (s *Service) UnderWay() int {
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	if s.here.cancel == nil {
		return 0
	}
	return atOnceHere - s.here.free
}

// place is where a run may begin.
type place struct {
	claimant string          // "" when this process takes no more
	ctx      context.Context // of the run
}

// take returns a place, to be given back with leave.
func (s *Service) take() place {
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	if s.here.ctx == nil || s.here.free == 0 {
		return place{}
	}
	s.here.free--
	s.here.running.Add(1)
	return place{s.claimant(), s.here.ctx}
}

func (s *Service) leave(p place) {
	if p.claimant == "" {
		return
	}
	s.here.mu.Lock()
	s.here.free++
	s.here.mu.Unlock()
	s.here.running.Done()
}

// launch has a run recorded, under way for the claimant it is given or, when
// that is "", as one for the queue, and begins it.
func (s *Service) launch(ctx context.Context, record func(tx *masterdb.Tx, claimant string) (Run, error)) (run Run, err error) {
	p, begun := s.take(), false
	defer func() {
		if !begun {
			s.leave(p)
		}
	}()
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if run, err = record(tx, p.claimant); err != nil || p.claimant != "" {
			return err
		}
		return s.enqueue(ctx, tx, run)
	})
	if err != nil {
		return Run{}, err
	}
	if begun = p.claimant != ""; begun {
		go s.goOn(p, run)
	}
	return run, nil
}

func (s *Service) enqueue(ctx context.Context, tx *masterdb.Tx, run Run) error {
	return s.queue.Enqueue(ctx, tx, Provision{RunID: run.ID, Attempt: run.Attempt})
}

// goOn works on a run that the place's claimant has claimed.
func (s *Service) goOn(p place, run Run) {
	defer s.leave(p)
	ctx, cancel := context.WithTimeout(p.ctx, Timeout)
	defer cancel()
	w := &work{Service: s, run: run, steps: run.steps(), claimant: p.claimant, recorded: time.Now()}
	// A panic outside the steps leaves the claim to lapse, as a crash does.
	err := stoa.CatchPanic(func() error {
		return w.carryOut(ctx, func(ctx context.Context, tx *masterdb.Tx) error { return s.enqueue(ctx, tx, run) })
	})
	s.logPanic(ctx, panicInRun, err, "store", run.StoreID.String(), "run", run.ID.String())
	if err != nil && !errors.Is(err, errOvertaken) {
		s.log.WarnContext(ctx, "a provisioning run goes on in the queue", "store", run.StoreID.String(), "run", run.ID.String(), "err", err)
	}
}

const panicInRun = "panic in a provisioning run"

// logPanic logs where the panic was that err is, if it is one.
func (s *Service) logPanic(ctx context.Context, message string, err error, attributes ...any) {
	var p *stoa.Panic
	if errors.As(err, &p) {
		s.log.ErrorContext(ctx, message, append(attributes, "panic", p.Error(), "stack", string(p.Stack))...)
	}
}
