package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/app"
	"github.com/stoahq/stoa/internal/backups"
	"github.com/stoahq/stoa/internal/stores"
)

// restoreBackup restores an archive into its store: the newest complete one unless id names
// one.
func restoreBackup(e *Env, store, id string, unsaved, yes, asJSON bool) error {
	return useStore(e.Ctx, e, store, func(ctx context.Context, a *app.App, s stores.Store) error {
		b, err := chooseBackup(ctx, a, s, id)
		if err != nil {
			return err
		}
		if !yes {
			kept := "Its present rows are archived first."
			if unsaved {
				kept = "Its present rows are lost."
			}
			what := fmt.Sprintf("This replaces the rows of %s (%s) with those of %s. %s", s.Slug, s.Name, b.SnapshotAt.UTC().Format(time.RFC3339), kept)
			if err := confirm(e, s, what); err != nil {
				return err
			}
		}
		r, err := runRestore(ctx, e, a, s, b, unsaved)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(e.Stdout).Encode(newRestoreRecord(r))
		}
		Printf(e.Stdout, "%s is restored from %s, as it was on %s.\n", s.Slug, b.ID, b.SnapshotAt.UTC().Format(time.RFC3339))
		return nil
	})
}

// runRestore restores an archive into its store, here or in the server that does.
func runRestore(ctx context.Context, e *Env, a *app.App, s stores.Store, b backups.Backup, unsaved bool) (backups.Restore, error) {
	r, err := a.Backups.RestoreByOperator(ctx, e.by, s.ID, b.ID, backups.RestoreOptions{Unsaved: unsaved})
	if err != nil {
		return r, err
	}
	p := &restoreProgress{out: e.Stderr, slug: s.Slug}
	r, err = a.Backups.FinishRestore(ctx, r, p.show)
	if err == nil && r.State == backups.Failed {
		err = errors.New(r.Fault.Message)
	}
	return r, err
}

// storesThat counts stores as the subject of a sentence, with the verb for one and for many.
func storesThat(n int, one, many string) string {
	if n == 1 {
		return "1 store " + one
	}
	return fmt.Sprintf("%d stores %s", n, many)
}

// restoreLost restores every store whose database is lost.
func restoreLost(e *Env, asJSON bool) error {
	a, err := e.openApp(e.Ctx)
	if err != nil {
		return err
	}
	defer a.Close(context.WithoutCancel(e.Ctx)) //nolint:errcheck // the changes are already committed
	restored, failed := 0, 0
	for last := (stoa.StoreID{}); ; {
		page, err := stores.ListAll(e.Ctx, a.Master, "", last, rowsAtOnce)
		if err != nil {
			return err
		}
		for _, s := range page {
			result, lost := restoreIfLost(e, a, s)
			if e.Ctx.Err() != nil {
				return e.Ctx.Err()
			}
			switch {
			case result.Error != "":
				failed++
			case lost:
				restored++
			default:
				continue
			}
			if err := result.print(e.Stdout, asJSON); err != nil {
				return err
			}
		}
		if len(page) < rowsAtOnce {
			break
		}
		last = page[len(page)-1].ID
	}
	Printf(e.Stderr, "%s restored.\n", storesThat(restored, "was", "were"))
	if failed > 0 {
		return errors.New(storesThat(failed, "could", "could") + " not be restored")
	}
	return nil
}

// lostResult is what became of a store whose database is lost, or could not be looked at.
type lostResult struct {
	StoreID    stoa.StoreID `json:"storeId"`
	Slug       string       `json:"slug"`
	SnapshotAt *time.Time   `json:"snapshotAt"` // of the archive
	Error      string       `json:"error,omitempty"`
}

func (r lostResult) print(w io.Writer, asJSON bool) error {
	switch {
	case asJSON:
		return json.NewEncoder(w).Encode(r)
	case r.Error != "":
		Printf(w, "%s: %s\n", r.Slug, r.Error)
	default:
		Printf(w, "%s is restored, as it was on %s.\n", r.Slug, r.SnapshotAt.UTC().Format(time.RFC3339))
	}
	return nil
}

// restoreIfLost restores a store if it has a database that is lost.
func restoreIfLost(e *Env, a *app.App, s stores.Store) (result lostResult, lost bool) {
	result = lostResult{StoreID: s.ID, Slug: s.Slug}
	if s.Status != stores.Active && s.Status != stores.Suspended {
		return result, false
	}
	var b backups.Backup
	lost, err := a.Backups.Lost(e.Ctx, s.ID)
	if err == nil && lost {
		if _, err = a.Backups.Discover(e.Ctx, e.by, s.ID); err == nil {
			b, err = chooseBackup(e.Ctx, a, s, "")
		}
		if err == nil {
			result.SnapshotAt = b.SnapshotAt
			_, err = runRestore(e.Ctx, e, a, s, b, false)
		}
	}
	if err != nil {
		result.Error = plain(err).Error()
	}
	return result, lost
}

// restoreRecord is a restore in the output. Its field names are those of the API.
type restoreRecord struct {
	ID       stoa.RestoreID `json:"id"`
	StoreID  stoa.StoreID   `json:"storeId"`
	BackupID stoa.BackupID  `json:"backupId"`
	SavedID  *stoa.BackupID `json:"savedId"`
}

func newRestoreRecord(r backups.Restore) restoreRecord {
	return restoreRecord{ID: r.ID, StoreID: r.StoreID, BackupID: r.BackupID, SavedID: r.SavedID}
}

// tenths returns how many tenths of the total are done.
func tenths(done, total int64) int64 { return 10 * min(done, total) / max(total, 1) }

// rowsOf returns the progress in rows. A total of 0 is not known.
func rowsOf(done, total int64) string {
	if total == 0 {
		return fmt.Sprintf("%d rows", done)
	}
	return fmt.Sprintf("%d of %d rows", done, max(done, total))
}

// restoreProgress prints each step of a restore, and a line for every tenth of its rows.
type restoreProgress struct {
	out  io.Writer
	slug string
	step string
	part int64
}

func (p *restoreProgress) show(r backups.Restore) {
	part := tenths(r.RowsDone, r.RowsTotal)
	if r.Step == p.step && part <= p.part {
		return
	}
	p.step, p.part = r.Step, part
	if r.RowsTotal == 0 {
		Printf(p.out, "%s: %s\n", p.slug, p.step)
	} else {
		Printf(p.out, "%s: %s, %s\n", p.slug, p.step, rowsOf(r.RowsDone, r.RowsTotal))
	}
}

// chooseBackup returns the archive with that id, or the newest complete one.
func chooseBackup(ctx context.Context, a *app.App, s stores.Store, id string) (found backups.Backup, err error) {
	err = eachBackup(ctx, a, s.ID, func(b backups.Backup) error {
		named, own := id == b.ID.String(), id == "" && b.Manifest.StoreID == s.ID && b.Origin != backups.Saved
		if b.State == backups.Succeeded && (named || own && (found.SnapshotAt == nil || b.SnapshotAt.After(*found.SnapshotAt))) {
			found = b
		}
		return nil
	})
	if err == nil && found.ID.IsZero() {
		err = errors.New("there is no such complete archive: stoa backups list " + s.Slug)
	}
	return found, err
}
