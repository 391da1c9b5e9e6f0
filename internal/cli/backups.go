package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/stores"
)

type backupsCmd struct {
	List     backupsListCmd     `cmd:"" help:"List a store's archives, newest first."`
	Verify   backupsVerifyCmd   `cmd:"" help:"Read archives whole and check them, without restoring them."`
	Download backupsDownloadCmd `cmd:"" help:"Write an archive into a file, encrypted for a passphrase or a public key."`
	Discover backupsDiscoverCmd `cmd:"" help:"Put archives on record that are in the storage only."`
	Upload   backupsUploadCmd   `cmd:"" help:"Add an archive from a file, of this or another installation."`
	Clone    backupsCloneCmd    `cmd:"" help:"Make a new store with the rows of an archive."`
	Delete   backupsDeleteCmd   `cmd:"" help:"Delete an archive."`
}

// backupRecord is an archive in the output. Its field names are those of the API.
type backupRecord struct {
	ID         stoa.BackupID      `json:"id"`
	StoreID    stoa.StoreID       `json:"storeId"`
	Origin     backups.Origin     `json:"origin"`
	State      backups.State      `json:"state"`
	Bytes      int64              `json:"bytes"`
	Rows       int64              `json:"rows"`
	SnapshotAt *time.Time         `json:"snapshotAt"`
	KeepUntil  *time.Time         `json:"keepUntil"`
	Check      backups.CheckState `json:"check"`
	Error      string             `json:"error,omitempty"`
}

func newBackupRecord(b backups.Backup) backupRecord {
	r := backupRecord{
		ID: b.ID, StoreID: b.StoreID, Origin: b.Origin, State: b.State, Bytes: b.Bytes, Rows: b.RowCount, SnapshotAt: b.SnapshotAt, KeepUntil: b.KeepUntil, Check: b.CheckState,
	}
	if b.Fault != nil {
		r.Error = b.Fault.Message
	} else if b.CheckMessage != nil {
		r.Error = *b.CheckMessage
	}
	return r
}

type backupsListCmd struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	JSON  bool   `help:"Print JSON."`
}

// Help is shown by 'stoa backups list --help'.
func (backupsListCmd) Help() string {
	return "CHECK is the result of the last check: passed means that the archive was loaded into a temporary database, or read whole, and all rows are equal."
}

func (cmd backupsListCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		list := []backupRecord{}
		err := eachBackup(ctx, a, s.ID, func(b backups.Backup) error {
			list = append(list, newBackupRecord(b))
			return nil
		})
		if err != nil {
			return err
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(list)
		}
		w := tabwriter.NewWriter(e.Stdout, 0, 0, 2, ' ', 0)
		Printf(w, "ID\tSNAPSHOT\tORIGIN\tSTATE\tBYTES\tROWS\tCHECK\t\n")
		for _, b := range list {
			at := "-"
			if b.SnapshotAt != nil {
				at = b.SnapshotAt.UTC().Format(time.RFC3339)
			}
			Printf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\n", b.ID, at, b.Origin, b.State, b.Bytes, b.Rows, b.Check, b.Error)
		}
		return w.Flush()
	})
}

func eachBackup(ctx context.Context, a *app.App, store stoa.StoreID, use func(backups.Backup) error) error {
	for cursor := ""; ; {
		page, err := a.Backups.ListByOperator(ctx, store, 100, cursor)
		if err != nil {
			return err
		}
		for _, b := range page.Backups {
			if err := use(b); err != nil {
				return err
			}
		}
		if page.NextCursor == nil {
			return nil
		}
		cursor = *page.NextCursor
	}
}

type backupsVerifyCmd struct {
	Store  string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Backup string `help:"Only this archive. Unless told, all of the store." placeholder:"ID"`
	Drill  bool   `help:"Also load each into a temporary database and compare all rows."`
	JSON   bool   `help:"Print JSON, one line for each archive."`
}

// Help is shown by 'stoa backups verify --help'.
func (backupsVerifyCmd) Help() string {
	return "The exit status is 1 if an archive is damaged, incomplete, missing, or cannot be opened with the keys at hand. It may run beside 'stoa serve'."
}

func (cmd backupsVerifyCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		failed, checked := 0, 0
		err := eachBackup(ctx, a, s.ID, func(b backups.Backup) error {
			if b.State != backups.Succeeded || cmd.Backup != "" && cmd.Backup != b.ID.String() {
				return nil
			}
			begin := time.Now()
			fault := a.Backups.CheckByOperator(ctx, s.ID, b.ID, cmd.Drill)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			checked++
			result := verifyResult{ID: b.ID, OK: fault == nil, Seconds: time.Since(begin).Seconds()}
			if fault != nil {
				failed++
				result.Error = plain(fault).Error()
			}
			return cmd.print(e.Stdout, result)
		})
		switch {
		case err != nil:
			return err
		case checked == 0:
			return errors.New("there is no complete archive to check: stoa backups list " + s.Slug)
		case failed > 0:
			return fmt.Errorf("%d of %d archives cannot be used", failed, checked)
		}
		return nil
	})
}

type verifyResult struct {
	ID      stoa.BackupID `json:"id"`
	OK      bool          `json:"ok"`
	Seconds float64       `json:"seconds"`
	Error   string        `json:"error,omitempty"`
}

func (cmd backupsVerifyCmd) print(w io.Writer, r verifyResult) error {
	switch {
	case cmd.JSON:
		return json.NewEncoder(w).Encode(r)
	case r.OK:
		Printf(w, "%s: good (%.1f s)\n", r.ID, r.Seconds)
	default:
		Printf(w, "%s: %s\n", r.ID, r.Error)
	}
	return nil
}

type backupsDiscoverCmd struct {
	Store string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	JSON  bool   `help:"Print JSON."`
}

// Help is shown by 'stoa backups discover --help'.
func (backupsDiscoverCmd) Help() string {
	return "After the master database was restored, archives that were made later are in the storage and not on record. They are read whole; what cannot be used is left out."
}

func (cmd backupsDiscoverCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		found, err := a.Backups.Discover(ctx, e.by, s.ID)
		if err != nil {
			return err
		}
		list := make([]backupRecord, len(found))
		for i, b := range found {
			list[i] = newBackupRecord(b)
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(list)
		}
		for _, b := range list {
			Printf(e.Stdout, "%s: %d rows of %s\n", b.ID, b.Rows, b.SnapshotAt.UTC().Format(time.RFC3339))
		}
		Printf(e.Stdout, "%d archives of %s were not on record.\n", len(list), s.Slug)
		return nil
	})
}

type backupsDeleteCmd struct {
	Store  string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Backup string `arg:"" help:"The archive's id." placeholder:"ID"`
	Yes    bool   `help:"Do not ask."`
	JSON   bool   `help:"Print JSON."`
}

func (cmd backupsDeleteCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		id, err := backupID(cmd.Backup)
		if err != nil {
			return err
		}
		if !cmd.Yes {
			if err := confirm(e, s, fmt.Sprintf("This deletes the archive %s of %s (%s) for good.", id, s.Slug, s.Name)); err != nil {
				return err
			}
		}
		if err := a.Backups.DeleteByOperator(ctx, e.by, s.ID, id); err != nil {
			return err
		}
		if err := a.Backups.FinishDelete(ctx, id); err != nil { // without a server, nobody else would
			return err
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(map[string]any{"id": id, "storeId": s.ID, "deleted": true})
		}
		Printf(e.Stdout, "The archive %s of %s is deleted.\n", id, s.Slug)
		return nil
	})
}

type backupsDownloadCmd struct {
	Store      string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	Backup     string `arg:"" help:"The archive's id." placeholder:"ID"`
	Output     string `required:"" help:"The file; there may be none of this name." placeholder:"FILE"`
	Recipient  string `help:"A public key (age1…) to encrypt the file for. Unless told, STOA_ARCHIVE_PASSPHRASE is the passphrase." placeholder:"KEY"`
	Passphrase string `env:"STOA_ARCHIVE_PASSPHRASE" hidden:""`
	JSON       bool   `help:"Print JSON."`
}

// Help is shown by 'stoa backups download --help'.
func (backupsDownloadCmd) Help() string {
	return "'age-keygen -o key.txt' makes a key. 'age --decrypt' and 'zstd' read such a file, and 'stoa backups upload' of any installation. docs/archive-format.md describes it."
}

// Validate is called by kong after it has read the flags.
func (cmd backupsDownloadCmd) Validate() error {
	if cmd.Recipient == "" && cmd.Passphrase == "" {
		return errors.New("say what the file is encrypted with: --recipient age1…, or a passphrase in STOA_ARCHIVE_PASSPHRASE")
	}
	return nil
}

func (cmd backupsDownloadCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		id, err := backupID(cmd.Backup)
		if err != nil {
			return err
		}
		key := backups.FileKey{Recipient: cmd.Recipient}
		if cmd.Recipient == "" {
			key.Passphrase = keyring.NewSecret(cmd.Passphrase)
		}
		d, err := a.Backups.DownloadByOperator(ctx, e.by, s.ID, id, key)
		if err != nil {
			return err
		}
		file, err := os.OpenFile(cmd.Output, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return err
		}
		err = errors.Join(d.WriteTo(ctx, file), file.Sync(), file.Close())
		if err != nil {
			return errors.Join(err, os.Remove(cmd.Output))
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(map[string]any{"id": id, "storeId": s.ID, "file": cmd.Output})
		}
		Printf(e.Stdout, "%s: the archive %s of %s\n", cmd.Output, id, s.Slug)
		return nil
	})
}

type backupsUploadCmd struct {
	Store      string `arg:"" help:"Its id, slug or hostname." placeholder:"STORE"`
	File       string `arg:"" help:"The archive." type:"existingfile" placeholder:"FILE"`
	Identity   string `help:"File with the secret key (AGE-SECRET-KEY-1…) that opens it. Unless told, STOA_ARCHIVE_PASSPHRASE is the passphrase." type:"existingfile" placeholder:"FILE"`
	Passphrase string `env:"STOA_ARCHIVE_PASSPHRASE" hidden:""`
	JSON       bool   `help:"Print the archive as JSON."`
}

// Help is shown by 'stoa backups upload --help'.
func (backupsUploadCmd) Help() string {
	return "The archive is encrypted anew for the store, and read whole. Then 'stoa restore STORE --backup ID' restores it, if it is of this store."
}

// Validate is called by kong after it has read the flags.
func (cmd backupsUploadCmd) Validate() error {
	if cmd.Identity == "" && cmd.Passphrase == "" {
		return errors.New("say what opens the file: --identity FILE, or the passphrase in STOA_ARCHIVE_PASSPHRASE")
	}
	return nil
}

func (cmd backupsUploadCmd) Run(e *Env) error {
	return useStore(e.Ctx, e, cmd.Store, func(ctx context.Context, a *app.App, s stores.Store) error {
		key := backups.FileKey{Passphrase: keyring.NewSecret(cmd.Passphrase)}
		if cmd.Identity != "" {
			identities, err := readIdentities(cmd.Identity)
			if err != nil {
				return err
			}
			key = backups.FileKey{Identity: keyring.NewSecret(fmt.Sprint(identities[0]))}
		}
		file, err := os.Open(cmd.File)
		if err != nil {
			return err
		}
		defer file.Close() //nolint:errcheck // it was only read
		b, err := a.Backups.UploadByOperator(ctx, e.by, s.ID, key, file)
		if err != nil {
			return err
		}
		return printBackup(e.Stdout, b, s, cmd.JSON)
	})
}

// makeBackup archives a store now.
func makeBackup(e *Env, store string, asJSON bool) error {
	return useStore(e.Ctx, e, store, func(ctx context.Context, a *app.App, s stores.Store) error {
		b, err := a.Backups.MakeByOperator(ctx, e.by, s.ID)
		if err != nil {
			return err
		}
		last := 0
		b, err = a.Backups.Finish(ctx, b, func(b backups.Backup) {
			if b.State == backups.Running && b.Done.Tables > last {
				last = b.Done.Tables
				Printf(e.Stderr, "%d of %d tables, %d rows are archived\n", last, b.Done.OfTables, b.Done.Rows)
			}
		})
		if err != nil {
			return err
		}
		if b.State == backups.Failed {
			return errors.New(b.Fault.Message)
		}
		return printBackup(e.Stdout, b, s, asJSON)
	})
}

func printBackup(w io.Writer, b backups.Backup, s stores.Store, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(newBackupRecord(b))
	}
	Printf(w, "%s: %d rows of %s, %d bytes. A server checks it in the background: stoa backups list %s\n", b.ID, b.RowCount, s.Slug, b.Bytes, s.Slug)
	return nil
}

func backupID(text string) (stoa.BackupID, error) {
	id, err := stoa.ParseID[stoa.BackupID](text)
	if err != nil {
		return id, fmt.Errorf("%q is no id of an archive: 'stoa backups list STORE' shows them", text)
	}
	return id, nil
}
