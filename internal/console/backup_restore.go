package console

import (
	"context"
	"net/http"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
)

func (c *Console) backupRestoreRoutes() []Route {
	restore, clone := scopeOf(authz.RestoreBackup), scopeOf(authz.DownloadBackup)
	return []Route{
		{Pattern: "GET /stores/{slug}/backups/{backup}/restore", RouteOptions: view(restore), Handle: c.confirmRestore},
		{Pattern: "POST /stores/{slug}/backups/{backup}/restore", RouteOptions: form(restore), Handle: c.restoreBackup},
		{Pattern: "GET /stores/{slug}/backups/{backup}/clone", RouteOptions: view(clone), Handle: c.newClone},
		{Pattern: "POST /stores/{slug}/backups/{backup}/clone", RouteOptions: databaseForm(clone), Handle: c.cloneBackup},
	}
}

// restoreView shows a restore with its steps.
type restoreView struct {
	backups.Restore
	Steps []progressStep
	Store stores.Store
}

// restoreSteps are the steps in their order.
var restoreSteps = []struct{ name, text string }{
	{"database", "Connect the new store’s database"},
	{"check", "Read the whole backup; nothing is changed if it is damaged"},
	{"close", "Close the store"},
	{"drain", "Wait until requests that use the database have ended"},
	{"save", "Back up the present rows"},
	{"load", "Load the rows of the backup"},
	{"undo", "Load the rows of before again"},
	{"open", "Open the store"},
}

// lastRestore returns the last restore into the store, or nil if there was none.
func (c *Console) lastRestore(ctx context.Context, r *Request, store stores.Store) (*restoreView, error) {
	last, err := c.Backups.LastRestore(ctx, r.Principal, store.ID)
	if stoa.CodeOf(err) == stoa.NotFound {
		return nil, nil //nolint:nilnil // none
	}
	if err != nil {
		return nil, err
	}
	return &restoreView{Restore: last, Steps: stepsOf(last), Store: store}, nil
}

// stepsOf returns the steps of a restore that is not done.
func stepsOf(r backups.Restore) (list []progressStep) {
	if r.Done() {
		return nil
	}
	skipped := map[string]bool{"database": !r.Clone(), "save": r.Clone() || r.Unsaved, "undo": r.Step != "undo"}
	running := false
	for _, s := range restoreSteps {
		current := s.name == r.Step
		running = running || current
		switch {
		case skipped[s.name]:
		case current && r.State == backups.Queued:
			list = append(list, waitingStep(s.text))
		case current:
			list = append(list, runningStep(s.text).rows(r.RowsDone, r.RowsTotal))
		case running:
			list = append(list, waitingStep(s.text))
		case s.name == "load" && r.Fault != nil:
			list = append(list, failedStep(s.text))
		default:
			list = append(list, doneStep(s.text))
		}
	}
	return list
}

// title says what the restore is.
func (v restoreView) title() string {
	switch {
	case v.Clone() && v.Done():
		return "This store was cloned from a backup"
	case v.Clone():
		return "This store is being cloned from a backup"
	case v.Done():
		return "Last restore"
	}
	return "A backup is being restored"
}

// advice says what a failed restore has left, and what to do.
func (v restoreView) advice() string {
	switch {
	case v.Clone():
		return "This store does not have the rows of the backup. Delete it and clone the backup again."
	case v.Step == "check":
		return "Nothing was changed."
	case v.SavedID != nil:
		return "The store has the rows of before."
	}
	return "Look at the store: if rows are missing, restore this or another backup again."
}

func (c *Console) confirmRestore(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.RestoreBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	return c.showRestore(w, r, store, b, ui.Form{})
}

func (c *Console) showRestore(w http.ResponseWriter, r *Request, store stores.Store, b backups.Backup, f ui.Form) error {
	last, err := c.lastRestore(r.Context(), r, store)
	if err != nil {
		return err
	}
	base := backupsPath(store) + "/" + b.ID.String()
	v := confirmView{
		Form: f, Title: "Restore the backup of " + backupTime(b).UTC().Format("2 January 2006, 15:04 UTC"), Name: store.Slug, Button: "Restore the backup",
		Action: base + "/restore", Back: base,
		Facts: []string{
			"All rows of the store are replaced with those of the backup: products, customers, orders, texts and settings.",
			"The backup is read first. If it is damaged, nothing is changed.",
			"The store is closed meanwhile. Shoppers see that it is closed for a moment.",
			"The present rows are backed up before they are replaced. Restore that backup to undo this one; it is kept for 30 days.",
			"Credits, people, domains and keys stay as they are.",
		},
	}
	if last != nil && last.State == backups.Failed {
		v.Check = &ui.Field{Name: "unsaved", Label: "The present rows cannot be backed up; they may be lost",
			Hint: "The last restore failed. Tick this only if it failed because the present rows could not be backed up, for instance because the database is damaged."}
	}
	return c.showConfirm(w, r, storeFrame(store, "backups", "Restore a backup"), v)
}

func (c *Console) restoreBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.RestoreBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	if f, ok := confirmed(r, store.Slug); !ok {
		return c.showRestore(w, r, store, b, f)
	}
	o := backups.RestoreOptions{Unsaved: r.PostForm.Get("unsaved") != ""}
	if _, err := c.Backups.Restore(r.Context(), r.Principal, store.ID, b.ID, o); err != nil {
		f, err := refused(r, err)
		if err != nil {
			return err
		}
		return c.showRestore(w, r, store, b, f)
	}
	return redirect(w, r, backupsPath(store), "")
}

// cloneView fills the page that makes a new store of a backup.
type cloneView struct {
	Form       ui.Form
	Store      stores.Store
	Backup     backups.Backup
	Key        string // makes a form that is sent twice make one store
	BaseDomain string
}

func (c *Console) newClone(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.DownloadBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	return c.showClone(w, r, cloneView{Store: store, Backup: b, Key: newFormKey()})
}

func (c *Console) showClone(w http.ResponseWriter, r *Request, v cloneView) error {
	v.BaseDomain = c.BaseDomain
	return c.render(w, r, v.Form.Status(), storeFrame(v.Store, "backups", "Clone a backup"), clonePage(v))
}

func (c *Console) cloneBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.DownloadBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	v := cloneView{Store: store, Backup: b, Key: r.PostForm.Get("key")}
	created, _, err := c.Backups.Clone(r.Context(), r.Principal, store.ID, b.ID, backups.Clone{
		New:     stores.NewStore{Name: r.PostForm.Get("name"), Slug: r.PostForm.Get("slug"), IdempotencyKey: v.Key},
		Without: slices.Clone(r.PostForm["without"]),
	})
	if stoa.CodeOf(err) == stoa.IdempotencyConflict {
		v.Key = newFormKey()
		err = stoa.Errorf(stoa.InvalidRequest, "This form has made a store already, which is in your list. Send it again to make another one.")
	}
	if err != nil {
		if v.Form, err = refused(r, err); err != nil {
			return err
		}
		return c.showClone(w, r, v)
	}
	return redirect(w, r, backupsPath(created), created.Name+" was created. It gets the rows of the backup now.")
}
