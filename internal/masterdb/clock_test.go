package masterdb_test

import (
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSkewCorrection checks that small skews and small changes of a large skew are not
// corrected, because each measurement has a small error.
func TestSkewCorrection(t *testing.T) {
	t.Parallel()
	db := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	for _, c := range []struct{ ahead, want time.Duration }{
		{0, 0},
		{100 * time.Millisecond, 0},
		{-100 * time.Millisecond, 0},
		{20 * time.Second, -20 * time.Second},
		{20*time.Second + 50*time.Millisecond, -20 * time.Second},
		{21 * time.Second, -21 * time.Second},
		{-2 * time.Hour, 2 * time.Hour},
		{30 * time.Millisecond, 0},
	} {
		db.SetSkew(c.ahead)
		if db.Skew() != c.ahead || db.Correction() != c.want {
			t.Errorf("%s ahead: skew %s, correction %s, want %s", c.ahead, db.Skew(), db.Correction(), c.want)
		}
		if off := time.Until(db.Now()) - c.want; off.Abs() > time.Minute {
			t.Errorf("%s ahead: Now is off by %s", c.ahead, off)
		}
	}
}

// TestTransactionsGoByTheMastersClock checks that the rows of a process whose own clock is
// wrong have the master's time.
func TestTransactionsGoByTheMastersClock(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		db.SetSkew(2 * time.Hour)
		for name, run := range map[string]func(func(*masterdb.Tx) error) error{
			"TxReadCommitted": func(fn func(*masterdb.Tx) error) error { return db.TxReadCommitted(t.Context(), fn) },
			"Tx":              func(fn func(*masterdb.Tx) error) error { return db.Tx(t.Context(), fn) },
			"Within":          func(fn func(*masterdb.Tx) error) error { return db.Within(t.Context(), fn) },
		} {
			testkit.Must(t, run(func(tx *masterdb.Tx) error {
				if off := time.Until(tx.Now) + 2*time.Hour; off.Abs() > time.Minute {
					t.Errorf("%s: Now is off by %s", name, off)
				}
				return nil
			}))
		}
		ahead, err := db.MeasureSkew(t.Context())
		testkit.Must(t, err)
		if ahead.Abs() > 10*time.Second || db.Engine == masterdb.Postgres && db.Correction().Abs() > 10*time.Second {
			t.Errorf("measured on one machine: %s, corrected by %s", ahead, db.Correction())
		}
	})
}
