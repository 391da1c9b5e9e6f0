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

// slots counts the runs that this process executes outside the queue.
type slots struct {
	mu         sync.Mutex
	ctx        context.Context // of all executions; nil while none may start
	cancel     context.CancelFunc
	free       int
	running    sync.WaitGroup
	unreleased int // runs whose lease could not be released during a stop
}

// slot is the permission to execute one run in this process. The zero value is no
// permission.
type slot struct {
	ctx   context.Context // of the execution
	owner lease.Owner     // of the run's lease; "" without a slot
}

func (s slot) ok() bool { return s.owner != "" }

// Start enables the execution of runs in this process. Executions continue when ctx ends.
// Stop ends them.
func (s *Service) Start(ctx context.Context) {
	s.slots.mu.Lock()
	defer s.slots.mu.Unlock()
	s.slots.ctx, s.slots.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.slots.free = maxInProcess
}

// Stop starts no more runs in this process, waits for Options.Drain for those in
// progress, and hands the remaining ones over to the queue. It returns when none is left
// or when ctx is done. It fails when a run is still in progress or could not be handed
// over. Such a run is resumed when its lease has expired.
func (s *Service) Stop(ctx context.Context) error {
	s.slots.mu.Lock()
	cancel := s.slots.cancel
	s.slots.ctx = nil
	s.slots.mu.Unlock()
	if cancel == nil {
		return nil // Start was not called
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

// acquireSlot returns a slot, to be returned with releaseSlot. It returns the zero slot
// when none is free or the service is not started.
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
