package cli

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/stores"
)

type backupsCloneCmd struct {
	Store   string   `arg:"" help:"The archive's store: its id, slug or hostname." placeholder:"STORE"`
	Backup  string   `arg:"" help:"The archive's id." placeholder:"ID"`
	Name    string   `required:"" help:"The new store's name." placeholder:"NAME"`
	Slug    string   `help:"The first part of its address. Unless told, it is made of the name." placeholder:"SLUG"`
	Without []string `help:"Leave out customers, and with them orders, or only orders. May be repeated." enum:"customers,orders" placeholder:"WHAT"`
	JSON    bool     `help:"Print JSON."`
}

// Help is shown by 'stoa backups clone --help'.
func (backupsCloneCmd) Help() string {
	return "The new store belongs to the owner of the archive's store and gets a managed database. It has none of the other's credits, keys, hostnames and members. " +
		"The archive stays as it is, and so does its store. Quotas do not stop it.\n\n" +
		"An archive of another installation can be cloned as well: first add it by 'stoa backups upload'. After an interruption the same command goes on where it was; " +
		"a server that runs goes on by itself. It may run beside 'stoa serve'."
}

// cloneRecord is a clone in the output. Its field names are those of the API.
type cloneRecord struct {
	StoreID stoa.StoreID  `json:"storeId"`
	Slug    string        `json:"slug"`
	Restore restoreRecord `json:"restore"`
}

func (cmd backupsCloneCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		id, err := backupID(cmd.Backup)
		if err != nil {
			return err
		}
		created, r, err := a.Backups.CloneByOperator(ctx, e.by, s.ID, id, backups.Clone{
			New: stores.NewStore{Name: cmd.Name, Slug: cmd.Slug}, Without: cmd.Without,
		})
		switch stoa.CodeOf(err) { //nolint:exhaustive // the others need no hint
		case stoa.NotFound:
			return errors.New("there is no complete archive of this id: 'stoa backups list " + s.Slug + "' shows them")
		case stoa.HostnameTaken:
			return errors.New(plain(err).Error() + " Give another one with --slug")
		}
		if err != nil {
			return err
		}
		p := &restoreProgress{out: e.Stderr, slug: created.Slug}
		if r, err = a.Backups.FinishClone(ctx, r, p.show); err != nil {
			return err
		}
		if r.State == backups.Failed {
			return errors.New(r.Fault.Message + " ('stoa stores delete " + created.Slug + "' deletes the new store.)")
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(cloneRecord{created.ID, created.Slug, newRestoreRecord(r)})
		}
		Printf(e.Stdout, "%s is a new store (%s) with the rows of %s.\n", created.Slug, created.ID, r.BackupID)
		return nil
	})
}
