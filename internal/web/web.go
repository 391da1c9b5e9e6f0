// Package web holds what all pages share: layout, styles and other assets, formats and
// response headers. Pages are templ components over plain views,
// which httpapi fills from the domains. The packages console and storefront hold the
// pages. None reads a database.
//
// No page has inline script or style, so a strict Content-Security-Policy applies to
// all of them: it protects even where escaping fails.
//
// The generated files are committed. After a change of a .templ file run
// make generate, or in its directory:
//
//	go run github.com/a-h/templ/cmd/templ@v0.3.1001 generate
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
