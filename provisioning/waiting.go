package provisioning

import (
	"context"
	"sync"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// endTopic is notified with a run's id when it ends.
const endTopic = "stoa_run_ends"

// lookEvery is how often Wait looks for itself, should it hear nothing: on
// SQLite other processes do not, and a listener can be cut off.
const lookEvery = 250 * time.Millisecond

// Wait returns the run when it has ended, or as it stands when patience runs
// out; it fails when ctx ends before. Any replica may be the one that works:
// it tells the others. Wait does not ask who is waiting: the id comes from
// Connect or Retry, which did.
func (s *Service) Wait(ctx context.Context, id stoa.RunID, patience time.Duration) (Run, error) {
	ended, leave := s.waiting.join(id)
	defer leave()
	deadline, look := time.After(patience), time.NewTicker(s.lookEvery)
	defer look.Stop()
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
		case <-look.C:
		case <-deadline:
			return s.read(ctx, id)
		case <-ctx.Done():
			return Run{}, ctx.Err()
		}
	}
}

// waiting are the callers of Wait, each with a channel to wake it by.
type waiting struct {
	mu    sync.Mutex
	calls map[chan struct{}]stoa.RunID
}

func (w *waiting) join(id stoa.RunID) (ended <-chan struct{}, leave func()) {
	call := make(chan struct{}, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[call] = id
	return call, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.calls, call)
	}
}

// wake has those look who wait for the run; all, should it be the zero one.
func (w *waiting) wake(id stoa.RunID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for call, run := range w.calls {
		if run != id && !id.IsZero() {
			continue
		}
		select {
		case call <- struct{}{}:
		default: // it is going to look already
		}
	}
}

// subscribe hears of runs that end, here or at another replica.
func (w *waiting) subscribe(db *masterdb.DB) {
	db.Subscribe(endTopic, func(payload string) {
		if id, err := stoa.ParseID[stoa.RunID](payload); err == nil {
			w.wake(id)
		}
	}, func() { w.wake(stoa.RunID{}) })
}
