package presence

import (
	"slices"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// glance is one look in a test: its time, and the state of the other process at that time.
// A negative number of heartbeats means that the look failed.
type glance struct {
	at    time.Duration
	beats int64
	held  bool
}

// TestObserver checks when the observer declares a process ended, depending on its lock,
// its heartbeats and interruptions of the observer itself.
func TestObserver(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	every := func(from, to time.Duration, beats func(at time.Duration) int64, held bool) (all []glance) {
		for at := from; at <= to; at += 500 * ms {
			all = append(all, glance{at, beats(at), held})
		}
		return all
	}
	still := func(time.Duration) int64 { return 7 }
	beating := func(at time.Duration) int64 { return int64(at / (2 * time.Second)) }
	failed := func(time.Duration) int64 { return -1 }
	for name, c := range map[string]struct {
		looks []glance
		ended time.Duration // 0: not declared ended
	}{
		"holds its lock and beats":          {every(0, time.Minute, beating, true), 0},
		"lost its lock, beats":              {every(0, time.Minute, func(at time.Duration) int64 { return int64(at / time.Second) }, false), 0},
		"ended before the observer started": {every(0, time.Minute, still, false), 2 * time.Second},
		"killed": {
			slices.Concat(every(0, 10*time.Second, beating, true), every(10500*ms, time.Minute, still, false)), 12500 * ms,
		},
		"without its lock for a second": {
			slices.Concat(every(0, 10*time.Second, still, true), every(10500*ms, 11500*ms, still, false), every(12*time.Second, 20*time.Second, beating, true)), 0,
		},
		"frozen": {every(0, time.Minute, still, true), 15 * time.Second},
		"lost with the master": { // both reconnect, the other process 5 s later
			slices.Concat(every(0, 10*time.Second, beating, true), every(10500*ms, 40*time.Second, failed, false),
				every(40500*ms, 45*time.Second, still, false), every(45500*ms, time.Minute, beating, true)), 0,
		},
		"ended with the master": {
			slices.Concat(every(0, 10*time.Second, beating, true), every(10500*ms, 40*time.Second, failed, false), every(40500*ms, time.Minute, still, false)), 50 * time.Second,
		},
		"the observer was suspended": { // the sessions of both were suspended too
			slices.Concat(every(0, 10*time.Second, still, true), every(100*time.Second, 104*time.Second, still, false), every(104500*ms, 120*time.Second, beating, true)), 0,
		},
		"the observer's look took long": {
			slices.Concat(every(0, 10*time.Second, still, true), every(13*time.Second, 13*time.Second, still, false), every(13500*ms, 30*time.Second, beating, true)), 13 * time.Second,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := newObserver("self", timingOn(masterdb.Postgres))
			start := time.Now()
			var ended time.Duration
			for _, g := range c.looks {
				if g.beats < 0 {
					o.doubt(start.Add(g.at))
					continue
				}
				gone, self := o.observe(start.Add(g.at), []observed{{Name: "self"}, {Name: "other", Beats: g.beats, Held: g.held}})
				if !self {
					t.Fatal("the observer does not see itself")
				}
				if len(gone) > 0 {
					ended = g.at
					break
				}
			}
			if ended != c.ended {
				t.Errorf("taken for ended at %v, want %v", ended, c.ended)
			}
		})
	}
}

// TestObserverOnSQLite checks that on SQLite the lock alone decides, at the first look.
func TestObserverOnSQLite(t *testing.T) {
	t.Parallel()
	o := newObserver("self", timingOn(masterdb.SQLite))
	start := time.Now()
	for i := range 1000 { // a long suspension: the process still holds its lock
		gone, self := o.observe(start.Add(time.Duration(i)*time.Hour), []observed{{Name: "other", Held: true}})
		if len(gone) > 0 || self {
			t.Fatalf("gone %v, self %t", gone, self)
		}
	}
	if gone, _ := newObserver("self", timingOn(masterdb.SQLite)).observe(start, []observed{{Name: "other"}}); len(gone) != 1 {
		t.Error("a process without its lock is taken for present")
	}
}
