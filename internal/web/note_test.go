package web_test

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/console"
)

func TestNotePage(t *testing.T) {
	t.Parallel()
	doc, text := render(t, console.NotePage(console.NoteView{Title: "Thank <b>you</b>", Text: "Soon & surely"}))
	checkHarmless(t, doc)
	for _, want := range []string{"Thank <b>you</b>", "Soon & surely"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
}
