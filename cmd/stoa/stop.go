package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// Stopping is what can be set of how a server stops.
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

// drainDelay is the setting or, unless told, what it is in this environment.
func (c *Config) drainDelay() time.Duration {
	switch {
	case c.DrainDelay != nil:
		return *c.DrainDelay
	case c.development():
		return 0
	default:
		return min(defaultDrainDelay, c.StopTimeout/5)
	}
}

// finishTime is how long requests, jobs and provisioning runs may go on after
// the drain delay. What is left of the stop timeout is for cutting off, handing
// over and closing.
func (c *Config) finishTime() time.Duration { return (c.StopTimeout - c.drainDelay()) * 6 / 10 }

// handOverTime is how long after the drain delay everything must have ended or
// been handed over. The databases are closed in the rest.
func (c *Config) handOverTime() time.Duration { return (c.StopTimeout - c.drainDelay()) * 8 / 10 }

// closeReserve is how long before the end of the stop timeout the last wait
// ends: the process then has to log and exit.
func (c *Config) closeReserve() time.Duration { return c.StopTimeout / 50 }

// stop ends the server within Config.StopTimeout, whatever hangs, in this order:
// /readyz says so, and requests are taken as before (drain delay); then nothing
// new begins, and what is under way may finish; then it is cut off, cancelled or
// handed over to other processes; then the databases are closed. Its error says
// what was neither finished nor handed over.
func (s *server) stop() error {
	begun := time.Now()
	s.drain()
	finish, cancel := context.WithDeadline(context.Background(), begun.Add(s.cfg.drainDelay()+s.cfg.handOverTime()))
	defer cancel()
	err := s.finish(finish)
	if s.private != nil { // so late because a stop is worth watching
		err = errors.Join(err, s.private.Close())
	}
	end, cancelEnd := context.WithDeadline(context.Background(), begun.Add(s.cfg.StopTimeout-s.cfg.closeReserve()))
	defer cancelEnd()
	err = errors.Join(err, s.close(end))
	s.log.Info("stopped", "took", time.Since(begun).Round(time.Millisecond), "complete", err == nil)
	return err
}

// drain waits until load balancers have noticed that this server stops.
func (s *server) drain() {
	s.beginDrain()
	delay := s.cfg.drainDelay()
	if delay == 0 {
		return
	}
	s.log.Info("stopping: /readyz answers 503, requests are taken as before", "drain_delay", delay, "requests", s.requests.Load())
	select {
	case <-time.After(delay):
	case err := <-s.failed: // nobody can reach it
		s.log.Info("stopping: nothing to wait for", "err", err)
	}
}

// finish returns when all requests, jobs and runs have ended or been handed
// over, or when ctx is done.
func (s *server) finish(ctx context.Context) error {
	s.log.Info("stopping: what is under way may finish", "requests", s.requests.Load(), "jobs", s.queue.Running(),
		"provisioning_runs", s.provisioning.UnderWay(), "within", s.cfg.finishTime())
	// No job begins here from now on: the queue would fetch the runs that this
	// process is about to hand over.
	s.queue.StopFetching()
	s.beginStop()
	failed := make(chan error, 3)
	go func() { failed <- s.stopHTTP(ctx) }()
	go func() { failed <- incomplete("go on when their claims have lapsed", s.provisioning.Stop(ctx)) }()
	go func() {
		failed <- incomplete("run again when the queue has found that they are lost", s.queue.Stop(ctx))
	}()
	return errors.Join(<-failed, <-failed, <-failed)
}

// stopHTTP lets requests finish, and then cuts off those that have not.
func (s *server) stopHTTP(ctx context.Context) error {
	finish, cancel := context.WithTimeout(ctx, s.cfg.finishTime())
	defer cancel()
	if s.http.Shutdown(finish) == nil {
		return nil
	}
	n := s.requests.Load()
	err := s.http.Close()
	if n == 0 {
		return err // connections without a request
	}
	return errors.Join(fmt.Errorf("requests that did not finish and were cut off: %d", n), err)
}

// incomplete adds to an error what becomes of the work that it names.
func incomplete(fate string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; they %s", err, fate)
}

// within returns when fn has returned, or with an error when ctx is done. Then fn
// goes on by itself: the process is about to end.
func within(ctx context.Context, what string, fn func()) error {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		fn()
	}()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s did not end: %w", what, ctx.Err())
	}
}

// counted counts the requests that are under way at a handler.
func counted(next http.Handler, n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		defer n.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// close closes every database, as long as ctx allows.
func (a *app) close(ctx context.Context) error {
	// Stores' servers that do not answer must leave time for the master.
	first, cancel := shareOf(ctx)
	defer cancel()
	failed := make(chan error, 3)
	go func() {
		err := within(first, "listening to other replicas", a.stopListening)
		a.unregister(first)
		failed <- err
	}()
	go func() {
		if a.cloud == nil { // it was not built yet
			failed <- nil
			return
		}
		failed <- within(first, "renewals of Supabase tokens", a.cloud.Wait)
	}()
	go func() {
		err := a.tenants.Close(first)
		if err != nil {
			err = fmt.Errorf("stores' databases are still in use: %w", err)
		}
		failed <- err
	}()
	err := errors.Join(<-failed, <-failed, <-failed)
	return errors.Join(err, within(ctx, "closing the master database", a.master.Close), a.limits.Close())
}

// unregister ends the presence of this process, so that what it still owns goes
// on elsewhere at once. Else the others notice the end of its session.
func (a *app) unregister(ctx context.Context) {
	var stopErr error
	err := within(ctx, "unregistering this process", func() { stopErr = a.presence.Stop(ctx) })
	if err == nil {
		err = stopErr
	}
	if err != nil {
		a.log.WarnContext(ctx, "this process could not be unregistered: others notice its end", "err", err)
	}
}

// shareOf returns a context with half of the time that ctx has left.
func shareOf(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(deadline)/2)
}
