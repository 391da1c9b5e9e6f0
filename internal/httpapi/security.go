package httpapi

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/hostnames"
)

// CORS says which other origins' pages may read responses of the API.
type CORS struct {
	Origins     []string // exact: scheme, host and port
	Credentials bool     // they may send cookies and other credentials
}

const (
	maxURL      = 8 << 10         // bytes
	maxBody     = 2 << 20         // bytes, above the limit of every route
	bodyTimeout = 5 * time.Second // for a body to arrive; huma's default is the same
)

// security checks every request before it is routed and sets the security
// headers.
func (a *api) security(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		req := requestIn(r.Context())
		a.setSecurityHeaders(w.Header(), r, req.platform)
		if a.setCORSHeaders(w, r) {
			return // a preflight request
		}
		if err := a.checkRequest(r, req); err != nil {
			a.writeError(w, r, err)
			return
		}
		if req.options.streamed {
			r.Body = http.MaxBytesReader(w, steadyBody{r.Body, w}, req.options.maxBody)
			req.body = r.Body
			defer setReadDeadline(w, bodyTimeout)
		} else if r.ContentLength != 0 {
			r.Body = http.MaxBytesReader(w, r.Body, maxBody)
			// The server reads the unread rest of the body before the next request.
			defer setReadDeadline(w, bodyTimeout)
		}
		next.ServeHTTP(w, r)
	})
}

// checkRequest returns why a request is refused, or nil.
func (a *api) checkRequest(r *http.Request, req *request) error {
	if len(r.RequestURI) > maxURL {
		return stoa.Errorf(stoa.URITooLong, "The address is longer than %d bytes.", maxURL)
	}
	if err := checkURL(r, req.options.list); err != nil {
		return err
	}
	if err := a.limitAddress(r.Context()); err != nil {
		return err
	}
	if req.versionErr != nil {
		return req.versionErr
	}
	if req.options.rate != rateHealth && !req.platform && !isStorefrontPath(r.URL.Path) {
		return stoa.Errorf(stoa.NotFound, "There is nothing at this address.")
	}
	return nil
}

// isStorefrontPath reports whether a store's hostname serves the path.
func isStorefrontPath(path string) bool {
	return path == "/" || path == "/favicon.ico" || path == "/robots.txt" || strings.HasPrefix(path, "/api/storefront/") || strings.HasPrefix(path, "/assets/")
}

// platformHosts returns the hostnames of the platform itself.
func (c Config) platformHosts() map[string]bool {
	hosts := map[string]bool{}
	for _, h := range hostnames.PlatformHosts(c.BaseDomain, c.BaseURL, c.Hosts) {
		hosts[h] = true
	}
	return hosts
}

// isPlatform reports whether a host is the platform's own. In development every
// IP address is: it may be that of a container or of another device.
func (a *api) isPlatform(host string) bool {
	name, err := hostnames.Normalize(host)
	if err != nil {
		return a.Development && isIPAddress(host)
	}
	return a.hosts[name] || a.Development && isIPAddress(name)
}

func isIPAddress(host string) bool {
	if withPort, err := netip.ParseAddrPort(host); err == nil {
		host = withPort.Addr().String()
	}
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

// setSecurityHeaders sets the headers of every response. Pages replace the
// Content-Security-Policy by their own.
func (a *api) setSecurityHeaders(h http.Header, r *http.Request, platform bool) {
	for _, f := range fixedHeaders {
		h[f.name] = f.value
	}
	if platform && strings.HasPrefix(a.BaseURL, "https:") {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	}
	if strings.HasPrefix(r.URL.Path, "/api/") {
		h[cacheControl] = noStore
	}
}

// fixedHeaders are the headers of every response. All responses share their values, which
// nothing changes in place.
var fixedHeaders = []struct {
	name  string // in its canonical form
	value []string
}{
	{"X-Content-Type-Options", []string{"nosniff"}},
	{"Referrer-Policy", []string{"no-referrer"}},
	{"X-Frame-Options", []string{"DENY"}},
	{"Content-Security-Policy", []string{"default-src 'none'; frame-ancestors 'none'"}},
	{"Cross-Origin-Opener-Policy", []string{"same-origin"}},
}

const cacheControl = "Cache-Control"

var noStore = []string{"no-store"}

// setCORSHeaders lets pages of the configured origins read the API (the Fetch
// standard's CORS protocol). It answers preflight requests and reports whether
// it did.
func (a *api) setCORSHeaders(w http.ResponseWriter, r *http.Request) (answered bool) {
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
	h.Set("Access-Control-Expose-Headers", "ETag, Idempotency-Replayed, Location, RateLimit, RateLimit-Policy, Retry-After, Stoa-Version, X-Request-Id")
	if a.CORS.Credentials {
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	h.Set("Access-Control-Allow-Methods", "GET, POST, PUT, PATCH, DELETE")
	h.Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, Last-Event-ID, Prefer, Stoa-Version, X-Request-Id, X-Store-Id")
	h.Set("Access-Control-Max-Age", "600")
	w.WriteHeader(http.StatusNoContent)
	return true
}

// setReadDeadline bounds the reading of the rest of a request. The server sets
// a new deadline for the next request.
func setReadDeadline(w http.ResponseWriter, d time.Duration) {
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(d)) // a writer without a connection has none
}
