package console

import (
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestEveryServerHasSnippets checks that the page of a managed database shows how to connect,
// on every engine that has servers.
func TestEveryServerHasSnippets(t *testing.T) {
	t.Parallel()
	for _, engine := range credential.Engines {
		if snippets[engine] == nil && !engine.Embedded() {
			t.Errorf("%s has no line in snippets", engine)
		}
	}
}
