// Package web holds what the pages of the platform and of stores share: assets, formats
// and response headers. The packages console and storefront hold the pages.
//
// No page has inline script or style, so a strict Content-Security-Policy applies to
// all of them: it protects even where escaping fails.
package web

import (
	"net/http"

	"github.com/a-h/templ"
)

// ContentSecurityPolicy is the policy of every page but the API documentation: no
// script, styles from this host only, pictures from this host or over https.
const ContentSecurityPolicy = "default-src 'none'; style-src 'self'; img-src 'self' https: data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Serve writes a page with the headers that every page needs. It keeps a
// Cache-Control that the caller has set; the default is no-store.
func Serve(w http.ResponseWriter, r *http.Request, status int, page templ.Component) {
	ServeWithPolicy(w, r, status, page, ContentSecurityPolicy)
}

// ServeWithPolicy writes a page as Serve does, with another Content-Security-Policy.
func ServeWithPolicy(w http.ResponseWriter, r *http.Request, status int, page templ.Component, policy string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	templ.Handler(page, templ.WithStatus(status)).ServeHTTP(w, r)
}
