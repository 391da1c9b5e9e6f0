package backups

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestParseSchedule(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Schedule{
		"none": {}, "daily=7": {Daily: 7}, "hourly=24, daily=7,weekly=4,monthly=12": {Hourly: 24, Daily: 7, Weekly: 4, Monthly: 12}, "daily=0": {},
	} {
		got, err := ParseSchedule(text)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if again, err := ParseSchedule(got.String()); err != nil || again != want {
			t.Errorf("%q is written as %q", text, got)
		}
	}
	for _, text := range []string{"", "yearly=1", "daily", "daily=x", "daily=-1", "daily=1001", "daily=1,daily=2", "daily=7,none"} {
		if s, err := ParseSchedule(text); err == nil {
			t.Errorf("%q is %+v", text, s)
		}
	}
}

// TestKeeps checks a year of daily archives against a schedule, and that archives which are
// deleted one after the other are those that are deleted at once.
func TestKeeps(t *testing.T) {
	t.Parallel()
	s := Schedule{Daily: 7, Weekly: 4, Monthly: 6}
	end := time.Date(2026, 11, 27, 3, 0, 0, 0, time.UTC)
	var made []time.Time
	for d := range 365 {
		made = append(made, end.AddDate(0, 0, -d))
	}
	count := func(keep []bool) (n int) {
		for _, k := range keep {
			if k {
				n++
			}
		}
		return n
	}
	keep := s.Keeps(made)
	// 7 days; 2 more weeks, since the newest archives of two are among the days; 5 more months.
	if n := count(keep); n != 7+2+5 {
		t.Errorf("%d of a year are kept", n)
	}
	for i := range 7 {
		if !keep[i] {
			t.Errorf("day %d is not kept", i)
		}
	}
	var thinned []time.Time
	for i := len(made) - 1; i >= 0; i-- {
		thinned = append([]time.Time{made[i]}, thinned...)
		kept := thinned[:0:0]
		for j, k := range s.Keeps(thinned) {
			if k {
				kept = append(kept, thinned[j])
			}
		}
		thinned = kept
	}
	if len(thinned) != count(keep) {
		t.Errorf("day by day %d are kept, at once %d", len(thinned), count(keep))
	}
	if got := (Schedule{}).Keeps(made[:3]); !got[0] || got[1] || got[2] {
		t.Errorf("without a schedule: %v, want the newest only", got)
	}
	if got := s.Keeps(nil); len(got) != 0 {
		t.Errorf("none: %v", got)
	}
}

// TestDue checks that each store is archived when it is due and once only, that what the
// schedule does not keep is deleted, and that a deleted store's archives and key go.
func TestDue(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{Schedule: Schedule{Daily: 2}, KeepDeleted: time.Hour}).start(t)
		p, s := f.store(t, credential.SQLite)
		due := func() { testkit.Must(t, f.RunDue(t.Context(), Due{})) }
		list := func() []Backup {
			page, err := f.List(t.Context(), p, s.ID, 0, "")
			testkit.Must(t, err)
			return page.Backups
		}
		due()
		if at, err := f.Schedule(t.Context(), p, s.ID); err != nil || at.Own || at.NextAt == nil || len(list()) != 0 {
			t.Fatalf("at first: %+v, %v, %d archives", at, err, len(list()))
		}
		for range 4 {
			f.exec(t, `UPDATE backup_schedules SET next_at = $1`, time.Now().UTC().Add(-time.Minute))
			before := list()
			due()
			due()
			// What the schedule does not keep may be deleted meanwhile.
			fresh := slices.DeleteFunc(list(), func(b Backup) bool {
				return slices.ContainsFunc(before, func(o Backup) bool { return o.ID == b.ID })
			})
			if len(fresh) != 1 {
				t.Fatalf("%d new archives, want 1", len(fresh))
			}
			f.checked(t, list()[0])
			// The next one is of another day.
			for i, b := range list() {
				f.exec(t, `UPDATE backups SET snapshot_at = $2 WHERE id = $1`, b.ID, time.Now().UTC().AddDate(0, 0, -i-1))
			}
		}
		testkit.Must(t, f.thin(t.Context(), s.ID))
		testkit.Eventually(t, time.Minute, "two archives are kept", func() bool { return len(list()) == 2 && len(f.files(t)) == 2 })

		own := Schedule{Hourly: 3}
		got, err := f.SetSchedule(t.Context(), p, s.ID, &own, nil)
		if err != nil || got.Schedule != own || !got.Own || time.Until(*got.NextAt) > time.Hour {
			t.Errorf("own schedule %+v, %v", got, err)
		}
		if _, err := f.SetSchedule(t.Context(), p, s.ID, &Schedule{Daily: -1}, nil); stoa.CodeOf(err) != stoa.InvalidRequest {
			t.Errorf("a negative number: %v", err)
		}
		f.exec(t, `UPDATE stores SET status = 'deleted', delete_after = $2 WHERE id = $1`, s.ID, time.Now().UTC().Add(-2*time.Hour))
		testkit.Eventually(t, time.Minute, "the deleted store's archives are gone, and then their key", func() bool {
			due() // it deletes the key when the last archive has no record, which goes after its file
			var keys int
			testkit.Must(t, f.db.Get(t.Context(), &keys, `SELECT count(*) FROM archive_keys`))
			return keys == 0
		})
		if left := f.files(t); len(left) != 0 {
			t.Errorf("the key is deleted while there are archives: %v", left)
		}
	})
}

// TestMoreIsDueThanTheQueueTakes checks that the job runs again soon while archives are due
// that it has not started, and no longer than that.
func TestMoreIsDueThanTheQueueTakes(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := setup(t, db, Options{Schedule: Schedule{Daily: 2}}) // its queue runs nothing
		owner, now := f.user(t), db.Now()
		const extra = 3
		for i := range maxWaiting + extra {
			id := stoa.NewID[stoa.StoreID]()
			f.exec(t, `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at) VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`,
				id, fmt.Sprintf("due-%03d", i), owner.UserID, now)
			f.exec(t, `INSERT INTO backup_schedules (store_id, next_at) VALUES ($1, $2)`, id, now.Add(-time.Minute))
		}
		want := func(what string, again bool, archives int) {
			t.Helper()
			err := f.RunDue(t.Context(), Due{})
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM backups`))
			if jobs.IsSnoozed(err) != again || !again && err != nil || n != archives {
				t.Errorf("%s: %v, %d archives; want %d, again %t", what, err, n, archives, again)
			}
		}
		want("all are due", true, maxWaiting)
		want("the queue is full", true, maxWaiting)
		f.exec(t, `UPDATE backups SET state = 'failed'`)
		want("the queue is empty", false, maxWaiting+extra)
		want("nothing is due", false, maxWaiting+extra)
	})
}

func TestNextDue(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for late, want := range map[time.Duration]time.Duration{0: time.Hour, time.Minute: time.Hour, time.Hour: 2 * time.Hour, 25*time.Hour + time.Second: 26 * time.Hour} {
		if got := nextDue(at, at.Add(late), time.Hour); !got.Equal(at.Add(want)) {
			t.Errorf("%v late: %v, want %v", late, got.Sub(at), want)
		}
	}
}
