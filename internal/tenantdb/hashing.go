package tenantdb

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
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
var hashings = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

const (
	// usualIterations is the number of iterations of SCRAM that a password may
	// take at any time. PostgreSQL's own is 4,096, and RFC 7677 recommends at
	// least 15,000.
	usualIterations = 16_384
	// unusualIterations is the number of iterations that each processor computes in a
	// second for passwords that take more than that: about 2 % of its time.
	unusualIterations = 100_000
	// unusualWait limits how long such a password waits for its turn.
	unusualWait = 2 * time.Second
)

// unusualHashings limits the processor time for passwords that take more than
// usualIterations, so that owners' servers that ask for the most that is accepted do
// not slow other stores.
var unusualHashings = rate.NewLimiter(rate.Limit(unusualIterations*runtime.GOMAXPROCS(0)), maxIterations)

// unusualHashingsOf returns the limiter of c's server. The operator's own servers,
// which managed databases are on, have none.
func unusualHashingsOf(c credential.Credentials) *rate.Limiter {
	if c.Kind == credential.Managed {
		return nil
	}
	return unusualHashings
}

// hashingSlot is one connection's permission to hash a password. It is safe for
// concurrent use.
type hashingSlot struct {
	all     chan struct{}   // has one element for each slot that is in use
	unusual *rate.Limiter   // of iterations, for passwords that take many
	ctx     context.Context //nolint:containedctx // of the connection's making, which the driver's reads do not carry
	mu      sync.Mutex
	held    bool
}

// take waits until a password may be hashed with that many iterations, at most
// maxIterations. It fails with errHashing after unusualWait and hashingWait, and
// when the connection's context is done.
func (s *hashingSlot) take(iterations int) error {
	if iterations > usualIterations && s.unusual != nil {
		ctx, cancel := context.WithTimeout(s.ctx, unusualWait)
		defer cancel()
		// It fails at once when its turn would come too late.
		if s.unusual.WaitN(ctx, iterations) != nil {
			return cmp.Or(s.ctx.Err(), errHashing)
		}
	}
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
