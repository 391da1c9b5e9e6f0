package console

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) backupRoutes() []Route {
	read := scopeOf(authz.ReadBackups)
	return []Route{
		{Pattern: "GET /stores/{slug}/backups", RouteOptions: view(read), Handle: c.backups},
		{Pattern: "GET /stores/{slug}/backups/live", RouteOptions: stream(read), Handle: c.followBackups},
		{Pattern: "POST /stores/{slug}/backups", RouteOptions: form(scopeOf(authz.MakeBackup)), Handle: c.makeBackup},
	}
}

// backupsView fills the page of a store's backups.
type backupsView struct {
	Form     ui.Form
	Store    stores.Store
	Schedule backups.StoreSchedule
	Restore  *restoreView // the last one into this store
	Backups  []backupRow
	Warning  string
	pager
	MayMake   bool
	MayManage bool
	cursor    string
	// Busy: something is being made, checked or restored.
	Busy bool
}

// backupRow is one backup of a list.
type backupRow struct {
	backups.Backup
	URL string
}

// backupRefresh is how often a page without JavaScript shows the progress of a backup or
// a restore.
const backupRefresh = 5 * time.Second

// livePath is the address of the events, with the place in the list.
func (v backupsView) livePath() string {
	path := backupsPath(v.Store) + "/live"
	if v.cursor != "" {
		path += "?cursor=" + url.QueryEscape(v.cursor)
	}
	return path
}

func backupsPath(s stores.Store) string { return "/stores/" + s.Slug + "/backups" }

func (c *Console) backups(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadBackups)
	if err != nil {
		return err
	}
	return c.showBackups(w, r, store, ui.Form{})
}

func (c *Console) showBackups(w http.ResponseWriter, r *Request, store stores.Store, f ui.Form) error {
	v, err := c.readBackups(r.Context(), r, store)
	if err != nil {
		return err
	}
	v.Form = f
	frame := storeFrame(store, "backups", "Backups")
	if v.Busy {
		frame.Refresh = backupRefresh
	}
	return c.render(w, r, f.Status(), frame, backupsPage(v))
}

func (c *Console) readBackups(ctx context.Context, r *Request, store stores.Store) (backupsView, error) {
	v := backupsView{Store: store, MayMake: may(r, store, authz.MakeBackup) && store.Database != nil, MayManage: may(r, store, authz.ManageBackups)}
	var err error
	if v.Schedule, err = c.Backups.Schedule(ctx, r.Principal, store.ID); err != nil {
		return v, err
	}
	if v.Restore, err = c.lastRestore(ctx, r, store); err != nil {
		return v, err
	}
	v.cursor = r.URL.Query().Get("cursor")
	page, err := c.Backups.List(ctx, r.Principal, store.ID, 0, v.cursor)
	if err != nil {
		return v, err
	}
	for _, b := range page.Backups {
		v.Backups = append(v.Backups, backupRow{Backup: b, URL: backupsPath(store) + "/" + b.ID.String()})
		v.Busy = v.Busy || backupBusy(b)
	}
	v.pager = newPager(r, page.NextCursor)
	v.Busy = v.Busy || v.Restore != nil && !v.Restore.Done()
	if v.cursor == "" {
		v.Warning = backupStateOf(store, v.Schedule, page.Backups, c.Master.Now()).Warning
	}
	return v, nil
}

// backupBusy reports whether a backup is being made or checked.
func backupBusy(b backups.Backup) bool {
	return b.State == backups.Queued || b.State == backups.Running || b.State == backups.Succeeded && b.CheckState == backups.CheckQueued
}

// followBackups sends the list and the restore whenever they change.
func (c *Console) followBackups(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadBackups)
	if err != nil {
		return err
	}
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readBackups(ctx, r, store)
		return backupsPart(v), !v.Busy, err
	})
}

func (c *Console) makeBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MakeBackup)
	if err != nil {
		return err
	}
	if _, err := c.Backups.Make(r.Context(), r.Principal, store.ID); err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showBackups(w, r, store, f)
	}
	return redirect(w, r, backupsPath(store), "The backup is being made. You can leave this page.")
}

// backupState says how well a store is backed up.
type backupState struct {
	Last    *backups.Backup // the newest complete one of the store's own rows
	Warning string
}

// backupStateOf judges the newest backups, the newest first. A store is not well backed up
// when the newest attempt failed or cannot be used, or when there is no backup within two
// intervals of the schedule.
func backupStateOf(store stores.Store, schedule backups.StoreSchedule, list []backups.Backup, now time.Time) backupState {
	ended := func(b backups.Backup) bool {
		return b.Origin != backups.Uploaded && (b.State == backups.Succeeded || b.State == backups.Failed)
	}
	var v backupState
	if i := slices.IndexFunc(list, func(b backups.Backup) bool { return ended(b) && b.State == backups.Succeeded }); i >= 0 {
		v.Last = &list[i]
	}
	since := store.CreatedAt
	if v.Last != nil && v.Last.SnapshotAt != nil {
		since = *v.Last.SnapshotAt
	}
	newest := slices.IndexFunc(list, ended)
	interval := schedule.Interval()
	switch {
	case newest >= 0 && list[newest].State == backups.Failed:
		v.Warning = "The newest backup failed: " + backupFault(list[newest])
	case v.Last != nil && v.Last.CheckState == backups.CheckFailed:
		v.Warning = "The newest backup cannot be used: " + *v.Last.CheckMessage
	case interval > 0 && now.Sub(since) > 2*interval && v.Last == nil:
		v.Warning = "There is no backup yet, although the schedule asks for one every " + intervalWords(interval) + "."
	case interval > 0 && now.Sub(since) > 2*interval:
		v.Warning = "The newest backup is from " + ui.RelativeTime(since, now) + ", although the schedule asks for one every " + intervalWords(interval) + "."
	}
	return v
}

// backupFault says why a backup failed.
func backupFault(b backups.Backup) string {
	if b.Fault == nil {
		return "the cause is not known."
	}
	return b.Fault.Message
}

// backupCheck describes the result of a backup's last check.
func backupCheck(b backups.Backup) ui.State {
	switch {
	case b.State != backups.Succeeded:
		return ui.State{}
	case b.CheckState == backups.CheckQueued:
		return ui.State{Word: "Being checked", Kind: ui.Info, Icon: "clock"}
	case b.CheckState == backups.CheckFailed:
		return ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}
	case b.CheckState == backups.CheckPassed && b.CheckRestored:
		return ui.State{Word: "Restored and equal", Kind: ui.Success, Icon: "check"}
	case b.CheckState == backups.CheckPassed:
		return ui.State{Word: "Read whole", Kind: ui.Success, Icon: "check"}
	}
	return ui.State{Word: "Not checked", Kind: ui.Warning, Icon: "info"}
}

// backupStateWord returns a backup's state in the console's vocabulary.
func backupStateWord(b backups.Backup) ui.State {
	switch b.State {
	case backups.Queued:
		return ui.State{Word: "Waiting", Kind: ui.Info, Icon: "clock"}
	case backups.Running:
		return ui.State{Word: "Running", Kind: ui.Info, Icon: "play"}
	case backups.Succeeded:
		return ui.State{Word: "Complete", Kind: ui.Success, Icon: "check"}
	case backups.Failed:
		return ui.State{Word: "Failed", Kind: ui.Danger, Icon: "alert"}
	case backups.Deleting:
	}
	return ui.Deleting
}

// originWords say why there is a backup.
var originWords = map[backups.Origin]string{
	backups.Requested: "Asked for",
	backups.Scheduled: "Schedule",
	backups.Saved:     "Saved before a restore",
	backups.Uploaded:  "Uploaded",
}

// keptWords say how long a backup without a date is kept.
func keptWords(b backups.Backup) string {
	if b.Origin == backups.Scheduled {
		return "as the schedule says"
	}
	return "until you delete it"
}

// backupTime is the time whose rows a backup has, or when it was asked for.
func backupTime(b backups.Backup) time.Time {
	if b.SnapshotAt != nil {
		return *b.SnapshotAt
	}
	return b.CreatedAt
}

// backupNamed returns the backup that the path names.
func (c *Console) backupNamed(r *Request, store stores.Store) (backups.Backup, error) {
	id, err := stoa.ParseID[stoa.BackupID](r.PathValue("backup"))
	if err != nil {
		return backups.Backup{}, stoa.Errorf(stoa.NotFound, "This store has no such backup. It may have been deleted.")
	}
	return c.Backups.Get(r.Context(), r.Principal, store.ID, id)
}

// askPasswordFirst answers a form that holds a secret or a file when the password is not
// recent: neither is kept, so its page, which has the same path, follows.
func askPasswordFirst(w http.ResponseWriter, r *Request, err error) error {
	if stoa.CodeOf(err) != stoa.ReauthenticationRequired {
		return err
	}
	http.Redirect(w, r.Request, "/reauthenticate?next="+url.QueryEscape(r.URL.Path), http.StatusSeeOther)
	return nil
}
