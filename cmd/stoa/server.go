package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/apikeys"
	"github.com/stoahq/stoa/httpapi"
)

// server is a running platform.
type Server struct {
	*app
	http       *http.Server
	listener   net.Listener
	url        string
	private    *http.Server // nil unless it is configured
	privateURL string
	failed     chan error
	requests   *atomic.Int64 // in progress at the public listener

	beginDrain, beginStop func() // called by stop; idempotent
}

// start starts a server and returns when it answers requests. It listens first, so
// that a port in use is found before anything is written.
func Start(ctx context.Context, cfg *Config, log *slog.Logger) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	listener, private, err := openListeners(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a, err := newApp(ctx, cfg, log, cfg.publicURL(listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return nil, errors.Join(err, closeAll(listener, private))
	}
	s, err := a.serve(ctx, listener, private)
	if err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.close(ctx))
	}
	return s, nil
}

// serve starts the jobs and serves requests at the listeners. private is nil unless
// it is configured.
func (a *app) serve(ctx context.Context, listener, private net.Listener) (*Server, error) {
	if err := setAuditRetention(ctx, a.cfg, a.master, access.CommandLine("serve"), a.log); err != nil {
		return nil, err
	}
	if err := checkOrder(ctx, a.fleet, a.log); err != nil {
		return nil, err
	}
	if err := a.presence.Start(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(a.queue.Start(ctx), a.fleet.Start(ctx, a.queue)); err != nil {
		return nil, err
	}
	a.provisioning.Start(ctx)
	a.stopListening = a.listen(ctx)
	s := &Server{app: a, listener: listener, url: a.cfg.publicURL(listener.Addr().(*net.TCPAddr).Port), failed: make(chan error, 2), requests: new(atomic.Int64)}
	stopping := make(chan struct{})
	s.beginDrain, s.beginStop = sync.OnceFunc(func() { close(a.draining) }), sync.OnceFunc(func() { close(stopping) })
	metrics := a.newRegistry()
	s.http = newPublic(counted(httpapi.New(httpapi.Domains{
		Master: a.master, Accounts: a.accounts, APIKeys: apikeys.New(a.master, a.cfg.limits().APIKeys), Stores: a.registry, Hostnames: a.hostnames, Tenants: a.tenants,
		Credits: a.ledger, Payments: a.payments, Provisioning: a.provisioning, Cloud: a.cloud, Mail: a.mail, Limits: a.limits, Memory: a.memory,
	}, a.cfg.api(s.url, a.log, metrics, a.draining, stopping)), s.requests), a.log)
	s.listenAt(s.http, bound(listener, s.http, a.cfg.fileShares().clients, a.tenants.SpareFiles, a.log))
	if private != nil {
		s.private, s.privateURL = newPrivate(s.http.Handler, a, metrics), "http://"+private.Addr().String()
		s.listenAt(s.private, private)
	}
	a.cfg.fileShares().warn(ctx, a.log)
	if !a.mail.Enabled() {
		a.log.WarnContext(ctx, "mail waits until SMTP_URL is set")
	}
	a.log.InfoContext(ctx, "serving", "url", s.url, "address", listener.Addr().String(), "private", s.privateURL,
		"env", a.cfg.Env, "master", string(a.master.Engine), "version", stoa.Build())
	return s, nil
}

func newPublic(handler http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		// connect-database may wait for a minute and then answers. A read deadline
		// that passes meanwhile would end its request's context.
		ReadTimeout:    75 * time.Second,
		WriteTimeout:   2 * time.Minute,
		IdleTimeout:    2 * time.Minute,
		MaxHeaderBytes: 32 << 10,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) listenAt(h *http.Server, l net.Listener) {
	go func() {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// wait returns when ctx is done or a listener has failed, and the server has
// stopped.
func (s *Server) wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
		s.failed <- err // drain has nothing to wait for
	}
	return errors.Join(err, s.stop())
}
