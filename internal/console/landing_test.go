package console

import (
	"bytes"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

func TestLandingShowsCommandsInDevelopmentOnly(t *testing.T) {
	t.Parallel()
	page := func(v landingView) string {
		var b bytes.Buffer
		testkit.Must(t, landing(v).Render(t.Context(), &b))
		return b.String()
	}
	text := page(landingView{BaseURL: "http://localhost:3000/", Version: "v1.2.3", Development: true})
	for _, want := range []string{
		"curl http://localhost:3000/api/auth/register", "curl http://localhost:3000/api/auth/login", "v1.2.3",
		`href="/signup"`, `href="/signin"`, `href="/api/docs"`, `href="/api/openapi.json"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in:\n%s", want, text)
		}
	}
	if text := page(landingView{BaseURL: "https://stoa.example"}); strings.Contains(text, "curl") {
		t.Errorf("production shows commands:\n%s", text)
	}
}
