package moves

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestCatchUpThatGainsNothing has a trigger that writes a change for each one that was carried
// over. The round fails and says why; without the trigger the next one ends.
func TestCatchUpThatGainsNothing(t *testing.T) {
	t.Parallel()
	tr := newTrial(t, credential.SQLite, credential.SQLite)
	tr.begin(t)
	testkit.Must(t, insertProduct(t.Context(), tr.writer, uuidOf(), "bread"))
	mustExec(t, tr.writer, `CREATE TRIGGER feed AFTER DELETE ON `+journalTable+` BEGIN INSERT INTO `+journalTable+` (name, k, gone) VALUES (OLD.name, OLD.k, OLD.gone); END`)
	tr.limits = pace{every: time.Millisecond, within: 200 * time.Millisecond}
	n, err := tr.catchUp(t.Context(), 0)
	if stoa.CodeOf(err) != stoa.MoveRefused || !strings.Contains(err.Error(), "faster") || n == 0 {
		t.Fatalf("%d changes: %v", n, err)
	}
	t.Log(err)
	mustExec(t, tr.writer, `DROP TRIGGER feed`)
	_, err = tr.catchUp(t.Context(), 0)
	testkit.Must(t, err)
	testkit.Must(t, tr.fence(t.Context(), func(time.Duration, error) {}))
}
