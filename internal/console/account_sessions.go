package console

import (
	"net/http"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
)

func (c *Console) sessionRoutes() []Route {
	return []Route{
		{Pattern: "GET /account/sessions", RouteOptions: view(Person), Handle: c.sessions},
		{Pattern: "POST /account/sessions/end-others", RouteOptions: form(Person), Handle: c.endOtherSessions},
		{Pattern: "POST /account/sessions/{session}/end", RouteOptions: form(Person), Handle: c.endSession},
	}
}

// sessionRow is one session of the list.
type sessionRow struct {
	accounts.Device
	Client string // in words
}

func (c *Console) sessions(w http.ResponseWriter, r *Request) error {
	list, err := c.Accounts.Sessions(r.Context(), r.Principal)
	if err != nil {
		return err
	}
	rows := make([]sessionRow, len(list))
	for i, d := range list {
		rows[i] = sessionRow{Device: d, Client: clientName(d.UserAgent)}
	}
	return c.render(w, r, http.StatusOK, accountFrame("sessions", "Sessions"), sessionsPage(rows))
}

func (c *Console) endSession(w http.ResponseWriter, r *Request) error {
	id, err := stoa.ParseID[stoa.SessionID](r.PathValue("session"))
	if err != nil {
		return notFound()
	}
	err = c.Accounts.EndSession(r.Context(), r.Principal, id)
	switch {
	case isGone(err):
		return redirect(w, r, "/account/sessions", "That session had ended already.")
	case err != nil:
		return err
	case id == r.Principal.SessionID:
		return redirect(w, r, "/signin", "You are signed out.")
	}
	return redirect(w, r, "/account/sessions", "The session has ended.")
}

func (c *Console) endOtherSessions(w http.ResponseWriter, r *Request) error {
	if err := c.Accounts.EndOtherSessions(r.Context(), r.Principal); err != nil {
		return err
	}
	return redirect(w, r, "/account/sessions", "All your other sessions have ended.")
}

// isGone reports whether what a form acts on does not exist any more: it was sent
// twice, or from an old page.
func isGone(err error) bool { return stoa.CodeOf(err) == stoa.NotFound }

// browsers and systems are names that clients give themselves, the most specific
// first: most browsers claim to be others too.
var (
	browsers = [][2]string{{"Edg/", "Edge"}, {"OPR/", "Opera"}, {"Firefox/", "Firefox"}, {"Chromium/", "Chromium"}, {"Chrome/", "Chrome"},
		{"Safari/", "Safari"}, {"curl/", "curl"}}
	systems = [][2]string{{"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Android", "Android"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"},
		{"CrOS", "ChromeOS"}, {"Linux", "Linux"}}
)

// clientName describes a client by what it says it is, which may be wrong.
func clientName(userAgent string) string {
	browser, system := firstMatch(userAgent, browsers), firstMatch(userAgent, systems)
	switch {
	case browser != "" && system != "":
		return browser + " on " + system
	case browser != "" || system != "":
		return browser + system
	case userAgent == "":
		return "Unknown client"
	}
	return userAgent
}

func firstMatch(text string, names [][2]string) string {
	for _, n := range names {
		if strings.Contains(text, n[0]) {
			return n[1]
		}
	}
	return ""
}
