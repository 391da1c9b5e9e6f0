package masterdb_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// manyEntries adds n entries of the given age to the audit log.
func manyEntries(t *testing.T, db *masterdb.DB, action string, n int, age time.Duration) {
	t.Helper()
	query := `INSERT INTO audit_events (id, action, outcome, created_at)
		SELECT gen_random_uuid(), CAST($3 AS text), 'success', CAST($2 AS timestamptz) + i * interval '1 microsecond' FROM generate_series(1, CAST($1 AS integer)) i`
	if db.Engine == masterdb.SQLite {
		query = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $1)
			INSERT INTO audit_events (id, action, outcome, created_at) SELECT lower(hex(randomblob(16))), $3, 'success', $2 FROM n`
	}
	testkit.Must(t, exec(t, db, query, n, time.Now().UTC().Add(-age).Truncate(time.Microsecond), action))
}

func countEntries(t *testing.T, db *masterdb.DB, action string) (n int) {
	t.Helper()
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1`, action))
	return n
}

// TestExpiryOfAuditEntries checks that no statement can delete entries that have not
// expired by the database's own rule, and that no statement can change an entry.
func TestExpiryOfAuditEntries(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for i, c := range []struct {
			keep, age time.Duration // keep -1: the setting is not changed
			gone      bool
		}{
			{-1, 400*day - time.Minute, false},
			{-1, 400*day + time.Minute, true},
			{day, day - time.Minute, false},
			{day, day + time.Minute, true},
			{0, 10000 * day, false}, // forever
			{10 * 365 * day, 3000 * day, false},
			{400 * day, -day, false}, // written by a clock that is ahead
		} {
			if c.keep >= 0 {
				testkit.Must(t, audit.SetRetention(t.Context(), db, authz.Principal{}, c.keep))
			}
			action := fmt.Sprintf("old.%d", i)
			manyEntries(t, db, action, 1, c.age)
			if err := exec(t, db, `UPDATE audit_events SET details = 'forged' WHERE action = $1`, action); err == nil {
				t.Error("an entry was changed")
			}
			err := exec(t, db, `DELETE FROM audit_events WHERE action = $1`, action)
			if n := countEntries(t, db, action); (err == nil) != c.gone || (n == 0) != c.gone {
				t.Errorf("kept for %v, %v old: %v, %d are left, want it gone: %t", c.keep, c.age, err, n, c.gone)
			}
		}
		if err := audit.SetRetention(t.Context(), db, authz.Principal{}, time.Hour); !masterdb.IsCheck(err) {
			t.Errorf("an hour: %v, want that the table refuses it", err)
		}
		if n := countEntries(t, db, audit.RetentionSet); n != 4 {
			t.Errorf("%d changes of the retention are in the log", n)
		}
	})
}

// TestExpiryOfManyRows checks that 50,000 rows are deleted in batches while others are
// written, and that no row is deleted before it has expired.
func TestExpiryOfManyRows(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		const expired, fresh = 50_000, 200
		rule := audit.Expiry(400 * 24 * time.Hour)
		manyEntries(t, db, "old", expired, 500*24*time.Hour)
		manyEntries(t, db, "old", 1, 399*24*time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
		defer cancel()
		var slowest time.Duration
		var writing sync.WaitGroup
		writing.Go(func() {
			for range fresh {
				begin := time.Now()
				err := db.Tx(ctx, func(tx *masterdb.Tx) error {
					return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: "new"})
				})
				if err != nil {
					t.Error(err)
				}
				slowest = max(slowest, time.Since(begin))
			}
		})
		begin := time.Now()
		deleted, err := db.DeleteExpired(ctx, []masterdb.Expiry{rule})
		took := time.Since(begin)
		writing.Wait()
		testkit.Must(t, err)
		if old, now := countEntries(t, db, "old"), countEntries(t, db, "new"); old != 1 || now != fresh || deleted["audit_events"] != expired {
			t.Errorf("%d deleted; of the old %d are left, of the new %d", deleted["audit_events"], old, now)
		}
		t.Logf("%d rows in %v; the slowest write beside it took %v", expired, took.Round(time.Millisecond), slowest.Round(time.Millisecond))
	})
}

// TestExpiryIsBounded checks that one call deletes a limited number of rows, that a rule
// that keeps rows forever deletes nothing, and that an error of one rule does not stop the
// others.
func TestExpiryIsBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		rule := audit.Expiry(400 * 24 * time.Hour)
		rule.Batch = 2
		manyEntries(t, db, "old", 250, 500*24*time.Hour)
		for _, want := range []int64{200, 50, 0} {
			broken := masterdb.Expiry{Table: "nonsense", Key: []string{"id"}, Age: "created_at", Keep: time.Hour}
			deleted, err := db.DeleteExpired(t.Context(), []masterdb.Expiry{broken, audit.Expiry(0), rule})
			if err == nil || deleted["audit_events"] != want {
				t.Errorf("%v, %d deleted, want %d and an error of the first rule", err, deleted["audit_events"], want)
			}
		}
	})
}
