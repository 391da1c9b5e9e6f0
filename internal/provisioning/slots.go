package provisioning

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/stoahq/stoa/internal/lease"
)

// maxInProcess is how many runs this process executes at the same time outside
// the queue.
const maxInProcess = 10

// slots count the runs that this process executes outside the queue.
type slots struct {
	mu         sync.Mutex
	ctx        context.Context // of all executions; nil while none may begin
	cancel     context.CancelFunc
	free       int
	running    sync.WaitGroup
	unreleased int // runs whose lease could not be released during a stop
}

// slot is the right to execute one run in this process. The zero value is none.
type slot struct {
	ctx   context.Context // of the execution
	owner lease.Owner     // of the run's lease; "" without a slot
}

func (s slot) ok() bool { return s.owner != "" }

// Start lets runs be executed in this process. They outlive ctx; Stop ends them.
func (s *Service) Start(ctx context.Context) {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	s.slots.ctx, s.slots.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.slots.free = maxInProcess
}

// Stop lets no more runs begin in this process, waits for Options.Drain for those
// under way, hands the others over to the queue, and returns when none is left or
// ctx is done. It fails when a run is still under way or could not be handed over:
// such a run is resumed when its lease has expired.
func (s *Service) Stop(ctx context.Context) error {
	s.slots.mu.Lock()
	cancel := s.slots.cancel
	s.slots.ctx = nil
	s.slots.mu.Unlock()
	if cancel == nil {
		return nil // it was never started
	}
	defer cancel()
	ended := make(chan struct{})
	go func() {
		s.slots.running.Wait()
		close(ended)
	}()
	interrupt := time.AfterFunc(s.opts.Drain, cancel)
	defer interrupt.Stop()
	select {
	case <-ended:
	case <-ctx.Done():
		return fmt.Errorf("provisioning runs under way: %d: %w", s.UnderWay(), ctx.Err())
	}
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	if s.slots.unreleased > 0 {
		return fmt.Errorf("provisioning runs that could not be handed over: %d", s.slots.unreleased)
	}
	return nil
}

// UnderWay returns how many runs this process executes outside the queue.
func (s *Service) UnderWay() int {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	if s.slots.cancel == nil {
		return 0
	}
	return maxInProcess - s.slots.free
}

// acquireSlot returns a slot, to be given back with releaseSlot, or none when no
// slot is free or the service is not started.
func (s *Service) acquireSlot() slot {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	if s.slots.ctx == nil || s.slots.free == 0 {
		return slot{}
	}
	s.slots.free--
	s.slots.running.Add(1)
	return slot{ctx: s.slots.ctx, owner: s.process.NewOwner()}
}

func (s *Service) releaseSlot(sl slot) {
	if !sl.ok() {
		return
	}
	s.slots.mu.Lock()
	s.slots.free++
	s.slots.mu.Unlock()
	s.slots.running.Done()
}

// countUnreleased counts, during a stop, a run whose lease could not be released.
func (s *slots) countUnreleased() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil && s.ctx == nil {
		s.unreleased++
	}
}
