package console

import (
	"net/http"
	"regexp"
)

// mailboxRoutes serves the mails that development mode does not send.
func (c *Console) mailboxRoutes() []Route {
	if !c.Development {
		return nil
	}
	return []Route{{Pattern: "GET /dev/mailbox", RouteOptions: view(Optional), Handle: c.mailbox}}
}

func (c *Console) mailbox(w http.ResponseWriter, r *Request) error {
	box, err := c.Mail.Box()
	if err != nil {
		return err
	}
	return c.render(w, r, http.StatusOK, publicFrame("Mailbox"), mailboxPage(box))
}

// textPart is a part of a text: a link, or the text between links.
type textPart struct {
	text string
	url  bool
}

var webLink = regexp.MustCompile(`https?://[^\s<>"]+`)

// splitLinks splits a text into its links and the text between them.
func splitLinks(text string) (out []textPart) {
	at := 0
	for _, m := range webLink.FindAllStringIndex(text, -1) {
		out = append(out, textPart{text: text[at:m[0]]}, textPart{text: text[m[0]:m[1]], url: true})
		at = m[1]
	}
	return append(out, textPart{text: text[at:]})
}
