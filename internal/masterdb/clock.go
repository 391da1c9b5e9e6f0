package masterdb

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

// clock returns the time of the master database's server, which is the only clock that the
// platform uses. Processes on machines whose clocks differ therefore write and compare the
// same times. On SQLite the clock is this machine's.
type clock struct {
	ahead      atomic.Int64 // how far this machine's clock was ahead at the last measurement, in ns
	correction atomic.Int64 // value added to this machine's clock, in ns
}

const (
	// toleratedSkew is the largest skew that is not corrected. Machines with NTP differ by
	// less. A measurement has an error of some milliseconds, and times must not jump by
	// that error.
	toleratedSkew = 250 * time.Millisecond
	// WarnSkew is the skew from which a warning is logged.
	WarnSkew = time.Second
	// skewInterval is the time between two measurements.
	skewInterval = time.Minute
	// skewTimeout is the time limit of one measurement.
	skewTimeout = 5 * time.Second
	// skewSamples is the number of samples of a measurement; the fastest one counts.
	skewSamples = 3
)

// Now returns the time by the master's clock, in UTC and truncated to microseconds, which
// both engines can store. Compare times of the master database with this time only.
func (db *DB) Now() time.Time {
	return time.Now().Add(db.Correction()).UTC().Truncate(time.Microsecond)
}

// Correction returns the difference between the master's clock and this machine's.
func (db *DB) Correction() time.Duration { return time.Duration(db.clock.correction.Load()) }

// Skew returns how far this machine's clock was ahead of the master's at the last
// measurement. A negative value means that it was behind.
func (db *DB) Skew() time.Duration { return time.Duration(db.clock.ahead.Load()) }

// MeasureSkew measures the skew and corrects Now accordingly. It assumes that the request
// took half of the round trip.
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

// WatchSkew measures the skew regularly until ctx is done. It logs when the skew reaches
// WarnSkew and when it falls below it again.
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
			continue // an outage is logged elsewhere
		}
		if off := ahead.Abs() >= WarnSkew; off != warned {
			warned = off
			LogSkew(ctx, log, ahead)
		}
	}
}

// LogSkew logs how far this machine's clock is ahead of the master's. From WarnSkew on it
// logs a warning.
func LogSkew(ctx context.Context, log *slog.Logger, ahead time.Duration) {
	level, text := slog.LevelInfo, "clock agrees with the master database's"
	if ahead.Abs() >= WarnSkew {
		level, text = slog.LevelWarn, "clock differs from the master database's, whose time is used: synchronise both machines by NTP"
	}
	log.Log(ctx, level, text, "ahead", ahead.Round(time.Millisecond).String())
}
