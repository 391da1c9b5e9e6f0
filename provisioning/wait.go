package provisioning

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
)

// endTopic is notified with the id of a run when it ends.
const endTopic = "stoa_run_ends"

// Wait returns the run when it has ended, or as it is after timeout; it fails when
// ctx ends before. Any replica may execute the run: it notifies the others. Wait
// checks no permission: the id comes from Connect or Retry, which did.
func (s *Service) Wait(ctx context.Context, id stoa.RunID, timeout time.Duration) (Run, error) {
	ended, leave := s.waiters.Join(id.String())
	defer leave()
	deadline, poll := time.After(timeout), time.NewTicker(s.poll)
	defer poll.Stop()
	for {
		run, err := readRun(ctx, s.db, `id = $1`, id)
		if err != nil {
			return Run{}, err
		}
		if run.Done() {
			return withSteps(ctx, s.db, run)
		}
		select {
		case <-ended:
		case <-poll.C:
		case <-deadline:
			return s.read(ctx, id)
		case <-ctx.Done():
			return Run{}, ctx.Err()
		}
	}
}
