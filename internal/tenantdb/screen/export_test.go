package screen

import (
	"context"

	"golang.org/x/time/rate"
)

const (
	HashingWait     = hashingWait
	UnusualWait     = unusualWait
	UsualIterations = usualIterations
)

// Limits returns limits with one slot and that limit of unusual passwords, which may
// be nil.
func Limits(unusual *rate.Limiter) HashingLimits {
	return HashingLimits{slots: make(chan struct{}, 1), unusual: unusual}
}

// HashingSlot is a connection's permission to hash, without the connection.
type HashingSlot struct{ s *hashingSlot }

func NewHashingSlot(ctx context.Context, limits HashingLimits) HashingSlot {
	return HashingSlot{&hashingSlot{limits: limits, ctx: ctx}}
}

func (s HashingSlot) Take(iterations int) error { return s.s.take(iterations) }
func (s HashingSlot) Release()                  { s.s.release() }
