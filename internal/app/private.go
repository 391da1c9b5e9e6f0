package app

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
)

// openListeners opens the public listener and, if it is configured, the private
// one, which is nil otherwise.
func openListeners(ctx context.Context, cfg *config.Config) (public, private net.Listener, err error) {
	var lc net.ListenConfig
	if public, err = lc.Listen(ctx, "tcp", cfg.Address()); err != nil {
		return nil, nil, fmt.Errorf("cannot listen on %s: %w (another port: --port N or PORT=N)", cfg.Address(), err)
	}
	if cfg.PrivateListen == "" {
		return public, nil, nil
	}
	if private, err = lc.Listen(ctx, "tcp", cfg.PrivateListen); err != nil {
		err = fmt.Errorf("cannot listen on %s: %w (another address: --private-listen or STOA_PRIVATE_LISTEN)", cfg.PrivateListen, err)
		return nil, nil, errors.Join(err, public.Close())
	}
	return public, private, nil
}

// closeAll closes the listeners that are not nil.
func closeAll(listeners ...net.Listener) (err error) {
	for _, l := range listeners {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
	}
	return err
}

// newPrivate returns the server for the operator's own machines. It serves metrics, the
// request of a proxy that wants a certificate for a hostname, detailed health, profiles,
// and the health checks of the public listener.
func newPrivate(public http.Handler, a *App, metrics *prometheus.Registry) *http.Server {
	errorLog := slog.NewLogLogger(a.Log.Handler(), slog.LevelWarn)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{
		ErrorLog: errorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: 10 * time.Second,
	}))
	mux.Handle("GET /ask", askHandler(a.Registry, a.Log))
	mux.HandleFunc("GET /health", a.health)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.Handle("GET /healthz", public)
	mux.Handle("GET /readyz", public)
	return &http.Server{
		Handler: privateHosts(a.Cfg.PrivateHosts, mux), ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 2 * time.Minute, // recording a profile takes up to its requested duration
		IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10, ErrorLog: errorLog,
	}
}

// privateHosts refuses requests whose Host is a public name that is not in names. A
// page in an operator's browser can make its own name resolve to this listener's
// address (DNS rebinding), and its script could then read the answers; it cannot
// choose the Host header. Addresses, and names without a dot such as localhost, are
// allowed.
func privateHosts(names []string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		host = strings.ToLower(strings.Trim(host, "[]"))
		if _, err := netip.ParseAddr(host); err != nil && strings.Contains(host, ".") && !slices.Contains(names, host) {
			http.Error(w, "ask by this listener's address, or by a name in STOA_PRIVATE_HOSTS", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// health is the state of this server in detail.
type health struct {
	Status  string   `json:"status"` // "ok", "stopping", or "failing" when it cannot serve
	Version string   `json:"version"`
	Uptime  string   `json:"uptime"`
	Checks  []detail `json:"checks"`
}

// detail is the state of one dependency.
type detail struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
	Took   string `json:"took"`
}

// health checks every dependency. The status is 503 only if the master database does
// not answer.
func (a *App) health(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
	defer cancel()
	out := health{Status: "ok", Version: stoa.Build(), Uptime: time.Since(a.started).Round(time.Second).String()}
	check := func(name string, run func() (string, error)) bool {
		start := time.Now()
		text, err := run()
		if err != nil {
			text = err.Error()
		}
		out.Checks = append(out.Checks, detail{Name: name, OK: err == nil, Detail: text, Took: time.Since(start).Round(time.Microsecond).String()})
		return err == nil
	}
	select {
	case <-a.draining:
		out.Status = "stopping"
	default:
	}
	status := http.StatusOK
	if !check("master database", func() (string, error) { return string(a.Master.Engine), a.Master.Ping(ctx) }) {
		out.Status, status = "failing", http.StatusServiceUnavailable
	} else {
		check("schema", func() (string, error) { return doctor.CheckSchema(ctx, a.Master) })
		check("job queue", func() (string, error) { return doctor.CheckQueue(ctx, a.Master) })
		if a.Master.Engine == masterdb.Postgres {
			check("clock", func() (string, error) { return doctor.CheckClock(ctx, a.Master) })
		}
	}
	check("data directory", func() (string, error) { return a.Cfg.DataDir, a.Cfg.CheckDirs() })
	if a.limits.Shared() {
		check("rate limits", func() (string, error) { return "shared through REDIS_URL", a.limits.Ping(ctx) })
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(out) // the client may have disconnected
}

// askHandler answers a proxy that is about to request a certificate on demand
// (Caddy's on_demand_tls ask): 200 for a hostname of a store, 404 for any other.
// The resolver limits how many lookups of invented names run at a time; others get
// 503.
func askHandler(registry *stores.Registry, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answers, err := registry.Answers(r.Context(), r.URL.Query().Get("domain"))
		switch {
		case stoa.CodeOf(err) == stoa.TenantUnavailable, r.Context().Err() != nil:
			http.Error(w, "busy", http.StatusServiceUnavailable)
		case err != nil:
			if stoa.CodeOf(err) != stoa.PlatformUnavailable { // an outage is logged once
				log.ErrorContext(r.Context(), "hostname not looked up", "err", err)
			}
			http.Error(w, "the master database does not answer", http.StatusServiceUnavailable)
		case !answers:
			http.Error(w, "no store answers there", http.StatusNotFound)
		}
	})
}
