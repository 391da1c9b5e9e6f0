package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// errIterations means that a server asks for more work for one password than
// this platform accepts.
var errIterations = errors.New("tenantdb: the server asks for too many iterations of SCRAM")

// errHashing means that a password could not be hashed in time because too many
// others were being hashed.
var errHashing = fmt.Errorf("%w: too many passwords are hashed at the same time", errNoConnection)

// hashingWait limits how long a connection waits until its password may be
// hashed. Hashing one password takes at most a hundredth of a second.
const hashingWait = 5 * time.Second

// hashings limits how many passwords this process hashes at the same time. A
// server chooses how much work a password takes, within limits, and the work
// cannot be interrupted. Therefore at most half of the processors do it.
var hashings = make(chan struct{}, max(1, runtime.NumCPU()/2))

// hashingSlot is one connection's permission to hash a password. It is safe for
// concurrent use.
type hashingSlot struct {
	all  chan struct{}   // has one element for each slot that is in use
	ctx  context.Context //nolint:containedctx // of the connection's making, which the driver's reads do not carry
	mu   sync.Mutex
	held bool
}

// take waits for a slot. It fails with errHashing after hashingWait, and when
// the connection's context is done.
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

// release returns the slot if it is held.
func (s *hashingSlot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		<-s.all
	}
}
