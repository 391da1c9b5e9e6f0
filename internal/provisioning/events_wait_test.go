package provisioning

import (
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestJoinEvents checks that a recorded event wakes the callers that follow its run
// before its transaction returns, and no others.
func TestJoinEvents(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	p, s := b.store(t)
	run, err := b.Connect(t.Context(), p, s.ID, managedCredentials)
	testkit.Must(t, err)
	woken, leave := b.JoinEvents(run.ID)
	others, leaveOthers := b.JoinEvents(stoa.NewID[stoa.RunID]())
	defer leaveOthers()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return insertEvents(t.Context(), tx, run.ID, eventLog{Attempt: 1, Changes: 100}, change{step: "connect", state: Running})
	}))
	select {
	case <-woken:
	default:
		t.Error("no notification of a recorded event")
	}
	select {
	case <-others:
		t.Error("another run's follower was woken")
	default:
	}
	leave()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return insertEvents(t.Context(), tx, run.ID, eventLog{Attempt: 1, Changes: 101}, change{step: "connect", state: Running})
	}))
	select {
	case <-woken:
		t.Error("a follower was woken after it had left")
	default:
	}
}
