package console

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/a-h/templ"

	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/console/ui"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (c *Console) singleBackupRoutes() []Route {
	read, manage := scopeOf(authz.ReadBackups), scopeOf(authz.ManageBackups)
	return []Route{
		{Pattern: "GET /stores/{slug}/backups/{backup}", RouteOptions: view(read), Handle: c.backup},
		{Pattern: "GET /stores/{slug}/backups/{backup}/live", RouteOptions: stream(read), Handle: c.followBackup},
		{Pattern: "POST /stores/{slug}/backups/{backup}/check", RouteOptions: form(scopeOf(authz.MakeBackup)), Handle: c.checkBackup},
		{Pattern: "GET /stores/{slug}/backups/{backup}/delete", RouteOptions: view(manage), Handle: c.confirmBackupDeletion},
		{Pattern: "POST /stores/{slug}/backups/{backup}/delete", RouteOptions: form(manage), Handle: c.deleteBackup},
	}
}

// backupView fills the page of one backup.
type backupView struct {
	Store   stores.Store
	Backup  backups.Backup
	Base    string // the address of the page
	Creator string // who asked for it; empty: the schedule
	Foreign bool   // it is of another store: it can be cloned, not restored

	MayCheck, MayRestore, MayDownload, MayDelete bool
}

func (c *Console) backup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadBackups)
	if err != nil {
		return err
	}
	v, err := c.readBackup(r.Context(), r, store)
	if err != nil {
		return err
	}
	frame := storeFrame(store, "backups", "Backup")
	if backupBusy(v.Backup) {
		frame.Refresh = backupRefresh
	}
	return c.render(w, r, http.StatusOK, frame, backupPage(v))
}

func (c *Console) readBackup(ctx context.Context, r *Request, store stores.Store) (backupView, error) {
	b, err := c.backupNamed(&Request{Request: r.WithContext(ctx), Principal: r.Principal}, store)
	if err != nil {
		return backupView{}, err
	}
	complete := b.State == backups.Succeeded
	v := backupView{
		Store: store, Backup: b, Base: backupsPath(store) + "/" + b.ID.String(), Foreign: complete && b.Manifest.StoreID != store.ID,
		MayCheck:    complete && b.CheckState != backups.CheckQueued && may(r, store, authz.MakeBackup),
		MayDownload: complete && may(r, store, authz.DownloadBackup),
		MayDelete:   may(r, store, authz.ManageBackups),
	}
	v.MayRestore = complete && !v.Foreign && may(r, store, authz.RestoreBackup)
	if b.CreatedBy != nil {
		names, err := c.memberNames(r, store)
		if err != nil {
			return v, err
		}
		if v.Creator = names[*b.CreatedBy]; v.Creator == "" {
			v.Creator = "somebody who is no member now"
		}
	}
	return v, nil
}

// followBackup sends the page's part whenever the backup changes.
func (c *Console) followBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ReadBackups)
	if err != nil {
		return err
	}
	return c.serveLive(w, r, nil, func(ctx context.Context) (templ.Component, bool, error) {
		v, err := c.readBackup(ctx, r, store)
		return backupPart(v), !backupBusy(v.Backup), err
	})
}

func (c *Console) checkBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.MakeBackup)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	if _, err := c.Backups.Check(r.Context(), r.Principal, store.ID, b.ID); err != nil {
		return err
	}
	return redirect(w, r, backupsPath(store)+"/"+b.ID.String(), "")
}

func (c *Console) confirmBackupDeletion(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	return c.showBackupDeletion(w, r, store, b, ui.Form{})
}

func (c *Console) showBackupDeletion(w http.ResponseWriter, r *Request, store stores.Store, b backups.Backup, f ui.Form) error {
	base := backupsPath(store) + "/" + b.ID.String()
	return c.showConfirm(w, r, storeFrame(store, "backups", "Delete a backup"), confirmView{
		Form: f, Title: "Delete the backup of " + backupTime(b).UTC().Format("2 January 2006, 15:04 UTC"), Name: store.Slug, Button: "Delete the backup",
		Action: base + "/delete", Back: base,
		Facts: []string{"The file is deleted from the storage. It cannot be brought back.", "The store and its other backups stay as they are."},
	})
}

func (c *Console) deleteBackup(w http.ResponseWriter, r *Request) error {
	store, err := c.storeFor(r, authz.ManageBackups)
	if err != nil {
		return err
	}
	b, err := c.backupNamed(r, store)
	if err != nil {
		return err
	}
	f, ok := confirmed(r, store.Slug)
	if ok {
		if err := c.Backups.Delete(r.Context(), r.Principal, store.ID, b.ID); err == nil {
			return redirect(w, r, backupsPath(store), "The backup was deleted.")
		} else if f, err = refused(r, err); err != nil {
			return err
		}
	}
	return c.showBackupDeletion(w, r, store, b, f)
}

// engineOf names the database system that a backup was made of.
func engineOf(m backups.Manifest) string {
	return engineWords("", credential.EngineName(m.Engine)) + " " + m.EngineVersion
}

// sizeWords formats a number of bytes.
func sizeWords(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	if n < 1000 {
		return fmt.Sprintf("%d bytes", n)
	}
	size, unit := float64(n)/1000, 0
	for size >= 999.95 && unit < len(units)-1 {
		size /= 1000
		unit++
	}
	return fmt.Sprintf("%.1f %s", size, units[unit])
}

// tookWords formats how long a check took.
func tookWords(milliseconds *int64) string {
	if milliseconds == nil {
		return ""
	}
	var from time.Time
	to := from.Add(time.Duration(*milliseconds) * time.Millisecond)
	return duration(&from, &to)
}
