package masterdb

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// clock tells the time of the master database's server: the one clock of the
// platform. Processes on machines whose clocks disagree write and compare the
// same times. A SQLite master is on this machine, and so is its clock.
type clock struct {
	ahead      atomic.Int64 // of this machine's clock, as last measured, in ns
	correction atomic.Int64 // what is added to this machine's clock, in ns
}

const (
	// toleratedSkew is not corrected. Machines that keep their time by NTP differ by
	// less, and a measurement over a busy network errs by some milliseconds: times
	// must not jump by that.
	toleratedSkew = 250 * time.Millisecond
	// WarnSkew is how far this machine's clock may be from the master's before the
	// operator is told.
	WarnSkew = time.Second
	// skewInterval is the time between two measurements.
	skewInterval = time.Minute
	// skewTimeout bounds one.
	skewTimeout = 5 * time.Second
	// skewSamples are taken each time; the one that was answered first counts.
	skewSamples = 3
)

// Now returns the time by the master's clock, in UTC and whole microseconds,
// which both engines keep. Everything that is compared with a time of the master
// database is compared with this.
func (db *DB) Now() time.Time {
	return time.Now().Add(db.Correction()).UTC().Truncate(time.Microsecond)
}

// Correction returns what to add to this machine's clock to have the master's.
func (db *DB) Correction() time.Duration { return time.Duration(db.clock.correction.Load()) }

// Skew returns how far this machine's clock was ahead of the master's when it
// was measured last; negative is behind.
func (db *DB) Skew() time.Duration { return time.Duration(db.clock.ahead.Load()) }

// MeasureSkew compares this machine's clock with the master's, and corrects Now
// by it. Half of the time that the answer took counts as the way there.
func (db *DB) MeasureSkew(ctx context.Context) (time.Duration, error) {
	if db.pool == nil {
		return 0, nil
	}
	ctx, cancel := context.WithTimeout(ctx, skewTimeout)
	defer cancel()
	var ahead, fastest time.Duration
	for i := range skewSamples {
		var server struct{ Now time.Time }
		asked := time.Now()
		if err := db.Get(ctx, &server, `SELECT clock_timestamp() AS now`); err != nil {
			return 0, err
		}
		if took := time.Since(asked); i == 0 || took < fastest {
			fastest, ahead = took, asked.Add(took/2).Sub(server.Now)
		}
	}
	db.clock.set(ahead)
	return ahead, nil
}

func (c *clock) set(ahead time.Duration) {
	c.ahead.Store(int64(ahead))
	if change := -ahead - time.Duration(c.correction.Load()); change.Abs() < toleratedSkew {
		return
	}
	if ahead.Abs() < toleratedSkew {
		ahead = 0
	}
	c.correction.Store(int64(-ahead))
}

// WatchSkew measures the skew until ctx is done, and logs a warning when it
// comes to be WarnSkew or more.
func (db *DB) WatchSkew(ctx context.Context, log *slog.Logger) {
	if db.pool == nil {
		return
	}
	tick := time.NewTicker(skewInterval)
	defer tick.Stop()
	for warned := db.Skew().Abs() >= WarnSkew; ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		ahead, err := db.MeasureSkew(ctx)
		if err != nil {
			continue // the next one follows soon, and others say that the master is away
		}
		if off := ahead.Abs() >= WarnSkew; off != warned {
			warned = off
			LogSkew(ctx, log, ahead)
		}
	}
}

// LogSkew says how far this machine's clock is ahead of the master's, as a
// warning from WarnSkew on.
func LogSkew(ctx context.Context, log *slog.Logger, ahead time.Duration) {
	level, text := slog.LevelInfo, "clock agrees with the master database's"
	if ahead.Abs() >= WarnSkew {
		level, text = slog.LevelWarn, "clock differs from the master database's, whose time is used: synchronise both machines by NTP"
	}
	log.Log(ctx, level, text, "ahead", ahead.Round(time.Millisecond).String())
}
