package web_test

import (
	"strings"
	"testing"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/console"
)

const evil = `"><script>alert(1)</script>`

// source returns the HTML of a page.
func source(t *testing.T, page templ.Component) string {
	t.Helper()
	var b strings.Builder
	if err := page.Render(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestFormPage(t *testing.T) {
	t.Parallel()
	page := source(t, console.FormPage(console.FormView{Title: "Set a new password", Action: "/reset-password", Token: evil, Fault: evil,
		Fields: []console.FieldView{{Name: "password", Label: "New password", Type: "password", Autocomplete: "new-password"}}, Button: "Set"}))
	if strings.Contains(page, "<script>") {
		t.Errorf("a script has got in:\n%s", page)
	}
	for _, part := range []string{`method="post"`, `name="password"`, `type="password"`, `name="token"`} {
		if !strings.Contains(page, part) {
			t.Errorf("no %s in\n%s", part, page)
		}
	}
	if done := source(t, console.FormPage(console.FormView{Title: "Done"})); strings.Contains(done, "<form") {
		t.Errorf("a form is left:\n%s", done)
	}
}

func TestMailboxPage(t *testing.T) {
	t.Parallel()
	page := source(t, console.MailboxPage([]console.MailView{{Subject: evil, To: evil, Text: "see https://example.com/?token=a&b=c\nor " + evil + "javascript:alert(1)"}}))
	if strings.Contains(page, "<script>") || strings.Contains(page, `href="javascript`) {
		t.Errorf("a script has got in:\n%s", page)
	}
	if !strings.Contains(page, `href="https://example.com/?token=a&amp;b=c"`) {
		t.Errorf("the link is none:\n%s", page)
	}
}
