package httpapi

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/web"
)

// changePasswordPage is where the console changes a password.
const changePasswordPage = "/account/password"

// wellKnownRoutes registers the files that browsers, search engines and security
// researchers look for at fixed paths. A store's hostname serves the first two, which
// say nothing of the platform there.
func (a *api) wellKnownRoutes() {
	public := routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}
	a.page("GET /favicon.ico", public, func(w http.ResponseWriter, r *http.Request) {
		web.ServeFavicon(w, r, !a.isPlatform(r.Host))
	})
	a.page("GET /robots.txt", public, a.robots)
	a.page("GET /.well-known/security.txt", public, a.securityTxt)
	a.page("GET /.well-known/change-password", public, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, changePasswordPage, http.StatusFound)
	})
}

// privatePaths are the beginnings of the platform's paths that search engines have no
// business at: the pages of people, and the links in mails. The API's documentation is
// an exception to the last one.
var privatePaths = []string{
	"/account", "/operator", "/stores",
	"/search", "/signin", "/signout", "/signup", "/reauthenticate", "/forgot", "/reset", "/verify", "/invitations", "/accept-invitation",
	"/checkout/", "/sandbox/", "/supabase/", "/dev/", "/api/",
}

// robots serves robots.txt (RFC 9309). A store's pages are all public.
func (a *api) robots(w http.ResponseWriter, r *http.Request) {
	text := "User-agent: *\nAllow: /\n"
	if a.isPlatform(r.Host) {
		text = "User-agent: *\nAllow: /api/docs\nDisallow: " + strings.Join(privatePaths, "\nDisallow: ") + "\n"
	}
	servePlainText(w, text)
}

// securityTxtLifetime is how long a copy of security.txt is valid. RFC 9116 recommends
// less than a year.
const securityTxtLifetime = 90 * 24 * time.Hour

// securityTxt says where to report a vulnerability (RFC 9116).
func (a *api) securityTxt(w http.ResponseWriter, r *http.Request) {
	if a.SecurityContact == "" {
		a.writeError(w, r, stoa.Errorf(stoa.NotFound, "There is nothing at this address."))
		return
	}
	expires := time.Now().Add(securityTxtLifetime).UTC().Truncate(24 * time.Hour)
	servePlainText(w, fmt.Sprintf("Contact: %s\nExpires: %s\nPreferred-Languages: en\nCanonical: %s/.well-known/security.txt\n",
		a.SecurityContact, expires.Format(time.RFC3339), strings.TrimSuffix(a.BaseURL, "/")))
}

func servePlainText(w http.ResponseWriter, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=3600")
	_, _ = io.WriteString(w, text) // the client may have gone
}
