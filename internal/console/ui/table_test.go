package ui

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/testkit"
)

// TestTablesUseTheComponent checks that no page has a table of its own: it would scroll
// without being reached by keyboard.
func TestTablesUseTheComponent(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"../*.templ", "*.templ", "../../storefront/*.templ"} {
		found, err := filepath.Glob(pattern)
		testkit.Must(t, err)
		files = append(files, found...)
	}
	if len(files) < 50 {
		t.Fatalf("only %d files", len(files))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		testkit.Must(t, err)
		for i, line := range strings.Split(string(text), "\n") {
			own := strings.Contains(line, "<table") && file != "parts.templ"
			scrolls := strings.Contains(line, `class="scroll"`) && !(strings.Contains(line, `role="region"`) && strings.Contains(line, "aria-label") && strings.Contains(line, `tabindex="0"`))
			if own || scrolls {
				t.Errorf("%s:%d: use ui.Table: %s", file, i+1, strings.TrimSpace(line))
			}
		}
	}
}
