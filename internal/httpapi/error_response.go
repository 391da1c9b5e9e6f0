package httpapi

import (
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/storefront"
	"github.com/stoahq/stoa/internal/web"
)

// writeError answers a request outside a page's handler: with a page when the client
// asks for HTML, and with a problem document otherwise and under /api/.
func (a *api) writeError(w http.ResponseWriter, r *http.Request, err error) {
	w.Header().Add("Vary", "Accept")
	if html, json := namedFormats(r); strings.HasPrefix(r.URL.Path, "/api/") || html == 0 || json > html {
		writeProblem(w, a.problem(r.Context(), err))
		return
	}
	a.writeErrorPage(w, &console.Request{Request: r}, err)
}

// errorPage answers a request for a page: with a page, unless the client prefers JSON.
func (a *api) errorPage(w http.ResponseWriter, r *http.Request, err error) {
	a.consoleErrorPage(w, &console.Request{Request: r}, err)
}

// consoleErrorPage is errorPage for a request whose caller is known.
func (a *api) consoleErrorPage(w http.ResponseWriter, r *console.Request, err error) {
	w.Header().Add("Vary", "Accept")
	if html, json := namedFormats(r.Request); json > html {
		writeProblem(w, a.problem(r.Context(), err))
		return
	}
	a.writeErrorPage(w, r, err)
}

func (a *api) writeErrorPage(w http.ResponseWriter, r *console.Request, err error) {
	p := a.problem(r.Context(), err)
	for key, values := range p.header {
		w.Header()[key] = values
	}
	if !a.isPlatform(r.Host) {
		web.Serve(w, r.Request, p.Status, storefront.ErrorPage(storefront.ErrorView{
			Status: p.Status, Text: shopperText(p), Home: p.Status == http.StatusNotFound && p.Code != stoa.StoreNotFound,
		}))
		return
	}
	v := console.ErrorView{Status: p.Status, Title: errorTitles[p.Status], Detail: p.Detail, RequestID: p.RequestID}
	if err := a.console.Error(w, r, v); err != nil {
		a.Log.ErrorContext(r.Context(), "error page failed", "request_id", p.RequestID, "err", err)
	}
}

// errorTitles are the titles of error pages where the status's own words are for
// programs.
var errorTitles = map[int]string{
	http.StatusNotFound:              "Page not found",
	http.StatusForbidden:             "You may not do this",
	http.StatusUnprocessableEntity:   "This did not work",
	http.StatusConflict:              "This did not work",
	http.StatusTooManyRequests:       "Too many requests",
	http.StatusInternalServerError:   "Something went wrong",
	http.StatusServiceUnavailable:    "Not available at the moment",
	http.StatusMethodNotAllowed:      "This page takes no such request",
	http.StatusRequestURITooLong:     "The address is too long",
	http.StatusRequestEntityTooLarge: "The form is too large",
}

// shopperText returns the text of a store's error page. A shopper can do nothing about
// the store's database, and does not know of the platform.
func shopperText(p *Problem) string {
	switch p.Code {
	case stoa.NotFound, stoa.StoreNotFound, stoa.StoreSuspended, stoa.MethodNotAllowed:
		return p.Detail
	case stoa.StorePendingDatabase:
		return "This store is being set up. Please come back soon."
	case stoa.RateLimited:
		return "There are too many visitors at the moment. Please try again in a minute."
	default:
		if p.Status < http.StatusInternalServerError {
			return "This address cannot be opened. Please check it."
		}
		return "This store cannot be shown at the moment. Please try again shortly."
	}
}

// namedFormats returns the preference (RFC 9110, section 12.5.1) from 0 to 1 of HTML
// and of JSON among the media types that a request names. A wildcard names neither.
func namedFormats(r *http.Request) (html, json float64) {
	for _, accept := range r.Header.Values("Accept") {
		for item := range strings.SplitSeq(accept, ",") {
			name, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			q := 1.0
			if given, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(given, 64); err != nil {
					continue
				}
			}
			switch name {
			case "text/html", "application/xhtml+xml":
				html = max(html, q)
			case "application/json", "application/problem+json":
				json = max(json, q)
			}
		}
	}
	return html, json
}

// noRoute answers requests that match no route.
func (a *api) noRoute(w http.ResponseWriter, r *http.Request) {
	if page := a.pathWithoutSlash(r); page != "" {
		http.Redirect(w, r, page, http.StatusPermanentRedirect)
		return
	}
	if allowed := a.allowedMethods(r); len(allowed) > 0 {
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		a.writeError(w, r, stoa.Errorf(stoa.MethodNotAllowed, "This address does not take %s; it takes %s.",
			printableMethod(r.Method), strings.Join(allowed, ", ")))
		return
	}
	const nothing = "There is nothing at this address."
	html, json := namedFormats(r)
	switch {
	case !a.isPlatform(r.Host): // a store's visitor receives no information about the platform
		a.writeError(w, r, stoa.Errorf(stoa.NotFound, nothing))
	case html == 0 || json > html || strings.HasPrefix(r.URL.Path, "/api/"):
		a.writeError(w, r, stoa.Errorf(stoa.NotFound, nothing+" The API is described at /api/docs."))
	default:
		page := &console.Request{Request: r, Client: requestOf(r.Context()).client}
		_ = a.signInByCookie(page) // without a session the page has the frame of a visitor
		a.consoleErrorPage(w, page, stoa.Errorf(stoa.NotFound, nothing))
	}
}

// pathWithoutSlash returns the address that a request with a slash too much at its end
// means, or "".
func (a *api) pathWithoutSlash(r *http.Request) string {
	to := *r.URL
	to.Path, to.RawPath = path.Clean(to.Path), "" // one slash at the start: "//host" is another server's address
	if to.Path+"/" != r.URL.Path {
		return ""
	}
	probe := r.Clone(r.Context())
	probe.URL = &to
	if _, pattern := a.mux.Handler(probe); pattern == "/" || pattern == "" {
		return ""
	}
	return to.RequestURI()
}

func (a *api) allowedMethods(r *http.Request) []string {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		probe := r.Clone(r.Context())
		probe.Method = method
		if _, pattern := a.mux.Handler(probe); pattern != "/" {
			allowed = append(allowed, method)
			if method == http.MethodGet {
				allowed = append(allowed, http.MethodHead)
			}
		}
	}
	if allowed != nil {
		allowed = append(allowed, http.MethodOptions)
	}
	return allowed
}

// printableMethod replaces a method name that is not plain letters.
func printableMethod(method string) string {
	if len(method) > 10 || strings.ContainsFunc(method, func(r rune) bool { return r < 'A' || r > 'Z' }) {
		return "this method"
	}
	return method
}
