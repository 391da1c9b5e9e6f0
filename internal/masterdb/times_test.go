package masterdb_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// instants returns times whose text forms are easily sorted wrongly: whole seconds beside
// fractions, trailing zeros, other time zones.
func instants() []time.Time {
	second := time.Date(2026, 3, 29, 1, 0, 0, 0, time.UTC) // the hour that is skipped in Athens
	east, west := time.FixedZone("", 14*3600), time.FixedZone("", -11*3600-1800)
	return []time.Time{
		time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		second.Add(-time.Second),
		second.Add(-time.Microsecond),
		second,
		second.Add(time.Microsecond),
		second.Add(9 * time.Microsecond).In(east),
		second.Add(10 * time.Microsecond).In(west),
		second.Add(499999 * time.Microsecond),
		second.Add(500 * time.Millisecond),
		second.Add(500001 * time.Microsecond),
		second.Add(550 * time.Millisecond),
		second.Add(999999 * time.Microsecond),
		second.Add(time.Second).In(west),
		second.Add(time.Second + 100*time.Millisecond).In(east),
		time.Date(2999, 12, 31, 23, 59, 59, 999999000, time.UTC),
	}
}

func insertInstants(t *testing.T, db *masterdb.DB) {
	t.Helper()
	shuffled := instants()
	for i := range shuffled { // a fixed permutation that moves neighbours far apart
		j := (i * 7) % len(shuffled)
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for _, at := range shuffled {
			if err := addPrice(t.Context(), tx, "times", at); err != nil {
				return err
			}
		}
		return nil
	}))
}

func selectInstants(t *testing.T, q masterdb.Querier, where string, args ...any) []time.Time {
	t.Helper()
	var rows []struct{ EffectiveFrom time.Time }
	testkit.Must(t, q.Select(t.Context(), &rows, `
		SELECT effective_from FROM service_credit_costs WHERE service_key = 'times' AND `+where, args...))
	var out []time.Time
	for _, row := range rows {
		out = append(out, row.EffectiveFrom)
	}
	return out
}

func TestTimesComeBackInUTC(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		var now time.Time
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			now = tx.Now
			return addPrice(t.Context(), tx, "now", now)
		}))
		if now.Location() != time.UTC || now.Nanosecond()%1000 != 0 || time.Since(now).Abs() > time.Minute {
			t.Errorf("Tx.Now is %v, want the present in UTC and whole microseconds", now)
		}
		var row struct {
			EffectiveFrom time.Time
			Missing       *time.Time
		}
		testkit.Must(t, db.Get(t.Context(), &row, `
			SELECT effective_from, NULL AS missing FROM service_credit_costs WHERE service_key = 'now'`))
		if row.EffectiveFrom != now || row.Missing != nil { // == compares the time zone too
			t.Errorf("read back %#v, want %#v and no time", row.EffectiveFrom, now)
		}

		insertInstants(t, db)
		var want []time.Time
		for _, at := range instants() {
			want = append(want, at.UTC())
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			for name, q := range map[string]masterdb.Querier{"DB": db, "Tx": tx} {
				got := selectInstants(t, q, `true ORDER BY effective_from`)
				if diff := cmp.Diff(want, got, cmp.Comparer(sameInUTC)); diff != "" {
					t.Errorf("%s reads other times or another order (-want +got):\n%s", name, diff)
				}
			}
			return nil
		}))
	})
}

// sameInUTC also compares the time zone, which time.Equal does not.
func sameInUTC(a, b time.Time) bool {
	return a.Equal(b) && a.Location() == time.UTC && b.Location() == time.UTC
}

func TestTimesCompare(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		insertInstants(t, db)
		for i, at := range instants() {
			for operator, want := range map[string][]time.Time{
				"<": instants()[:i], "<=": instants()[:i+1], "=": instants()[i : i+1], ">": instants()[i+1:],
			} {
				got := selectInstants(t, db, `effective_from `+operator+` $1 ORDER BY effective_from`, at)
				if !slices.EqualFunc(got, want, time.Time.Equal) {
					t.Errorf("%s %v gives %v, want %v", operator, at, got, want)
				}
			}
		}
		// Times that a migration wrote as text are compared with times that Go writes.
		var seeded, total int
		opening := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		testkit.Must(t, db.Get(t.Context(), &seeded, `SELECT count(*) FROM service_credit_costs WHERE effective_from = $1`, opening))
		testkit.Must(t, db.Get(t.Context(), &total, `SELECT count(*) FROM service_credit_costs WHERE service_key <> 'times'`))
		if seeded != total || total == 0 {
			t.Errorf("%d of %d opening prices begin on %v", seeded, total, opening)
		}

		latest := selectInstants(t, db, `true ORDER BY effective_from DESC LIMIT 1`)
		if want := instants()[len(instants())-1:]; !slices.EqualFunc(latest, want, time.Time.Equal) {
			t.Errorf("the latest is %v, want %v", latest, want)
		}
	})
}
