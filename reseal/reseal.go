// Package reseal brings what is encrypted in the master database under the
// current key, and counts what each key is still needed for. The rooms that
// keep such values say where (Column); what they mean is nobody's business here.
package reseal

import (
	"context"
	"fmt"

	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

// Column holds envelopes of keyring.Seal, one per row; NULL or empty where there
// is none. Its names are written into SQL: they are constants of the code.
type Column struct {
	Table string
	Key   string                  // the table's primary key: one column, of ids
	Name  string                  // the column
	Owner func(key string) string // what a row's envelope is bound to
}

func (c Column) String() string { return c.Table + "." + c.Name }

// filled is the condition that a row has an envelope.
func (c Column) filled() string { return fmt.Sprintf("%s IS NOT NULL AND %s <> ''", c.Name, c.Name) }

// Count is how many rows of a column ask for a key. KeyID is "" for what is no
// envelope at all.
type Count struct {
	Column Column
	KeyID  string
	Rows   int64
}

// Counts tells which keys the columns' rows ask for.
func Counts(ctx context.Context, db *masterdb.DB, columns []Column) ([]Count, error) {
	// The second of the parts between dots; see keyring.Seal.
	keyID := `CASE WHEN substr(%[1]s, 1, 3) = 'v1.' THEN split_part(%[1]s, '.', 2) ELSE '' END`
	if db.Engine == masterdb.SQLite {
		keyID = `CASE WHEN substr(%[1]s, 1, 3) = 'v1.' THEN substr(%[1]s, 4, max(instr(substr(%[1]s, 4), '.') - 1, 0)) ELSE '' END`
	}
	var out []Count
	for _, c := range columns {
		var rows []struct {
			KeyID string
			Rows  int64
		}
		err := db.Select(ctx, &rows, fmt.Sprintf(`SELECT `+keyID+` AS key_id, count(*) AS rows FROM %[2]s WHERE %[3]s GROUP BY 1 ORDER BY 1`,
			c.Name, c.Table, c.filled()))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		for _, r := range rows {
			out = append(out, Count{c, r.KeyID, r.Rows})
		}
	}
	return out, nil
}

// Progress is how far a run is, in rows. Failed are those that cannot be
// decrypted; of those that changed meanwhile nothing is said.
type Progress struct {
	Total, Done, Resealed, Failed int64
}

// Lost is a row that cannot be decrypted.
type Lost struct {
	Column Column
	Key    string // of the row
	KeyID  string // what its envelope asks for
	Cause  error  // keyring.ErrUnknownKey or keyring.ErrTampered
}

// maxLost bounds the list of Run, not what is counted.
const maxLost = 100

// run is one run over all columns.
type run struct {
	db   *masterdb.DB
	ring *keyring.Ring
	show func(Progress)
	at   Progress
	lost []Lost
}

// Run encrypts every row anew that is not under the ring's current key, a few
// at a time, and tells show after each few. It may be stopped and run again,
// beside servers at work and beside itself: a row is replaced only if it is
// still what was decrypted, so that a change of its value meanwhile stays. A
// row that cannot be decrypted is left as it is and listed, up to 100 of them.
func Run(ctx context.Context, db *masterdb.DB, ring *keyring.Ring, columns []Column, show func(Progress)) (Progress, []Lost, error) {
	r := &run{db: db, ring: ring, show: show}
	counts, err := Counts(ctx, db, columns)
	if err != nil {
		return r.at, nil, err
	}
	current, _ := ring.Current()
	for _, c := range counts {
		if c.KeyID != current {
			r.at.Total += c.Rows
		}
	}
	for _, c := range columns {
		if err := r.column(ctx, c); err != nil {
			return r.at, r.lost, fmt.Errorf("%s: %w", c, err)
		}
	}
	return r.at, r.lost, nil
}

// few rows are changed in one transaction, which on SQLite keeps every other
// writer waiting.
const few = 100

// row is one envelope.
type row struct{ Key, Envelope string }

// column walks by the primary key, so that rows that cannot be decrypted do
// not come again.
func (r *run) column(ctx context.Context, c Column) error {
	id, _ := r.ring.Current()
	current := "v1." + id + "."
	query := fmt.Sprintf(`SELECT CAST(%[1]s AS text) AS key, %[2]s AS envelope FROM %[3]s
		WHERE %[4]s AND substr(%[2]s, 1, %[5]d) <> $1 AND %[1]s > $2 ORDER BY %[1]s LIMIT %[6]d`,
		c.Key, c.Name, c.Table, c.filled(), len(current), few)
	after := "00000000-0000-0000-0000-000000000000" // before every id
	for {
		var rows []row
		if err := r.db.Select(ctx, &rows, query, current, after); err != nil {
			return err
		}
		if len(rows) == 0 {
			return nil
		}
		if err := r.batch(ctx, c, rows); err != nil {
			return err
		}
		r.show(r.at)
		after = rows[len(rows)-1].Key
	}
}

func (r *run) batch(ctx context.Context, c Column, rows []row) error {
	renewed := map[row]string{}
	for _, old := range rows {
		plain, err := r.ring.Open(old.Envelope, c.Owner(old.Key))
		if err != nil {
			r.at.Failed++
			if len(r.lost) < maxLost {
				r.lost = append(r.lost, Lost{c, old.Key, keyring.KeyID(old.Envelope), err})
			}
			continue
		}
		if renewed[old], err = r.ring.Seal(plain, c.Owner(old.Key)); err != nil {
			return err
		}
	}
	update := fmt.Sprintf(`UPDATE %[1]s SET %[2]s = $1 WHERE %[3]s = $2 AND %[2]s = $3`, c.Table, c.Name, c.Key)
	var changed int64
	err := r.db.Tx(ctx, func(tx *masterdb.Tx) error {
		changed = 0
		for _, old := range rows { // in the order of the ids, as every other run, so that two never wait for each other
			envelope, ok := renewed[old]
			if !ok {
				continue
			}
			n, err := tx.Exec(ctx, update, envelope, old.Key, old.Envelope)
			if err != nil {
				return err
			}
			changed += n
		}
		return nil
	})
	r.at.Resealed += changed
	r.at.Done = min(r.at.Done+int64(len(rows)), r.at.Total)
	return err
}
