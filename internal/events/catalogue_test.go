package events_test

import (
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/events"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestDocumentListsTheCatalogue checks that docs/webhooks.md has a line for each type, with
// its members, and that no type is there twice.
func TestDocumentListsTheCatalogue(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/webhooks.md")
	testkit.Must(t, err)
	seen := map[events.Type]bool{}
	for _, kind := range events.Catalogue() {
		if seen[kind.Type] {
			t.Errorf("%s is twice in the catalogue", kind.Type)
		}
		seen[kind.Type] = true
		var members []string
		for _, m := range kind.Members {
			members = append(members, "`"+m.Name+"`")
		}
		data := strings.Join(members, ", ")
		if data == "" {
			data = "–"
		}
		if line := "| `" + string(kind.Type) + "` | " + kind.About + " | " + data + " |\n"; !strings.Contains(string(text), line) {
			t.Errorf("docs/webhooks.md lacks the line\n%s", line)
		}
	}
	if lines := strings.Count(string(text), "\n| `") - 3; lines != len(seen) {
		t.Errorf("docs/webhooks.md lists %d types, there are %d", lines, len(seen))
	}
}
