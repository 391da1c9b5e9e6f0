// Package web holds the pages that a browser meets: the platform's front
// page, a store's page, the sandbox's payment page, the error page and the
// API documentation. They are templ components over plain views, which
// httpapi fills from the domains; nothing here reads a database.
//
// No page has inline script or style, so that the strictest policy holds for
// all of them and a hostile name can do nothing even where escaping failed.
//
// The generated files are committed. After a change of a .templ file run, in
// this directory:
//
//	go run github.com/a-h/templ/cmd/templ@v0.3.1001 generate
package web

import (
	"net/http"

	"github.com/a-h/templ"
)

// ContentSecurityPolicy is for every page but the API documentation: no
// script, styles from here alone, pictures from here or over https.
const ContentSecurityPolicy = "default-src 'none'; style-src 'self'; img-src 'self' https: data:; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// Serve answers with a page and the headers that every page needs. A
// Cache-Control that the caller has set stays; without one nothing is kept.
func Serve(w http.ResponseWriter, r *http.Request, status int, page templ.Component) {
	serve(w, r, status, page, ContentSecurityPolicy)
}

func serve(w http.ResponseWriter, r *http.Request, status int, page templ.Component, policy string) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", "no-store")
	}
	templ.Handler(page, templ.WithStatus(status)).ServeHTTP(w, r)
}
