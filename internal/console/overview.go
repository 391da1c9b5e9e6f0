package console

import (
	"net/http"
	"strconv"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/traffic"
)

func (c *Console) overviewRoutes() []Route {
	return []Route{{Pattern: "GET /stores/{slug}", RouteOptions: view(scopeOf(authz.ReadStore)), Handle: c.overview}}
}

// overviewView fills a store's first page.
type overviewView struct {
	Store    stores.Store
	State    ui.State
	URL      string // of the store's own page; empty while it answers nowhere
	Hostname string
	Database string
	Steps    []nextStep
	Events   []audit.Entry // nil for a role that may not read them
	Day      []traffic.Hour
	Backups  *backupState // nil for a role that may not see them, and without a database
}

// nextStep is what the store needs next.
type nextStep struct {
	Text, URL, Label string
	Kind             ui.Kind
}

const overviewEvents = 6

func (c *Console) overview(w http.ResponseWriter, r *Request) error {
	found, err := c.store(r)
	if err != nil {
		return err
	}
	store, err := c.Stores.Get(r.Context(), r.Principal, found.ID)
	if err != nil {
		return err
	}
	v := overviewView{Store: store, State: storeState(store), Hostname: primaryHostname(store), Database: "none", Steps: nextSteps(store)}
	if v.Hostname != "" && store.Status == stores.Active {
		v.URL = c.storeURL(v.Hostname)
	}
	if store.Database != nil {
		v.Database = databaseWords(store)
	}
	if v.Day, err = c.Traffic.Day(r.Context(), r.Principal, store.ID); err != nil {
		return err
	}
	if store.Role.Can(authz.ReadBackups) && (store.Status == stores.Active || store.Status == stores.Suspended) {
		if err := c.addBackups(r, &v); err != nil {
			return err
		}
	}
	if store.Role.Can(authz.ReadAudit) {
		log, err := authz.ReadAuditLog(r.Context(), c.Master, r.Principal, store.ID, audit.Filter{Limit: overviewEvents})
		if err != nil {
			return err
		}
		v.Events = log.Entries
	}
	return c.render(w, r, http.StatusOK, storeFrame(store, "overview", "Overview"), overviewPage(v))
}

// addBackups adds how well the store is backed up, and a restore that is in progress.
func (c *Console) addBackups(r *Request, v *overviewView) error {
	page, err := c.Backups.List(r.Context(), r.Principal, v.Store.ID, 0, "")
	if err != nil {
		return err
	}
	schedule, err := c.Backups.Schedule(r.Context(), r.Principal, v.Store.ID)
	if err != nil {
		return err
	}
	restore, err := c.lastRestore(r.Context(), r, v.Store)
	if err != nil {
		return err
	}
	state := backupStateOf(v.Store, schedule, page.Backups, c.Master.Now())
	v.Backups = &state
	if state.Warning != "" {
		v.Steps = append(v.Steps, nextStep{Text: state.Warning, URL: backupsPath(v.Store), Label: "Backups", Kind: ui.Warning})
	}
	if restore != nil && !restore.Done() {
		v.Steps = append(v.Steps, nextStep{Text: "A backup is being restored. The store is closed until that is done.", URL: backupsPath(v.Store), Label: "Watch", Kind: ui.Info})
	}
	return nil
}

// nextSteps says what a store lacks, the most urgent first.
func nextSteps(s stores.Store) (steps []nextStep) {
	base := "/stores/" + s.Slug
	switch s.Status {
	case stores.PendingDatabase:
		steps = append(steps, nextStep{Text: "The store has no database yet.", URL: base + "/connect", Label: "Connect its database", Kind: ui.Warning})
	case stores.Provisioning:
		steps = append(steps, nextStep{Text: "The database is being set up.", URL: base + "/provisioning", Label: "Watch", Kind: ui.Info})
	case stores.Suspended:
		text := "The store is suspended: shoppers see that it is closed."
		if s.SuspendedByOperator {
			text = "The platform has suspended this store. Write to its support to have it opened again."
		}
		steps = append(steps, nextStep{Text: text, URL: base + "/settings", Label: "Settings", Kind: ui.Warning})
	case stores.Deleting:
		steps = append(steps, nextStep{Text: "The store is being deleted.", URL: base + "/settings", Label: "Restore it", Kind: ui.Danger})
	case stores.Active, stores.Deleted:
	}
	if storeState(s) == ui.NeedsAttention && s.Database != nil {
		steps = append(steps, nextStep{Text: "Its database cannot be used: " + faultWords(s.Database.LastError), URL: base + "/database", Label: "See what to do", Kind: ui.Danger})
	}
	if s.Status == stores.Active && s.Credits != nil && s.Credits.Available() <= 0 {
		steps = append(steps, nextStep{Text: "The store has no credits. Services that cost credits are refused.", URL: base + "/credits", Label: "Buy credits", Kind: ui.Info})
	}
	return steps
}

// databaseWords describes a store's database in one line.
func databaseWords(s stores.Store) string {
	d := s.Database
	name := d.Engine.Title()
	switch d.Kind {
	case credential.Managed:
		name = "Managed " + name
	case credential.KindSupabase:
		name = "Supabase"
	case credential.KindPostgreSQL, credential.KindMySQL:
	}
	if d.SchemaVersion > 0 {
		name += ", schema " + strconv.FormatInt(d.SchemaVersion, 10)
	}
	return name
}
