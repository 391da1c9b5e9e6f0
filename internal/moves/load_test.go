package moves

import (
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// loadEnv is the environment variable with the number of writes of TestMovesUnderLoad.
const loadEnv = "STOA_TEST_MOVE_WRITES"

// TestMovesUnderLoad moves one store from engine to engine, again and again, until its writers
// have been acknowledged a number of writes. None is lost or doubled, and none fails.
func TestMovesUnderLoad(t *testing.T) {
	t.Parallel()
	writes := 500
	if raw := os.Getenv(loadEnv); raw != "" {
		var err error
		writes, err = strconv.Atoi(raw)
		testkit.Must(t, err)
	}
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine != masterdb.SQLite {
			t.Skip("TestMove uses both masters")
		}
		r := newReplica(t, db)
		list := engines()
		store := r.connected(t, list[0])
		load := r.trafficOf(t, store, 12) // more than a pool of an embedded database has connections
		begun := time.Now()
		var freezes []int64
		at := list[0]
		for i := 1; load.writes.Load() < int64(writes) || i <= len(list); i++ {
			// Each engine follows each other one, and itself where that is another place.
			to := list[(i+i/len(list))%len(list)]
			if to == at && to == list[0] {
				continue
			}
			m, err := r.Start(t.Context(), r.owner, store, targetOf(t, to))
			testkit.Must(t, err)
			if m = r.await(t, m, inState(Kept, Failed, Aborted)); m.State != Kept {
				t.Fatalf("the move %d from %s to %s is %s: %v", i, at, to, m.State, m.Fault.Err())
			}
			_, err = r.Finish(t.Context(), r.owner, store, m.ID)
			testkit.Must(t, err)
			if m = r.await(t, m, Move.Done); m.State != Succeeded {
				t.Fatalf("the move %d is %s: %v", i, m.State, m.Fault.Err())
			}
			freezes, at = append(freezes, *m.FrozenMs), to
		}
		all := load.end()
		slices.Sort(freezes)
		t.Logf("%d moves in %s, %d writes, %d reads, freezes: median %d ms, p99 %d ms, longest %d ms", len(freezes), time.Since(begun).Round(time.Second),
			load.writes.Load(), load.reads.Load(), freezes[len(freezes)/2], freezes[len(freezes)*99/100], freezes[len(freezes)-1])
		r.check(t, store, at, all)
	})
}
