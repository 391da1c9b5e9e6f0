package console

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
)

func TestBackupWarnings(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	daily, message := backups.StoreSchedule{Schedule: backups.Schedule{Daily: 7}}, "It is damaged."
	ago := func(hours int) *time.Time {
		at := now.Add(-time.Duration(hours) * time.Hour)
		return &at
	}
	good := func(hours int) backups.Backup {
		return backups.Backup{Origin: backups.Scheduled, State: backups.Succeeded, SnapshotAt: ago(hours), CheckState: backups.CheckPassed, CheckRestored: true}
	}
	failed := backups.Backup{Origin: backups.Requested, State: backups.Failed, Fault: &provisioning.Fault{Code: stoa.TenantUnavailable, Message: "It did not answer."}}
	damaged := good(1)
	damaged.CheckState, damaged.CheckMessage = backups.CheckFailed, &message
	uploaded, waiting := good(1), backups.Backup{Origin: backups.Scheduled, State: backups.Queued}
	uploaded.Origin = backups.Uploaded
	for _, c := range []struct {
		what     string
		created  int // hours ago
		schedule backups.StoreSchedule
		list     []backups.Backup
		want     string // "": no warning
	}{
		{"a new store", 40, daily, nil, ""},
		{"an old store without a backup", 50, daily, nil, "There is no backup yet"},
		{"one that somebody uploaded", 50, daily, []backups.Backup{uploaded}, "There is no backup yet"},
		{"a good one", 9000, daily, []backups.Backup{good(40)}, ""},
		{"a good one, and the next waits", 9000, daily, []backups.Backup{waiting, good(40)}, ""},
		{"an old one", 9000, daily, []backups.Backup{waiting, good(50)}, "The newest backup is from 2 days ago"},
		{"an old one without a schedule", 9000, backups.StoreSchedule{}, []backups.Backup{good(5000)}, ""},
		{"a failed one", 9000, daily, []backups.Backup{failed, good(1)}, "The newest backup failed: It did not answer."},
		{"one that failed before", 9000, daily, []backups.Backup{good(1), failed}, ""},
		{"a damaged one", 9000, daily, []backups.Backup{damaged, good(25)}, "The newest backup cannot be used: It is damaged."},
	} {
		got := backupStateOf(stores.Store{CreatedAt: *ago(c.created)}, c.schedule, c.list, now).Warning
		if (got == "") != (c.want == "") || !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
}

func TestScheduleWords(t *testing.T) {
	t.Parallel()
	for want, s := range map[string]backups.Schedule{
		"A backup is made every hour. Of these, 24 hourly are kept.":                      {Hourly: 24},
		"A backup is made every day. Of these, 7 daily, 4 weekly and 6 monthly are kept.": backups.DefaultSchedule,
		"A backup is made every week. Of these, 2 weekly and 1 monthly are kept.":         {Weekly: 2, Monthly: 1},
		"No backups are made unless somebody asks for one.":                               {},
	} {
		if got := scheduleWords(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
}

func TestSizeWords(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 bytes", 999: "999 bytes", 1000: "1.0 kB", 999_949: "999.9 kB", 999_950: "1.0 MB", 64 << 30: "68.7 GB", 5e15: "5000.0 TB"} {
		if got := sizeWords(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

// TestRestoreSteps checks what is shown of a restore at each of its steps.
func TestRestoreSteps(t *testing.T) {
	t.Parallel()
	own, other := stoa.NewID[stoa.StoreID](), stoa.NewID[stoa.StoreID]()
	words := func(r backups.Restore) string {
		var list []string
		for _, s := range stepsOf(r) {
			list = append(list, s.State.Word)
		}
		return strings.Join(list, " ")
	}
	restore := backups.Restore{StoreID: own, SourceID: own, State: backups.Running, Step: "save"}
	clone := backups.Restore{StoreID: own, SourceID: other, State: backups.Queued, Step: "database"}
	unsaved, undone := restore, restore
	unsaved.Step, unsaved.Unsaved = "load", true
	undone.Step, undone.Fault = "undo", &provisioning.Fault{}
	for want, r := range map[string]backups.Restore{
		"Done Done Done Running Waiting Waiting":          restore,
		"Waiting Waiting Waiting Waiting Waiting Waiting": clone,
		"Done Done Done Running Waiting":                  unsaved,
		"Done Done Done Done Failed Running Waiting":      undone,
		"": {State: backups.Succeeded, Step: "open"},
	} {
		if got := words(r); got != want {
			t.Errorf("%s: %q, want %q", r.Step, got, want)
		}
	}
}
