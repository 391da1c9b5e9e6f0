package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/masterbackup"
)

type backupCmd struct {
	Store  string `arg:"" optional:"" help:"Archive this store: its id, slug or hostname." placeholder:"STORE"`
	Master bool   `help:"Back up the master database: users, stores, credits, credentials (encrypted), jobs."`
	Output string `help:"Write to this file instead of the storage of backups. There may be no such file." placeholder:"FILE"`
	JSON   bool   `help:"Print JSON."`
}

// Validate is called by kong after it has read the flags.
func (cmd backupCmd) Validate() error {
	switch {
	case cmd.Master == (cmd.Store != ""):
		return errors.New("say what to back up: a store, or --master")
	case cmd.Store != "" && cmd.Output != "":
		return errors.New("--output goes with --master; 'stoa backups download' writes a store's archive into a file")
	}
	return nil
}

// Help is shown by 'stoa backup --help'.
func (backupCmd) Help() string {
	return "With a STORE it archives the store as it is now, as its schedule does. It may be in use meanwhile.\n\n" +
		"With --master it writes the whole master database as it is now into an encrypted archive, while servers use it. The archive is named master/TIME-ID.stoa " +
		"in the storage that STOA_BACKUP_STORAGE names.\n\n" +
		"The archive is encrypted for the public keys in STOA_BACKUP_RECIPIENTS, and only their identities open it: the master is needed when everything " +
		"else is lost, ENCRYPTION_KEY included. 'stoa keys generate --identity' makes such a pair. Keep the identity apart from the archives, and " +
		"ENCRYPTION_KEY with it: credentials in the archive are encrypted with that as well."
}

// masterBackup is the printed result of a backup or restore.
type masterBackup struct {
	Name     string              `json:"name"`
	Bytes    int64               `json:"bytes,omitempty"`
	Rows     int64               `json:"rows"`
	Seconds  float64             `json:"seconds"`
	Manifest masterbackup.Result `json:"manifest"`
}

func (cmd backupCmd) Run(e *Env) error {
	if cmd.Store != "" {
		return makeBackup(e, cmd.Store, cmd.JSON)
	}
	master, err := e.openMaster()
	if err != nil {
		return err
	}
	defer master.Close()
	recipients, err := e.Cfg.ArchiveRecipients()
	if err != nil {
		return fmt.Errorf("STOA_BACKUP_RECIPIENTS: %w", err)
	}
	if len(recipients) == 0 {
		return errors.New("STOA_BACKUP_RECIPIENTS is empty, and without it nobody could open a backup of the master database once ENCRYPTION_KEY is lost: " +
			"make a pair with 'stoa keys generate --identity' (or age-keygen), keep its AGE-SECRET-KEY-1… elsewhere, and set STOA_BACKUP_RECIPIENTS to its age1…")
	}
	started := time.Now()
	storage, name, err := cmd.destination(e, master.Now())
	if err != nil {
		return plain(err)
	}
	p := newTableProgress(e, cmd.JSON)
	var result masterbackup.Result
	file, err := storage.Create(e.Ctx, name, func(w io.Writer) error {
		result, err = masterbackup.Write(e.Ctx, master, w, masterbackup.WriteOptions{Sealed: doctor.SealedColumns(), OnTable: p.show}, recipients...)
		return err
	})
	p.end()
	if err != nil {
		return plain(err)
	}
	if err := e.record(master, audit.MasterBackedUp, map[string]string{"archive": name, "rows": strconv.FormatInt(result.Total.Rows, 10)}); err != nil {
		return err
	}
	return cmd.print(e, masterBackup{cmp.Or(cmd.Output, name), file.Bytes, result.Total.Rows, time.Since(started).Seconds(), result})
}

// destination returns where the backup goes, and its name there.
func (cmd backupCmd) destination(e *Env, now time.Time) (archive.Storage, string, error) {
	if cmd.Output != "" {
		path, err := filepath.Abs(cmd.Output)
		return archive.NewFolder(filepath.Dir(path)), filepath.Base(path), err
	}
	storage, err := e.Cfg.ArchiveStorage()
	if err != nil {
		return nil, "", err
	}
	notes, err := storage.Check(e.Ctx)
	for _, n := range notes {
		Printf(e.Stderr, "%s\n", n)
	}
	return storage, masterbackup.FileName(now, strings.ToLower(rand.Text())), err
}

func (cmd backupCmd) print(e *Env, b masterBackup) error {
	if cmd.JSON {
		return json.NewEncoder(e.Stdout).Encode(b)
	}
	h := b.Manifest.Head
	Printf(e.Stdout, "%s: %d rows of %d tables, %d bytes (%.1f s).\n", b.Name, b.Rows, len(b.Manifest.Tables), b.Bytes, b.Seconds)
	if len(h.NotIncluded) > 0 {
		Printf(e.Stdout, "Not included, because Stoa did not create it: %s.\n", strings.Join(h.NotIncluded, ", "))
	}
	if len(h.Keys) > 0 {
		Printf(e.Stdout, "Keep ENCRYPTION_KEY (%s) and the identity of the recipients; the backup has neither.\n", strings.Join(h.Keys, ", "))
	}
	return nil
}

// tableProgress shows the progress by tables: a bar on a terminal, and otherwise a line for
// every tenth of the tables.
type tableProgress struct {
	Bar
	out    io.Writer
	silent bool
}

func newTableProgress(e *Env, asJSON bool) *tableProgress {
	return &tableProgress{Bar: newBar(e.terminal, asJSON, "tables", "failed"), out: e.Stderr, silent: asJSON}
}

func (p *tableProgress) show(_ container.Summary, of int) {
	const parts = 10
	before := p.Done
	p.Total, p.Done = int64(of), p.Done+1
	switch {
	case p.silent:
	case p.terminal != nil:
		p.draw()
	case p.Done*parts/p.Total > before*parts/p.Total:
		Printf(p.out, "%s\n", p.text(time.Since(p.started)))
	}
}

// newestMaster returns the name of the newest backup of the master in the storage.
func newestMaster(ctx context.Context, storage archive.Storage) (newest string, err error) {
	err = storage.List(ctx, masterbackup.NamePrefix, func(s archive.Stored) error {
		newest = max(newest, s.Name)
		return nil
	})
	if err == nil && newest == "" {
		err = errors.New("the storage has no backup of a master database; check STOA_BACKUP_STORAGE")
	}
	return newest, err
}

// readIdentities reads the secret keys of a file as age-keygen writes it.
func readIdentities(path string) ([]age.Identity, error) {
	const most = 64 << 10
	file, err := os.Open(path) //nolint:gosec // the operator names it
	if err != nil {
		return nil, fmt.Errorf("--identity: %w", err)
	}
	defer file.Close() //nolint:errcheck // it was only read
	list, err := age.ParseIdentities(io.LimitReader(file, most))
	if err != nil { // its text could contain a key
		return nil, fmt.Errorf("--identity: %s is no file of secret keys such as AGE-SECRET-KEY-1…, as 'stoa keys generate --identity' and age-keygen print it", path)
	}
	return list, nil
}
