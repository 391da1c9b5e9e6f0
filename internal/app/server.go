package app

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
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/httpapi"
)

// Server is a running platform.
type Server struct {
	*App
	HTTP       *http.Server
	Listener   net.Listener
	URL        string
	Private    *http.Server // nil unless it is configured
	PrivateURL string
	failed     chan error
	Requests   *atomic.Int64 // in progress at the public listener

	beginDrain, BeginStop func() // called by stop; idempotent
}

// Start starts a server and returns when it answers requests. It opens the listeners first,
// so that it detects a port in use before it writes anything.
func Start(ctx context.Context, cfg *config.Config, log *slog.Logger) (*Server, error) {
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	listener, private, err := openListeners(ctx, cfg)
	if err != nil {
		return nil, err
	}
	a, err := NewApp(ctx, cfg, log, cfg.PublicURL(listener.Addr().(*net.TCPAddr).Port))
	if err != nil {
		return nil, errors.Join(err, closeAll(listener, private))
	}
	s, err := a.Serve(ctx, listener, private)
	if err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.Close(ctx))
	}
	return s, nil
}

// Serve starts the jobs and serves requests at the listeners. private is nil unless
// it is configured.
func (a *App) Serve(ctx context.Context, listener, private net.Listener) (*Server, error) {
	if err := SetAuditRetention(ctx, a.Cfg, a.Master, authz.CommandLine("serve"), a.Log); err != nil {
		return nil, err
	}
	if err := CheckOrder(ctx, a.Fleet, a.Log); err != nil {
		return nil, err
	}
	if err := a.presence.Start(ctx); err != nil {
		return nil, err
	}
	if err := errors.Join(a.Queue.Start(ctx), a.Fleet.Start(ctx, a.Queue)); err != nil {
		return nil, err
	}
	a.Provisioning.Start(ctx)
	a.stopListening = a.listen(ctx)
	s := &Server{App: a, Listener: listener, URL: a.Cfg.PublicURL(listener.Addr().(*net.TCPAddr).Port), failed: make(chan error, 2), Requests: new(atomic.Int64)}
	stopping := make(chan struct{})
	s.beginDrain, s.BeginStop = sync.OnceFunc(func() { close(a.draining) }), sync.OnceFunc(func() { close(stopping) })
	metrics := a.newRegistry()
	api := a.Cfg.API(s.URL, a.Log, metrics, a.draining, stopping)
	api.Tracer = a.tracer
	s.HTTP = newPublic(counted(httpapi.New(httpapi.Domains{
		Master: a.Master, Accounts: a.Accounts, Idempotency: a.idempotency, APIKeys: apikeys.New(a.Master, a.Cfg.Limits().APIKeys), Stores: a.Registry, Hostnames: a.Hostnames, Tenants: a.Tenants,
		Credits: a.Ledger, Payments: a.Payments, Provisioning: a.Provisioning, Backups: a.Backups, Moves: a.Moves, Cloud: a.cloud, Mail: a.mail, Operations: a.operations,
		Limits: a.limits, Memory: a.Memory, Traffic: a.traffic, Webhooks: a.Webhooks, Bulk: a.bulk, Doctor: &systemDoctor{app: a},
	}, api), s.Requests), a.Log)
	s.listenAt(s.HTTP, bound(listener, s.HTTP, a.Cfg.FileShares().Clients, a.Tenants.SpareFiles, a.Log))
	if private != nil {
		s.Private, s.PrivateURL = newPrivate(s.HTTP.Handler, a, metrics), "http://"+private.Addr().String()
		s.listenAt(s.Private, private)
	}
	a.Cfg.FileShares().Warn(ctx, a.Log)
	if !a.mail.Enabled() {
		a.Log.WarnContext(ctx, "mail waits until SMTP_URL is set")
	}
	a.Log.InfoContext(ctx, "serving", "url", s.URL, "address", listener.Addr().String(), "private", s.PrivateURL,
		"env", a.Cfg.Env, "master", string(a.Master.Engine), "version", stoa.Build())
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

// Wait returns when ctx is done or a listener has failed, and the server has
// stopped.
func (s *Server) Wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-s.failed:
		s.failed <- err // drain must not wait any longer
	}
	return errors.Join(err, s.Stop())
}
