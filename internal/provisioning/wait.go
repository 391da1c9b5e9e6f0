package provisioning

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
)

// eventTopic is notified with the id of a run when events of it are recorded. The name
// was introduced by earlier releases, which notified only the end of a run.
const eventTopic = "stoa_run_ends"

// Wait returns the run when it has ended, or its current state after timeout. It fails
// when ctx ends before. Any replica may execute the run: it notifies the others. Wait
// checks no permission: the id comes from Connect or Retry, which have checked it.
func (s *Service) Wait(ctx context.Context, id stoa.RunID, timeout time.Duration) (Run, error) {
	woken, leave := s.waiters.Join(id.String())
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
		case <-woken:
		case <-poll.C:
		case <-deadline:
			return s.read(ctx, id)
		case <-ctx.Done():
			return Run{}, ctx.Err()
		}
	}
}
