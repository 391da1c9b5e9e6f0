package console

import (
	"net/http"
	"strings"
	"time"
)

// The console's cookies, but for the prefix that cookieName adds over https.
const (
	sessionName   = "stoa_session"
	ownName       = "stoa_operator"  // the operator's own session, while they act as a user
	messageName   = "stoa_message"   // what the last action did
	challengeName = "stoa_challenge" // the first step of a sign-in
)

// SessionCookieName returns the name of the cookie with the session at a base URL.
func SessionCookieName(baseURL string) string { return cookieName(isSecure(baseURL), sessionName) }

func isSecure(baseURL string) bool { return strings.HasPrefix(baseURL, "https:") }

// cookieName returns the name of a cookie for all paths. Over https its prefix makes
// browsers refuse one that another host of the domain, such as a store's, has set.
func cookieName(secure bool, name string) string {
	if secure {
		return "__Host-" + name
	}
	return name
}

// newCookie returns a cookie that scripts cannot read and other sites' forms do not
// send. A lifetime below zero deletes it.
func newCookie(secure bool, name, value, path string, lifetime time.Duration) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // not Secure only when the platform itself is served over HTTP
		Name: name, Value: value, Path: path, MaxAge: int(lifetime.Seconds()),
		HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode,
	}
}

// expired is the lifetime that deletes a cookie.
const expired = -time.Second

// sessionCookie returns the cookie with a session.
func (c *Console) sessionCookie(value string, lifetime time.Duration) *http.Cookie {
	return newCookie(isSecure(c.BaseURL), SessionCookieName(c.BaseURL), value, "/", lifetime)
}

// challengeCookie holds the proof of a correct password between the two steps of a
// sign-in. The pages of the sign-in are the only ones that receive it.
func (c *Console) challengeCookie(value string, lifetime time.Duration) *http.Cookie {
	return newCookie(isSecure(c.BaseURL), challengeName, value, "/signin", lifetime)
}

// ownCookie keeps the session of an operator who acts as a user, until they end that.
// Only impersonation.go and the sign-in read it.
func (c *Console) ownCookie(value string, lifetime time.Duration) *http.Cookie {
	return newCookie(isSecure(c.BaseURL), c.ownCookieName(), value, "/", lifetime)
}

func (c *Console) ownCookieName() string { return cookieName(isSecure(c.BaseURL), ownName) }
