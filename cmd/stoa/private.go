package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// listen opens the public listener and, when the operator wants one, the
// private.
func (c *Config) listen(ctx context.Context) (public, private net.Listener, err error) {
	var lc net.ListenConfig
	if public, err = lc.Listen(ctx, "tcp", c.address()); err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w (another port: --port N or PORT=N)", c.address(), err)
	}
	if c.PrivateListen == "" {
		return public, nil, nil
	}
	if private, err = lc.Listen(ctx, "tcp", c.PrivateListen); err != nil {
		err = fmt.Errorf("cannot listen on %s: %w (another address: --private-listen or STOA_PRIVATE_LISTEN)", c.PrivateListen, err)
		return nil, nil, errors.Join(err, public.Close())
	}
	return public, private, nil
}

// closeAll closes the listeners that there are.
func closeAll(listeners ...net.Listener) (err error) {
	for _, l := range listeners {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// newRegistry gathers what this process can be watched by.
func (a *app) newRegistry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), a.tenants)
	return r
}

// newPrivate serves what is for the operator's own machines: the metrics, and
// beside them the health checks of the public listener.
func newPrivate(public http.Handler, metrics *prometheus.Registry, log *slog.Logger) *http.Server {
	errorLog := slog.NewLogLogger(log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	mux.Handle("GET /healthz", public)
	mux.Handle("GET /readyz", public)
	return &http.Server{
		Handler: mux, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 30 * time.Second,
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: errorLog,
	}
}
