package presence

import "time"

// observer decides from the results of the looks which processes have ended. A look is one
// read of the process table. observer is not safe for concurrent use.
type observer struct {
	self   string
	timing timing
	last   time.Time     // time of the last look
	pause  time.Duration // pause before the next look
	trust  time.Time     // until this time no process counts as ended
	seen   map[string]sight
}

// sight is what the observer knows about one process.
type sight struct {
	beats    int64
	unlocked time.Duration // how long it has been without its lock and without a heartbeat
	still    time.Duration // how long it has been without a heartbeat
}

func newObserver(self string, t timing) *observer {
	return &observer{self: self, timing: t, pause: t.look, seen: map[string]sight{}}
}

// doubt records that a look failed. Other processes may have lost the master and their
// locks as well, so they get time to acquire them again.
func (o *observer) doubt(now time.Time) {
	o.last, o.trust, o.pause = now, now.Add(o.timing.careful), o.timing.lost
	clear(o.seen)
}

// observe records the result of a look. It returns the processes that have ended, and
// whether this process itself is registered.
func (o *observer) observe(now time.Time, processes []observed) (gone []observed, self bool) {
	elapsed := now.Sub(o.last)
	switch {
	case o.last.IsZero():
		elapsed = 0
	case elapsed > o.timing.answer+o.pause+o.timing.look: // this process was suspended, and possibly its machine with other processes
		o.doubt(now)
	}
	o.last = now
	before := o.seen
	o.seen = make(map[string]sight, len(processes))
	held := false
	for _, p := range processes {
		if p.Name == o.self {
			self, held = true, p.Held
			continue
		}
		s, known := before[p.Name]
		if known && s.beats == p.Beats {
			s.still += elapsed
			s.unlocked += elapsed
		} else {
			s = sight{beats: p.Beats}
		}
		if p.Held {
			s.unlocked = 0
		}
		o.seen[p.Name] = s
		if !p.Held && s.unlocked >= o.timing.grace || s.still >= o.timing.frozen {
			if now.Before(o.trust) {
				continue
			}
			gone = append(gone, p)
		}
	}
	switch {
	case !held:
		o.pause = o.timing.lost
	case len(processes) == 1:
		o.pause = o.timing.alone
	default:
		o.pause = o.timing.look
	}
	return gone, self
}
