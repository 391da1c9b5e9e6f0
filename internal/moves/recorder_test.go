package moves

import (
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestEveryEngineHasARecorder checks that a store can move from and to every engine.
func TestEveryEngineHasARecorder(t *testing.T) {
	t.Parallel()
	for _, engine := range credential.Engines {
		if recorders[engine] == nil {
			t.Errorf("%s has no line in recorders", engine)
		}
	}
}
