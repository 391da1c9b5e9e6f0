package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"
)

// Stop stops the server within Config.StopTimeout, even if requests or databases hang:
//
//  1. The server reports that it is not ready and still accepts requests, for the drain
//     delay.
//  2. No new work begins; requests, jobs and runs in progress may finish.
//  3. The remaining work is cancelled or handed over to other processes.
//  4. The databases are closed.
//
// The error names the work that was neither finished nor handed over.
func (s *Server) Stop() error {
	begun := time.Now()
	s.drain()
	finish, cancel := context.WithDeadline(context.Background(), begun.Add(s.Cfg.EffectiveDrainDelay()+s.Cfg.HandOverTime()))
	defer cancel()
	err := s.finish(finish)
	if s.Private != nil { // last, so that the stop can be observed
		err = errors.Join(err, s.Private.Close())
	}
	end, cancelEnd := context.WithDeadline(context.Background(), begun.Add(s.Cfg.StopTimeout-s.Cfg.CloseReserve()))
	defer cancelEnd()
	err = errors.Join(err, s.Close(end))
	s.Log.Info("stopped", "took", time.Since(begun).Round(time.Millisecond), "complete", err == nil)
	return err
}

// drain waits until load balancers have detected that this server stops.
func (s *Server) drain() {
	s.beginDrain()
	delay := s.Cfg.EffectiveDrainDelay()
	if delay == 0 {
		return
	}
	s.Log.Info("stopping: /readyz answers 503, requests are accepted as before", "drain_delay", delay, "requests", s.Requests.Load())
	select {
	case <-time.After(delay):
	case err := <-s.failed: // no request can arrive
		s.Log.Info("stopping: nothing to wait for", "err", err)
	}
}

// finish returns when all requests, jobs and runs have ended or been handed
// over, or ctx is done.
func (s *Server) finish(ctx context.Context) error {
	s.Log.Info("stopping: work in progress may finish", "requests", s.Requests.Load(), "jobs", s.Queue.Running(),
		"provisioning_runs", s.Provisioning.UnderWay(), "within", s.Cfg.FinishTime())
	// The queue stops first: otherwise it would fetch the runs that this process hands
	// over.
	s.Queue.StopFetching()
	s.BeginStop()
	failed := make(chan error, 3)
	go func() { failed <- s.stopHTTP(ctx) }()
	go func() { failed <- incomplete("go on when their claims have lapsed", s.Provisioning.Stop(ctx)) }()
	go func() {
		failed <- incomplete("run again when the queue has found that they are lost", s.Queue.Stop(ctx))
	}()
	return errors.Join(<-failed, <-failed, <-failed)
}

// stopHTTP waits for requests to finish, then closes their connections.
func (s *Server) stopHTTP(ctx context.Context) error {
	finish, cancel := context.WithTimeout(ctx, s.Cfg.FinishTime())
	defer cancel()
	if s.HTTP.Shutdown(finish) == nil {
		return nil
	}
	n := s.Requests.Load()
	err := s.HTTP.Close()
	if n == 0 {
		return err // connections without a request in progress
	}
	return errors.Join(fmt.Errorf("requests that did not finish and were cut off: %d", n), err)
}

// incomplete adds to err what happens to the work that it names.
func incomplete(fate string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w; they %s", err, fate)
}

// within calls fn and returns when it has returned, or with an error when ctx is
// done. fn then continues in its goroutine: the process is about to exit.
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

// counted counts a handler's requests in progress.
func counted(next http.Handler, n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		defer n.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// Close closes every database, within the time of ctx.
func (a *App) Close(ctx context.Context) error {
	// Tenant database servers that do not answer must leave time for closing the master.
	first, cancel := shareOf(ctx)
	defer cancel()
	failed := make(chan error, 3)
	go func() {
		err := within(first, "listening to other replicas", a.stopListening)
		a.unregister(first)
		failed <- err
	}()
	go func() {
		if a.cloud == nil { // newApp failed before creating it
			failed <- nil
			return
		}
		failed <- within(first, "renewals of Supabase tokens", a.cloud.Wait)
	}()
	go func() {
		err := a.Tenants.Close(first)
		if err != nil {
			err = fmt.Errorf("stores' databases are still in use: %w", err)
		}
		failed <- err
	}()
	err := errors.Join(<-failed, <-failed, <-failed)
	a.closeTracer(first)
	return errors.Join(err, within(ctx, "closing the master database", a.Master.Close), a.limits.Close())
}

// closeTracer sends the last spans. That they are lost with a collector that does not answer
// is no fault of the stop.
func (a *App) closeTracer(ctx context.Context) {
	if err := within(ctx, "sending the last spans", func() { _ = a.tracer.Close(ctx) }); err != nil {
		a.Log.WarnContext(ctx, "last spans may be lost", "err", err)
	}
}

// unregister ends the presence of this process, so that other processes continue its work
// at once. If unregister fails, they detect the end of its session.
func (a *App) unregister(ctx context.Context) {
	var stopErr error
	err := within(ctx, "unregistering this process", func() { stopErr = a.presence.Stop(ctx) })
	if err == nil {
		err = stopErr
	}
	if err != nil {
		a.Log.WarnContext(ctx, "process could not be unregistered: others detect its end", "err", err)
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
