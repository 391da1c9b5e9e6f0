package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/hostnames"
	"github.com/stoahq/stoa/limits"
)

// CORS says which other origins' pages may read answers of the API.
type CORS struct {
	Origins     []string // exact: scheme, host and port
	Credentials bool     // they may send cookies and the like
}

// healthRate is for the health checks, by address.
var healthRate = limits.Limit{Name: "health", PerMinute: 1200}

const (
	maxURL      = 8 << 10         // bytes
	maxBody     = 2 << 20         // bytes; what an operation takes is less
	bodyTimeout = 5 * time.Second // for a body to arrive; huma's own is as long
)

// door is what every request passes before it is routed.
func (a *api) door(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		platform := a.isPlatform(r.Host)
		a.secure(w.Header(), r, platform)
		if a.shareAcross(w, r) {
			return // a preflight
		}
		switch err := a.refusal(r, platform); {
		case err == nil:
		case stoa.CodeOf(err) == stoa.NotFound:
			a.refuse(w, r, err)
			return
		default:
			writeProblem(w, a.problem(r.Context(), err))
			return
		}
		if r.ContentLength != 0 {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			// What no handler has read the server does, before the next request.
			defer setReadDeadline(w, bodyTimeout)
		}
		next.ServeHTTP(w, r)
	})
}

// refuse answers with a page, or within the API with a problem document.
func (a *api) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		writeProblem(w, a.problem(r.Context(), err))
		return
	}
	a.errorPage(w, r, err)
}

// refusal says why a request goes no further.
func (a *api) refusal(r *http.Request, platform bool) error {
	if len(r.RequestURI) > maxURL {
		return stoa.Errorf(stoa.URITooLong, "The address is longer than %d bytes.", maxURL)
	}
	if err := checkAddress(r); err != nil {
		return err
	}
	if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
		// A load balancer asks by address, and often: what others use up is not its.
		return a.take(r.Context(), limits.Address("health", requestOf(r.Context()).address), healthRate)
	}
	if err := a.takeAddress(r.Context()); err != nil {
		return err
	}
	if !platform && !ofStores(r.URL.Path) {
		return stoa.Errorf(stoa.NotFound, "There is nothing at this address.")
	}
	return nil
}

// ofStores reports whether a store's hostname answers there.
func ofStores(path string) bool {
	return path == "/" || strings.HasPrefix(path, "/api/storefront/") || strings.HasPrefix(path, "/assets/")
}

// platformHosts are the names that the platform itself answers at.
func (c Config) platformHosts() map[string]bool {
	hosts := map[string]bool{}
	for _, h := range hostnames.PlatformHosts(c.BaseDomain, c.BaseURL, c.Hosts) {
		hosts[h] = true
	}
	return hosts
}

// isPlatform reports whether a host is the platform's own. In development any
// address is: it may be that of a container, or of another device's view.
func (a *api) isPlatform(host string) bool {
	name, err := hostnames.Normalize(host)
	if err != nil {
		return a.Development && isAddress(host)
	}
	return a.hosts[name] || a.Development && isAddress(name)
}

func isAddress(host string) bool {
	if withPort, err := netip.ParseAddrPort(host); err == nil {
		host = withPort.Addr().String()
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// secure sets what browsers are told of every answer. Pages have a policy of
// their own.
func (a *api) secure(h http.Header, r *http.Request, platform bool) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	if platform && strings.HasPrefix(a.BaseURL, "https:") {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		h.Set("Cache-Control", "no-store")
	}
}

// shareAcross lets the pages of known origins read the API (the Fetch
// standard's CORS protocol). It answers their preflights and then reports true.
func (a *api) shareAcross(w http.ResponseWriter, r *http.Request) (answered bool) {
	if len(a.CORS.Origins) == 0 || !strings.HasPrefix(r.URL.Path, "/api/") {
		return false
	}
	h := w.Header()
	h.Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if !slices.Contains(a.CORS.Origins, origin) {
		return false
	}
	h.Set("Access-Control-Allow-Origin", origin)
	h.Set("Access-Control-Expose-Headers", "Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id")
	if a.CORS.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer, X-Request-Id, X-Store-Id")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// setReadDeadline bounds what is still to be read of a request. The server sets
// the next one's anew.
func setReadDeadline(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d)) // without one there is nothing to bound
}
