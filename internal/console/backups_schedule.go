package console

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) backupScheduleRoutes() []Route {
	manage := scopeOf(authz.ManageBackups)
	return []Route{
		{Pattern: "GET /stores/{slug}/backups/schedule", RouteOptions: view(manage), Handle: c.backupSchedule},
		{Pattern: "POST /stores/{slug}/backups/schedule", RouteOptions: form(manage), Handle: c.setBackupSchedule},
	}
}

// backupScheduleView fills the page that sets how often a store is backed up.
type backupScheduleView struct {
	Form     ui.Form
	Store    stores.Store
	Schedule backups.StoreSchedule
}

// chosen is the choice that is in use.
func (v backupScheduleView) chosen() string {
	if v.Schedule.Own {
		return ownSchedule
	}
	return platformSchedule
}

// The choices of a schedule.
const (
	ownSchedule      = "own"
	platformSchedule = "platform"
)

func (c *Console) backupSchedule(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return err
	}
	return c.showBackupSchedule(w, r, store, ui.Form{})
}

func (c *Console) showBackupSchedule(w http.ResponseWriter, r *Request, store stores.Store, f ui.Form) error {
	schedule, err := c.Backups.Schedule(r.Context(), r.Principal, store.ID)
	if err != nil {
		return err
	}
	return c.render(w, r, f.Status(), storeFrame(store, "backups", "Schedule of backups"), backupSchedulePage(backupScheduleView{f, store, schedule}))
}

func (c *Console) setBackupSchedule(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return err
	}
	own, err := sentSchedule(r)
	var set backups.StoreSchedule
	if err == nil {
		set, err = c.Backups.SetSchedule(r.Context(), r.Principal, store.ID, own, nil)
	}
	if err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showBackupSchedule(w, r, store, f)
	}
	return redirect(w, r, backupsPath(store), "Saved. "+scheduleWords(set.Schedule))
}

// sentSchedule returns the schedule of the form, or nil for that of the platform.
func sentSchedule(r *Request) (*backups.Schedule, error) {
	var faults stoa.Invalid
	switch r.PostForm.Get("use") {
	case platformSchedule:
		return nil, nil //nolint:nilnil // no schedule of its own
	case ownSchedule:
	default:
		faults.Add("use", "choose one")
	}
	var s backups.Schedule
	for name, number := range map[string]*int{"hourly": &s.Hourly, "daily": &s.Daily, "weekly": &s.Weekly, "monthly": &s.Monthly} {
		text := strings.TrimSpace(r.PostForm.Get(name))
		if text == "" {
			continue // none
		}
		n, err := strconv.Atoi(text)
		if err != nil {
			faults.Add(name, "must be a number")
		}
		*number = n
	}
	return &s, faults.Err()
}

// scheduleWords say how often backups are made and which are kept.
func scheduleWords(s backups.Schedule) string {
	interval := s.Interval()
	if interval == 0 {
		return "No backups are made unless somebody asks for one."
	}
	var kept []string
	for _, tier := range []struct {
		count int
		word  string
	}{{s.Hourly, "hourly"}, {s.Daily, "daily"}, {s.Weekly, "weekly"}, {s.Monthly, "monthly"}} {
		if tier.count > 0 {
			kept = append(kept, strconv.Itoa(tier.count)+" "+tier.word)
		}
	}
	last := len(kept) - 1
	words := kept[last]
	if last > 0 {
		words = strings.Join(kept[:last], ", ") + " and " + words
	}
	return "A backup is made every " + intervalWords(interval) + ". Of these, " + words + " are kept."
}

// intervalWords names the interval of a schedule.
func intervalWords(d time.Duration) string {
	const day = 24 * time.Hour
	switch {
	case d <= time.Hour:
		return "hour"
	case d <= day:
		return "day"
	case d <= 7*day:
		return "week"
	}
	return "month"
}
