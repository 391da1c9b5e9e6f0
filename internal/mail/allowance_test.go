package mail_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

var fivePerHour = mail.Allowance{Name: "test", Burst: 5, Every: 12 * time.Minute}

// take takes one mail as if the given time had passed.
func take(t *testing.T, db *masterdb.DB, a mail.Allowance, key string, later time.Duration) time.Duration {
	t.Helper()
	var wait time.Duration
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		tx.Now = tx.Now.Add(later)
		var err error
		wait, err = a.Take(t.Context(), tx, key)
		return err
	}))
	return wait
}

func TestAllowance(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for i := range 5 {
			if wait := take(t, db, fivePerHour, "a", 0); wait != 0 {
				t.Fatalf("mail %d waits %s", i+1, wait)
			}
		}
		wait := take(t, db, fivePerHour, "a", 0)
		if wait <= 11*time.Minute || wait > 12*time.Minute {
			t.Errorf("the sixth waits %s, want 12 minutes", wait)
		}
		if again := take(t, db, fivePerHour, "a", time.Minute); again > wait-50*time.Second {
			t.Errorf("a refusal counts: %s after %s", again, wait)
		}
		if wait := take(t, db, fivePerHour, "b", 0); wait != 0 {
			t.Errorf("another key waits %s", wait)
		}
		if wait := take(t, db, mail.Allowance{Name: "other", Burst: 1, Every: time.Hour}, "a", 0); wait != 0 {
			t.Errorf("another kind waits %s", wait)
		}
		if wait := take(t, db, mail.Allowance{Name: "test"}, "a", 0); wait != 0 {
			t.Errorf("without a limit: %s", wait)
		}
		if wait := take(t, db, fivePerHour, "a", 13*time.Minute); wait != 0 {
			t.Errorf("one more after its time waits %s", wait)
		}
		if wait := take(t, db, fivePerHour, "a", 13*time.Minute); wait == 0 {
			t.Error("two more after the time of one")
		}
		for i := range 5 { // after a long time the whole burst is available, and no more
			if wait := take(t, db, fivePerHour, "a", 100*time.Hour); wait != 0 {
				t.Errorf("mail %d waits %s after a long time", i+1, wait)
			}
		}
		if wait := take(t, db, fivePerHour, "a", 100*time.Hour); wait == 0 {
			t.Error("a sixth after a long time")
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return fivePerHour.Forget(t.Context(), tx, "a") }))
		if wait := take(t, db, fivePerHour, "a", 0); wait != 0 {
			t.Errorf("after it was forgotten: %s", wait)
		}
	})
}

// TestConcurrentAllowance checks that, of 20 concurrent calls, exactly the burst succeeds.
func TestConcurrentAllowance(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		var passed atomic.Int32
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if take(t, db, fivePerHour, "a", 0) == 0 {
					passed.Add(1)
				}
			})
		}
		wg.Wait()
		if passed.Load() != 5 {
			t.Errorf("%d of 20 passed, want 5", passed.Load())
		}
	})
}

func TestPurgeAllowances(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		take(t, db, fivePerHour, "over", -time.Hour)
		take(t, db, fivePerHour, "counts", 0)
		testkit.Must(t, mail.PurgeAllowances(t.Context(), db))
		var left []string
		testkit.Must(t, db.Select(t.Context(), &left, `SELECT key FROM mail_allowances`))
		if len(left) != 1 || left[0] != "counts" {
			t.Errorf("left: %v", left)
		}
	})
}
