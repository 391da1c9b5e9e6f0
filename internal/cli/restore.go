package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/masterbackup"
	"github.com/stoahq/stoa/internal/masterdb"
)

type restoreCmd struct {
	Source   string `arg:"" optional:"" help:"The store: its id, slug or hostname. With --master the backup: a file, a name in the storage of backups such as master/…, or 'newest'." placeholder:"STORE|FILE"`
	Backup   string `help:"The store's archive. Unless told, the newest complete one." placeholder:"ID"`
	Lost     bool   `help:"Restore every store whose database is lost, from its newest archive."`
	Unsaved  bool   `help:"Do not archive the store's present rows first, because they cannot be archived: they are lost."`
	Yes      bool   `help:"Do not ask."`
	Master   bool   `help:"Restore the master database."`
	Identity string `help:"File with a secret key (AGE-SECRET-KEY-1…) that the backup of the master was made for." placeholder:"FILE"`
	JSON     bool   `help:"Print JSON."`
}

// Validate is called by kong after it has read the flags.
func (cmd restoreCmd) Validate() error {
	switch {
	case cmd.Lost && (cmd.Source != "" || cmd.Master || cmd.Backup != "" || cmd.Unsaved):
		return errors.New("--lost goes with no store and no other flag than --yes and --json")
	case !cmd.Lost && cmd.Source == "":
		return errors.New("say what to restore: a store, --lost, or --master with a backup")
	case cmd.Master && cmd.Identity == "":
		return errors.New("--identity names the file of the secret key that opens the backup")
	case cmd.Master && (cmd.Backup != "" || cmd.Unsaved):
		return errors.New("--backup and --unsaved are of a store, and do not go with --master")
	case !cmd.Master && cmd.Identity != "":
		return errors.New("--identity goes with --master; 'stoa backups upload' adds a store's archive that other keys open")
	}
	return nil
}

// Help is shown by 'stoa restore --help'.
func (restoreCmd) Help() string {
	return "With a STORE it replaces the store's rows with those of its newest archive. The archive is read whole first; the store is closed for the time " +
		"of the restore; its present rows are archived before. If its database is lost and managed, it is created anew. It may run beside 'stoa serve'.\n\n" +
		"With --lost it does so for every store whose database is there no more or empty, after the master database was restored. Archives that only the storage " +
		"knows are found. It restores no store whose database has the store, and none whose database does not answer.\n\n" +
		"With --master it creates the master database that is configured here from a backup by 'stoa backup --master'. It must be empty: there may be no file yet, or nothing in " +
		"the database on PostgreSQL. The engine must be that of the backup; the release that of the backup or a newer one.\n\n" +
		"All rows are compared with the checksums of the backup. Until everything is there no server starts; when the command was interrupted, run it again. " +
		"All sessions end: everybody signs in again. What was written after the backup is lost; what was revoked after it, such as API keys, has to be revoked again."
}

func (cmd restoreCmd) Run(e *Env) error {
	if cmd.Lost {
		return restoreLost(e, cmd.JSON)
	}
	if !cmd.Master {
		return restoreBackup(e, cmd.Source, cmd.Backup, cmd.Unsaved, cmd.Yes, cmd.JSON)
	}
	if err := e.Cfg.Check(); err != nil {
		return fmt.Errorf("configuration:\n%w", err)
	}
	identities, err := readIdentities(cmd.Identity)
	if err != nil {
		return err
	}
	if e.Cfg.MasterSessionURL() != "" { // it goes there alone, which must be the pooler's database
		master, err := e.Cfg.OpenMasterDB(e.Ctx)
		if err != nil {
			return plain(err)
		}
		master.Close()
	}
	source, name, err := cmd.open(e)
	if err != nil {
		return plain(err)
	}
	defer source.Close()
	started := time.Now()
	p := newTableProgress(e, cmd.JSON)
	result, err := masterbackup.Restore(e.Ctx, e.Cfg.MasterServerURL(), source, masterbackup.RestoreOptions{
		OnHead: func(h masterbackup.Head) error { return e.checkHead(h) }, OnTable: p.show,
		Finish: func(ctx context.Context, tx *masterdb.Tx, h masterbackup.Head) error {
			return e.finishRestore(ctx, tx, h, name)
		},
	}, identities...)
	p.end()
	if err != nil {
		return plain(err)
	}
	b := masterBackup{Name: name, Rows: result.Total.Rows, Seconds: time.Since(started).Seconds(), Manifest: result}
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(b)
	}
	Printf(e.Stdout, "The master database is as it was at %s: %d rows of %d tables (%.1f s).\nNext: restore the stores whose databases are lost, then 'stoa doctor --fleet' and 'stoa credits verify'.\n",
		result.Head.SnapshotAt.Format(time.RFC3339), b.Rows, len(result.Tables), b.Seconds)
	return nil
}

// open opens the backup and returns its name.
func (cmd restoreCmd) open(e *Env) (io.ReadCloser, string, error) {
	if !strings.HasPrefix(cmd.Source, masterbackup.NamePrefix) && cmd.Source != "newest" {
		file, err := os.Open(cmd.Source)
		return file, cmd.Source, err
	}
	storage, err := e.Cfg.ArchiveStorage()
	if err != nil {
		return nil, "", err
	}
	name := cmd.Source
	if name == "newest" {
		if name, err = newestMaster(e.Ctx, storage); err != nil {
			return nil, "", err
		}
	}
	source, err := storage.Open(e.Ctx, name)
	return source, name, err
}

// checkHead shows what the backup is, and which of its keys are missing here.
func (e *Env) checkHead(h masterbackup.Head) error {
	Printf(e.Stderr, "Backup of %s on %s %s by Stoa %s, schema version %d.\n", h.SnapshotAt.Format(time.RFC3339), h.Engine, h.EngineVersion, h.Release, h.SchemaVersion)
	var have []string
	if !e.Cfg.EncryptionKey.IsZero() || !config.Missing(e.Cfg.KeyFile()) { // Rings would make a key file
		encryption, _, err := e.Cfg.Rings()
		if err != nil {
			return err
		}
		have = encryption.IDs()
	}
	missing := slices.DeleteFunc(slices.Clone(h.Keys), func(id string) bool { return slices.Contains(have, id) })
	if len(missing) > 0 {
		Printf(e.Stderr, "Warning: ENCRYPTION_KEY here lacks the keys %s (it has %s). Credentials of stores in the backup are encrypted with them and stay unreadable until they are configured.\n",
			strings.Join(missing, ", "), cmp.Or(strings.Join(have, ", "), "none"))
	}
	return nil
}

// finishRestore ends in the restored master what must not go on, and records the restore.
func (e *Env) finishRestore(ctx context.Context, tx *masterdb.Tx, h masterbackup.Head, name string) error {
	ended, err := accounts.EndAll(ctx, tx)
	if err != nil {
		return err
	}
	return audit.Record(ctx, tx, e.by, audit.Event{Action: audit.MasterRestored, Details: map[string]string{
		"archive": name, "snapshotAt": h.SnapshotAt.Format(time.RFC3339Nano), "release": h.Release, "sessionsEnded": strconv.FormatInt(ended, 10),
	}})
}
