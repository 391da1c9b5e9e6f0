package config

import (
	"time"
)

// Stopping holds the settings of a server's stop.
type Stopping struct {
	StopTimeout time.Duration  `name:"stop-timeout" env:"STOA_STOP_TIMEOUT" default:"25s" help:"How long a stop may take in all, whatever hangs. Keep it below the time after which your process manager kills." placeholder:"TIME" group:"config"`
	DrainDelay  *time.Duration `name:"drain-delay" env:"STOA_DRAIN_DELAY" help:"How long a server that is told to stop goes on taking requests while /readyz answers 503, so that a load balancer sends none any more; part of the stop timeout. Unless told, none in development, else 5s or, if that is less, a fifth of the stop timeout." placeholder:"TIME" group:"config"`
}

const (
	minStopTimeout    = time.Second
	maxStopTimeout    = time.Hour
	defaultDrainDelay = 5 * time.Second
)

func (s *Stopping) check(fault func(name, format string, args ...any)) {
	if s.StopTimeout < minStopTimeout || s.StopTimeout > maxStopTimeout {
		fault("STOA_STOP_TIMEOUT", "must be between %v and %v", minStopTimeout, maxStopTimeout)
	}
	if s.DrainDelay != nil && (*s.DrainDelay < 0 || *s.DrainDelay >= s.StopTimeout) {
		fault("STOA_DRAIN_DELAY", "must be between 0s and less than STOA_STOP_TIMEOUT, which is %v", s.StopTimeout)
	}
}

// EffectiveDrainDelay returns the setting, or the default of this environment.
func (c *Config) EffectiveDrainDelay() time.Duration {
	switch {
	case c.DrainDelay != nil:
		return *c.DrainDelay
	case c.Development():
		return 0
	default:
		return min(defaultDrainDelay, c.StopTimeout/5)
	}
}

// FinishTime returns how long requests, jobs and provisioning runs may continue
// after the drain delay. The rest of the stop timeout is for cancelling, handing
// over and closing.
func (c *Config) FinishTime() time.Duration { return (c.StopTimeout - c.EffectiveDrainDelay()) * 6 / 10 }

// HandOverTime returns the time after the drain delay within which everything must
// have ended or been handed over. The databases are closed in the rest.
func (c *Config) HandOverTime() time.Duration { return (c.StopTimeout - c.EffectiveDrainDelay()) * 8 / 10 }

// CloseReserve returns how long before the end of the stop timeout the last wait
// ends: the process then logs and exits.
func (c *Config) CloseReserve() time.Duration { return c.StopTimeout / 50 }
