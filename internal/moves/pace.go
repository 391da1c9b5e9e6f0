package moves

import (
	"context"
	"time"

	"github.com/stoahq/stoa"
)

// pace ends a round of catching up in which the journal does not become shorter, although its
// changes are written to the other database: a store may be written faster than its changes
// can be carried over, and its move would occupy a slot until the time of the job has passed.
type pace struct {
	every  time.Duration // between two looks at the journal; default paceEvery
	within time.Duration // in which the journal has to lose a tenth; default paceWithin

	looked  time.Time
	since   time.Time // when the journal was the shortest
	least   int       // entries at that time
	applied int64     // entries written since then
}

const (
	paceEvery  = 10 * time.Second
	paceWithin = 10 * time.Minute
)

// check counts applied entries, and fails when the journal has not lost a tenth for too long.
func (c *pace) check(ctx context.Context, from side, applied int) error {
	if c.every == 0 {
		c.every, c.within = paceEvery, paceWithin
	}
	c.applied += int64(applied)
	now := time.Now()
	if c.since.IsZero() {
		c.since, c.looked, c.least, c.applied = now, now.Add(-c.every), -1, 0
	}
	if now.Sub(c.looked) < c.every {
		return nil
	}
	c.looked = now
	left, err := from.entries(ctx, maxCounted)
	if err != nil {
		return err
	}
	if c.least < 0 || left < c.least-c.least/10 {
		c.since, c.least, c.applied = now, left, 0
		return nil
	}
	took := now.Sub(c.since)
	if took < c.within {
		return nil
	}
	carried := float64(c.applied) / took.Seconds()
	written := carried + float64(left-c.least)/took.Seconds()
	return stoa.Errorf(stoa.MoveRefused, "The store is written as fast as its changes can be carried over to the other database, or faster: about %.0f changes a second, of which %.0f can be carried over. "+
		"Nothing is lost, and the store stays in the database that it has. Start the move again at a quieter time.", max(written, carried), carried)
}

// maxCounted limits how many entries of a journal are counted. A longer one does not become
// visibly shorter, so that its move fails as well.
const maxCounted = 5_000_000
