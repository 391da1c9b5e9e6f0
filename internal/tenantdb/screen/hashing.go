package screen

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// ErrIterations means that a server asks for more work for one password than
// this platform accepts.
var ErrIterations = errors.New("screen: the server asks for too many iterations of SCRAM")

// ErrHashing means that a password could not be hashed in time because too many
// others were being hashed.
var ErrHashing = errors.New("screen: too many passwords are hashed at the same time")

const (
	// hashingWait limits how long a connection waits until its password may be
	// hashed. Hashing one password takes at most about 20 ms.
	hashingWait = 5 * time.Second
	// usualIterations is the number of iterations of SCRAM that a password may
	// take at any time. PostgreSQL's own is 4,096, and RFC 7677 recommends at
	// least 15,000.
	usualIterations = 16_384
	// unusualIterations is the number of iterations that each processor computes in a
	// second for passwords that take more than that: about 1 % of its time.
	unusualIterations = 50_000
	// unusualWait limits how long such a password waits for its turn.
	unusualWait = 2 * time.Second
)

// HashingLimits limit what the passwords of all connections together cost. A server
// chooses how much work a password takes, within limits, and the work cannot be
// interrupted.
type HashingLimits struct {
	slots   chan struct{} // has one element for each password that is being hashed
	unusual *rate.Limiter // of iterations, for passwords that take many; nil: no limit
}

// NewHashingLimits returns limits for a number of processors. At most half of them
// hash at the same time. Passwords that take more than usualIterations share a small
// part of their time, so that servers which ask for the most that is accepted
// slow the stores less.
func NewHashingLimits(processors int) HashingLimits {
	return HashingLimits{
		slots:   make(chan struct{}, max(1, processors/2)),
		unusual: rate.NewLimiter(rate.Limit(unusualIterations*processors), MaxIterations),
	}
}

// Trusted returns the same limits without that of time: the passwords may
// take up to MaxIterations at any time.
func (l HashingLimits) Trusted() HashingLimits { return HashingLimits{slots: l.slots} }

// Acquire waits until a password may be hashed with that many iterations, at most
// MaxIterations. It fails with ErrHashing after unusualWait and hashingWait, and with
// ctx's error when ctx is done.
func (l HashingLimits) Acquire(ctx context.Context, iterations int) error {
	if iterations > usualIterations && l.unusual != nil {
		turn, cancel := context.WithTimeout(ctx, unusualWait)
		defer cancel()
		// It fails at once when its turn would come too late.
		if l.unusual.WaitN(turn, iterations) != nil {
			return cmp.Or(ctx.Err(), ErrHashing)
		}
	}
	late := time.NewTimer(hashingWait)
	defer late.Stop()
	select {
	case l.slots <- struct{}{}:
		return nil
	case <-late.C:
		return ErrHashing
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Release ends what Acquire began.
func (l HashingLimits) Release() { <-l.slots }

// Slots returns how many passwords are being hashed, and how many there may be.
func (l HashingLimits) Slots() (used, most int) { return len(l.slots), cap(l.slots) }

// hashingSlot is one connection's permission to hash a password. It is safe for
// concurrent use.
type hashingSlot struct {
	limits HashingLimits
	ctx    context.Context //nolint:containedctx // of the connection's making, which the driver's reads do not carry
	mu     sync.Mutex
	held   bool
}

// take waits for the slot: see HashingLimits.Acquire.
func (s *hashingSlot) take(iterations int) error {
	if err := s.limits.Acquire(s.ctx, iterations); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
	return nil
}

// release returns the slot if it is held.
func (s *hashingSlot) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held {
		s.held = false
		s.limits.Release()
	}
}
