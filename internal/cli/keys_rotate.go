package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
)

type keysListCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa keys list --help'.
func (keysListCmd) Help() string {
	return "Shows ids and counts rows of the master database; no key is shown. What is encrypted with a key that is missing here can only be " +
		"read again with that key: look for it in the configuration of before."
}

func (cmd keysListCmd) Run(e *Env) error {
	return e.withKeys(func(master *masterdb.DB, encryption, signing *keyring.Ring) error {
		list, err := listKeys(e.Ctx, master, encryption, signing)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return json.NewEncoder(e.Stdout).Encode(list)
		}
		return list.print(e.Stdout)
	})
}

type keysRotateCmd struct {
	JSON bool `help:"Print JSON."`
}

// Help is shown by 'stoa keys rotate --help'.
func (keysRotateCmd) Help() string {
	return "Replace ENCRYPTION_KEY in three steps, without a pause:\n\n" +
		"  1. 'stoa keys generate'; put the new key behind the old one (ENCRYPTION_KEY=old,new) and restart every server.\n" +
		"  2. Put it in front (new,old) and restart every server: they encrypt with the new key.\n" +
		"  3. Run this command with the same keys. It encrypts everything with the first of them and says which can go.\n\n" +
		"It may run beside 'stoa serve' and twice at once; when it was stopped, run it again. A backup of the database needs the keys of its time: " +
		"keep an old key as long as such backups.\n\n" +
		"Replace JWT_SECRET by the first two steps: access tokens signed with the old key hold until they expire, which takes JWT_EXPIRES_IN; then it " +
		"can go. Left out at once, it ends no session: everybody's software only has to refresh.\n\n" +
		"The exit status is 1 when something is not encrypted with the first key."
}

func (cmd keysRotateCmd) Run(e *Env) error {
	return e.withKeys(func(master *masterdb.DB, encryption, signing *keyring.Ring) error {
		p := &rotateProgress{Bar: newBar(e.terminal, cmd.JSON, "rows", "unreadable"), out: e.Stderr, silent: cmd.JSON}
		done, lost, err := keyrotation.Run(e.Ctx, master, encryption, doctor.SealedColumns(), p.show)
		p.end()
		if recordErr := e.record(master, audit.KeysRotated, map[string]string{
			"key": encryption.IDs()[0], "rows": strconv.FormatInt(done.Resealed, 10), "unreadable": strconv.FormatInt(done.Failed, 10),
		}); recordErr != nil {
			return errors.Join(err, recordErr)
		}
		if err != nil {
			return fmt.Errorf("%w; %d rows were encrypted anew: run this again to go on", err, done.Resealed)
		}
		list, err := listKeys(e.Ctx, master, encryption, signing)
		if err != nil {
			return err
		}
		out := Rotation{keyList: list, Resealed: done.Resealed, Unreadable: done.Failed, Rows: newLostRows(lost), Removable: list.removable(), Seconds: time.Since(p.started).Seconds()}
		if err := cmd.print(e.Stdout, out); err != nil {
			return err
		}
		if needed := list.needed(); needed > 0 {
			return fmt.Errorf("%d rows are not encrypted with the first key; give the missing keys and see that every server has the first, then run this again", needed)
		}
		return nil
	})
}

// Rotation is the printed result.
type Rotation struct {
	keyList
	Resealed   int64     `json:"resealed"`
	Unreadable int64     `json:"unreadable"`
	Rows       []lostRow `json:"unreadableRows"` // the first unreadable rows
	Removable  []string  `json:"removable"`      // ids of old keys that are no longer needed
	Seconds    float64   `json:"seconds"`
}

type lostRow struct {
	Column string `json:"column"`
	Row    string `json:"row"`
	Key    string `json:"key"`
	Cause  string `json:"cause"`
}

func newLostRows(lost []keyrotation.Lost) []lostRow {
	out := []lostRow{}
	for _, l := range lost {
		cause := "it was changed, or is another row's"
		if errors.Is(l.Cause, keyring.ErrUnknownKey) {
			cause = "its key is missing"
		}
		out = append(out, lostRow{Column: l.Column.String(), Row: l.Key, Key: l.KeyID, Cause: cause})
	}
	return out
}

func (cmd keysRotateCmd) print(w io.Writer, r Rotation) error {
	if cmd.JSON {
		return json.NewEncoder(w).Encode(r)
	}
	Printf(w, "%d rows encrypted anew, %d cannot be decrypted (%.1f s).\n", r.Resealed, r.Unreadable, r.Seconds)
	for _, l := range r.Rows {
		Printf(w, "  %s of %s, key %q: %s\n", l.Column, l.Row, l.Key, l.Cause)
	}
	for _, k := range r.Encryption {
		switch {
		case k.Current:
		case slices.Contains(r.Removable, k.ID):
			Printf(w, "Nothing needs key %q any more: it can be taken out of ENCRYPTION_KEY. Backups of before still need it.\n", k.ID)
		default:
			Printf(w, "Key %q is still needed: %s.%s\n", k.ID, k.uses(), note(!k.Configured, " It is missing in ENCRYPTION_KEY."))
		}
	}
	return nil
}

// keyList is the printed list of keys.
type keyList struct {
	Encryption []keyUse    `json:"encryption"`
	Signing    []signingID `json:"signing"`
}

type keyUse struct {
	ID         string           `json:"id"`
	Current    bool             `json:"current"`
	Configured bool             `json:"configured"`
	Rows       map[string]int64 `json:"rows"` // number of rows by column
}

type signingID struct {
	ID      string `json:"id"`
	Current bool   `json:"current"`
}

func listKeys(ctx context.Context, master *masterdb.DB, encryption, signing *keyring.Ring) (keyList, error) {
	var list keyList
	for i, id := range encryption.IDs() {
		list.Encryption = append(list.Encryption, keyUse{ID: id, Current: i == 0, Configured: true, Rows: map[string]int64{}})
	}
	for i, id := range signing.IDs() {
		list.Signing = append(list.Signing, signingID{id, i == 0})
	}
	counts, err := keyrotation.Counts(ctx, master, doctor.SealedColumns())
	for _, c := range counts {
		i := slices.IndexFunc(list.Encryption, func(k keyUse) bool { return k.ID == c.KeyID })
		if i < 0 {
			i = len(list.Encryption)
			list.Encryption = append(list.Encryption, keyUse{ID: c.KeyID, Rows: map[string]int64{}})
		}
		list.Encryption[i].Rows[c.Column.String()] += c.Rows
	}
	return list, err
}

func (k keyUse) total() (n int64) {
	for _, rows := range k.Rows {
		n += rows
	}
	return n
}

// uses returns a text that says what the key is needed for.
func (k keyUse) uses() string {
	var parts []string
	for _, c := range doctor.SealedColumns() {
		if n := k.Rows[c.String()]; n > 0 {
			parts = append(parts, fmt.Sprintf("%d × %s", n, c))
		}
	}
	if parts == nil {
		return "nothing"
	}
	return strings.Join(parts, ", ")
}

// removable returns the ids of the old keys that no value is encrypted with.
func (l keyList) removable() []string {
	out := []string{}
	for _, k := range l.Encryption {
		if !k.Current && k.total() == 0 {
			out = append(out, k.ID)
		}
	}
	return out
}

// needed returns the number of rows that are not encrypted with the current key.
func (l keyList) needed() (n int64) {
	for _, k := range l.Encryption {
		if !k.Current {
			n += k.total()
		}
	}
	return n
}

func (l keyList) print(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	Printf(table, "SETTING\tID\tUSE\tENCRYPTED WITH IT\n")
	for _, k := range l.Encryption {
		use := "decrypts"
		if k.Current {
			use = "encrypts"
		} else if !k.Configured {
			use = "MISSING"
		}
		Printf(table, "ENCRYPTION_KEY\t%s\t%s\t%s\n", k.ID, use, k.uses())
	}
	for _, k := range l.Signing {
		use := "verifies"
		if k.Current {
			use = "signs"
		}
		Printf(table, "JWT_SECRET\t%s\t%s\t\n", k.ID, use)
	}
	return table.Flush()
}

// rotateProgress shows a progress bar on a terminal, and otherwise prints a line for every
// tenth of the rows.
type rotateProgress struct {
	Bar
	out    io.Writer
	silent bool
}

func (p *rotateProgress) show(at keyrotation.Progress) {
	const parts = 10
	before := p.Done
	p.Total, p.Done, p.Failed = at.Total, at.Done, at.Failed
	switch {
	case p.silent:
	case p.terminal != nil:
		p.draw()
	case p.Done*parts/max(p.Total, 1) > before*parts/max(p.Total, 1):
		Printf(p.out, "%s\n", p.text(time.Since(p.started)))
	}
}
