package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// errIterations: a server asks for more work than this platform does for one
// password.
var errIterations = errors.New("tenantdb: the server asks for too many iterations of SCRAM")

// errHashing: no password could be hashed in time, since others were.
var errHashing = fmt.Errorf("%w: too many passwords are hashed at the same time", errNoConnection)

// hashingWait bounds how long a connection waits until its password may be
// hashed. One password costs a hundredth of a second at most.
const hashingWait = 5 * time.Second

// hashings are the passwords that this process hashes at the same time. A
// server says how much work that is, within limits, and cannot be asked to
// stop: so at most half of the processors do it.
var hashings = make(chan struct{}, max(1, runtime.NumCPU()/2))

// hashingSlot is one connection's right to hash. It is safe for concurrent use.
type hashingSlot struct {
	all  chan struct{}   // holds one for each right that is taken
	ctx  context.Context //nolint:containedctx // of the connection's making, which the driver's reads do not carry
	mu   sync.Mutex
	held bool
}

// take waits for the right. It fails with errHashing after hashingWait, and
// when the connection's context is done.
func (s *hashingSlot) take() error {
	late := time.NewTimer(hashingWait)
	defer late.Stop()
	select {
	case s.all <- struct{}{}:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.held = true
		return nil
	case <-late.C:
		return errHashing
	case <-s.ctx.Done():
		return s.ctx.Err()
	}
}

// release gives the right back if it is held.
func (s *hashingSlot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		<-s.all
	}
}
