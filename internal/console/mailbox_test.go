package console

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestMailboxPage(t *testing.T) {
	t.Parallel()
	const evil = `"><script>alert(1)</script>`
	var b bytes.Buffer
	testkit.Must(t, mailboxPage([]mail.Written{{Subject: evil, To: evil, Text: "see https://example.com/?token=a&b=c\nor " + evil + "javascript:alert(1)"}}).Render(t.Context(), &b))
	page := b.String()
	if strings.Contains(page, "<script>") || strings.Contains(page, `href="javascript`) {
		t.Errorf("a script has got in:\n%s", page)
	}
	if !strings.Contains(page, `href="https://example.com/?token=a&amp;b=c"`) {
		t.Errorf("the link is none:\n%s", page)
	}
}
