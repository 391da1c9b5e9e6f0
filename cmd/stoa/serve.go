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
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/httpapi"
)

type serveCmd struct{}

// Help is shown by 'stoa serve --help'.
func (serveCmd) Help() string {
	return "Without any option it runs a whole platform on embedded SQLite: data and keys in ./stoa-data, " +
		"listening on http://localhost:3000. Stop it with Ctrl-C: requests under way finish first."
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
		log.Info("stopping: requests and jobs under way finish first")
	case err = <-s.failed:
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
	deafen     func() // stops hearing other replicas
}

// drainTimeout bounds the whole of a clean stop.
const drainTimeout = 30 * time.Second

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
	url := cfg.publicURL(listener.Addr().(*net.TCPAddr).Port)
	a, err := newApp(ctx, cfg, log, url)
	if err != nil {
		return nil, errors.Join(err, closeAll(listener, private))
	}
	if err := setAuditRetention(ctx, cfg, a.master, access.CommandLine("serve"), log); err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.close(ctx))
	}
	if err := checkOrder(ctx, a.fleet, log); err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.close(ctx))
	}
	if err := a.presence.Start(ctx); err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.close(ctx))
	}
	if err := errors.Join(a.queue.Start(ctx), a.fleet.Start(ctx, a.queue)); err != nil {
		return nil, errors.Join(err, closeAll(listener, private), a.presence.Stop(ctx), a.close(ctx))
	}
	a.provisioning.Start(ctx)
	s := &server{app: a, listener: listener, url: url, failed: make(chan error, 2), deafen: a.listen(ctx)}
	metrics := a.newRegistry()
	stopping := make(chan struct{})
	s.http = newPublic(httpapi.New(httpapi.Domains{
		Master: a.master, Accounts: a.accounts, Stores: a.registry, Tenants: a.tenants,
		Credits: a.ledger, Payments: a.payments, Provisioning: a.provisioning, Cloud: a.cloud, Mail: a.mail, Limits: a.limits, Memory: a.memory,
	}, cfg.api(url, log, metrics, stopping)), log)
	s.http.RegisterOnShutdown(sync.OnceFunc(func() { close(stopping) }))
	s.serve(s.http, bound(listener, s.http, cfg.fileShares().clients, a.tenants.SpareFiles, log))
	if private != nil {
		s.private, s.privateURL = newPrivate(s.http.Handler, a, metrics), "http://"+private.Addr().String()
		s.serve(s.private, private)
	}
	cfg.fileShares().warn(ctx, log)
	if !a.mail.Goes() {
		log.WarnContext(ctx, "mail waits until SMTP_URL is set")
	}
	log.InfoContext(ctx, "serving", "url", url, "address", listener.Addr().String(), "private", s.privateURL,
		"env", cfg.Env, "master", string(a.master.Engine), "version", stoa.Build())
	return s, nil
}

// api is what the configuration, which has been checked, says to the API.
func (c *Config) api(url string, log *slog.Logger, metrics prometheus.Registerer, stopping <-chan struct{}) httpapi.Config {
	proxies, _ := c.proxies()
	return httpapi.Config{
		BaseURL: url, BaseDomain: c.BaseDomain, Development: c.development(), Sandbox: c.sandbox(), Log: log, Metrics: metrics,
		Stopping: stopping, Rates: c.rates(), Proxies: proxies, Hosts: c.PlatformHosts, CORS: c.cors(),
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

func (s *server) serve(h *http.Server, l net.Listener) {
	go func() {
		if err := h.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.failed <- err
		}
	}()
}

// stop lets requests finish, then jobs, then closes the databases.
func (s *server) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	httpErr := s.http.Shutdown(ctx)
	if httpErr != nil {
		httpErr = errors.Join(fmt.Errorf("some requests did not finish: %w", httpErr), s.http.Close())
	}
	// The queue gets the runs that have not ended, before it stops itself.
	queueErr := errors.Join(s.provisioning.Stop(ctx), s.queue.Stop(ctx))
	if queueErr != nil {
		queueErr = fmt.Errorf("some jobs did not stop; they run again after the next start: %w", queueErr)
	}
	s.deafen()
	queueErr = errors.Join(queueErr, s.presence.Stop(ctx)) // what did not stop goes on elsewhere
	if s.private != nil {                                  // to the end: a stop is worth watching
		httpErr = errors.Join(httpErr, s.private.Close())
	}
	return errors.Join(httpErr, queueErr, s.close(ctx))
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
