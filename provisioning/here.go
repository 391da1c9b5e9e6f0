package provisioning

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/stoahq/stoa/masterdb"
)

// A run begins in the process that was asked for it, which claims it in the
// transaction that records it: so nobody waits until the queue has found a job,
// and a fleet is spared half of the statements. The queue gets the run when this
// process has enough to do, is about to stop, or cannot go on; and when it
// dies, the claim lapses, as any other does.

// atOnceHere is how many runs are under way here at the same time.
const atOnceHere = 10

// drain is how long Stop waits for runs before it interrupts them.
const drain = 10 * time.Second

// here are the runs that began in this process.
type here struct {
	mu      sync.Mutex
	ctx     context.Context // of all of them; nil while none may begin
	cancel  context.CancelFunc
	free    int // places
	running sync.WaitGroup
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
// done.
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
	patience := time.AfterFunc(s.drain, cancel)
	defer patience.Stop()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("provisioning runs are under way: %w", ctx.Err())
	}
}

// place is where a run may begin.
type place struct {
	*Service
	claimant string // "" when this process takes no more
	ctx      context.Context
}

// take returns a place, to be given up with leave or filled with begin.
func (s *Service) take() place {
	s.here.mu.Lock()
	defer s.here.mu.Unlock()
	if s.here.ctx == nil || s.here.free == 0 {
		return place{Service: s}
	}
	s.here.free--
	s.here.running.Add(1)
	return place{s, s.claimant(), s.here.ctx}
}

func (p place) leave() {
	if p.claimant == "" {
		return
	}
	p.here.mu.Lock()
	p.here.free++
	p.here.mu.Unlock()
	p.here.running.Done()
}

// enqueue gives the run to the queue when there is no place for it here.
func (p place) enqueue(ctx context.Context, tx *masterdb.Tx, run Run) error {
	if p.claimant != "" {
		return nil
	}
	return p.queue.Enqueue(ctx, tx, Provision{RunID: run.ID, Attempt: run.Attempt})
}

// begin works on a run that was recorded as claimed, unless it is the queue's.
func (p place) begin(run Run) {
	if p.claimant == "" {
		return
	}
	go func() {
		defer p.leave()
		ctx, cancel := context.WithTimeout(p.ctx, Timeout)
		defer cancel()
		defer func() { // as in the queue, where the run is tried again when its claim has lapsed
			if fault := recover(); fault != nil {
				p.log.ErrorContext(ctx, "panic in a provisioning run", "run", run.ID.String(), "panic", fault, "stack", string(debug.Stack()))
			}
		}()
		w := &work{Service: p.Service, run: run, claimant: p.claimant, recorded: time.Now()}
		err := w.carryOut(ctx, func(ctx context.Context, tx *masterdb.Tx) error {
			return place{Service: p.Service}.enqueue(ctx, tx, run)
		})
		if err != nil && !errors.Is(err, errOvertaken) {
			p.log.WarnContext(ctx, "a provisioning run goes on in the queue", "store", run.StoreID.String(), "run", run.ID.String(), "err", err)
		}
	}()
}
