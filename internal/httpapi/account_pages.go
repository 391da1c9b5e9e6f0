package httpapi

import (
	"net/http"
	"time"

	"github.com/stoahq/stoa/internal/console"
	"github.com/stoahq/stoa/internal/web"
)

// accountPageRoutes registers the mailbox of development mode.
func (a *api) accountPageRoutes() {
	if a.Development {
		a.page("GET /dev/mailbox", routeOptions{timeout: requestTimeout, rate: rateAddress, scope: scopePublic, maxBody: noBody}, a.mailbox)
	}
}

// readForm parses a form within bodyTimeout. It clears the deadline afterwards:
// one that passes later would end the request.
func readForm(w http.ResponseWriter, r *http.Request) error {
	setReadDeadline(w, bodyTimeout)
	defer http.NewResponseController(w).SetReadDeadline(time.Time{}) //nolint:errcheck // a writer without a connection has no deadline
	return r.ParseForm()
}

func (a *api) mailbox(w http.ResponseWriter, r *http.Request) {
	box, err := a.Mail.Box()
	if err != nil {
		a.errorPage(w, r, err)
		return
	}
	views := make([]console.MailView, len(box))
	for i, m := range box {
		views[i] = console.MailView{To: m.To, Subject: m.Subject, At: m.At.Format(time.RFC3339), Text: m.Text}
	}
	web.Serve(w, r, http.StatusOK, console.MailboxPage(views))
}
