package managed

import (
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestEveryServerIsAHost checks that managed databases can be made on every engine that has
// servers.
func TestEveryServerIsAHost(t *testing.T) {
	t.Parallel()
	for _, engine := range credential.Engines {
		if hosts[engine] == nil && !engine.Embedded() {
			t.Errorf("%s has no line in hosts", engine)
		}
	}
}
