package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/apikeys"
	"github.com/stoahq/stoa/httpapi"
)

type serveCmd struct{}

// Help is shown by 'stoa serve --help'.
func (serveCmd) Help() string {
	return "Without any option it runs a whole platform on embedded SQLite: data and keys in ./stoa-data, " +
		"listening on http://localhost:3000. Stop it with Ctrl-C: requests under way finish first; a second Ctrl-C ends it at once."
}

func (serveCmd) Run(e *env) error {
	buffer := newBufferedLog(e.stderr)
	defer buffer.Close()
	log := slog.New(urgent{e.cfg.logHandler(buffer), buffer})
	s, err := start(e.ctx, e.cfg, log)
	if err != nil {
		return err
	}
	s.welcome(e.stdout)
	select {
	case <-e.ctx.Done():
	case err = <-s.failed:
		s.failed <- err // which leaves nothing to wait for: see drain
	}
	return errors.Join(err, s.stop())
}

// server is a running platform. Tests start the same one on port 0.
type server struct {
	*app
	http       *http.Server
	listener   net.Listener
	url        string
	private    *http.Server // nil unless the operator wants it
	privateURL string
	failed     chan error
	requests   *atomic.Int64 // under way at the public listener

	beginDrain, beginStop func() // see stop; each has an effect once
}

// start listens first, so that a taken port is found before anything is
// written, and returns when requests are answered.
func start(ctx context.Context, cfg *Config, log *slog.Logger) (*server, error) {
	if err := cfg.check(); err != nil {
		return nil, fmt.Errorf("configuration:\n%w", err)
	}
	listener, private, err := cfg.listen(ctx)
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

// serve starts the jobs and answers requests at the listeners; private is nil
// unless the operator wants it.
func (a *app) serve(ctx context.Context, listener, private net.Listener) (*server, error) {
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
	s := &server{app: a, listener: listener, url: a.cfg.publicURL(listener.Addr().(*net.TCPAddr).Port), failed: make(chan error, 2), requests: new(atomic.Int64)}
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

// api is what the configuration, which has been checked, says to the API.
func (c *Config) api(url string, log *slog.Logger, metrics prometheus.Registerer, draining, stopping <-chan struct{}) httpapi.Config {
	proxies, _ := c.proxies()
	return httpapi.Config{
		BaseURL: url, BaseDomain: c.BaseDomain, Development: c.development(), Sandbox: c.sandbox(), Log: log, Metrics: metrics,
		Draining: draining, Stopping: stopping, Rates: c.rates(), Proxies: proxies, Hosts: c.PlatformHosts, CORS: c.cors(),
	}
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

func (s *server) listenAt(h *http.Server, l net.Listener) {
	go func() {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// welcome says where to go next.
func (s *server) welcome(w io.Writer) {
	if !s.cfg.development() {
		return // production reads the log
	}
	printf(w, `
Stoa %s is ready.

  Start here   %s
  API docs     %s/api/docs
  Mailbox      %s/dev/mailbox
  Data         %s

Open your first store:

  curl -X POST %s/api/auth/register -H "Content-Type: application/json" \
    -d '{"email":"owner@example.com","password":"SecurePassword123!","firstName":"John","lastName":"Doe","storeName":"My First Store"}'

Or let 'stoa demo' make three with products and credits. Ctrl-C stops the server.

`, stoa.Version, s.url, s.url, s.url, s.cfg.describeData(), s.url)
}

func (c *Config) describeData() string {
	if c.MasterDBURL.IsZero() {
		return c.DataDir + " (embedded SQLite)"
	}
	return "as MASTER_DB_URL says; embedded stores in " + c.DataDir
}
