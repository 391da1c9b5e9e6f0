package provisioning

import (
	"github.com/stoahq/stoa"
)

// JoinEvents returns a channel that receives when an event of the run may have been
// recorded, by this process or another one. Call leave when done. Call JoinEvents before
// Events, so that no event is missed. A notification can be lost: call Events from time
// to time without one.
func (s *Service) JoinEvents(run stoa.RunID) (woken <-chan struct{}, leave func()) {
	return s.waiters.Join(run.String())
}
