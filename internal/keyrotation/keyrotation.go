// Package keyrotation encrypts the encrypted values of the master database again with the
// current key, and counts how many values need each key. The packages that store such
// values describe their columns with Column.
package keyrotation

import (
	"context"
	"fmt"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Column is a column of envelopes of keyring.Seal; NULL or empty is no envelope.
// Its names become part of SQL, so they must be constants of the code.
type Column struct {
	Table string
	Key   string                  // the table's primary key: a single column of ids
	Name  string                  // the column
	Owner func(key string) string // returns the owner to which a row's envelope is bound
}

func (c Column) String() string { return c.Table + "." + c.Name }

// filled returns the SQL condition that a row has an envelope.
func (c Column) filled() string { return fmt.Sprintf("%s IS NOT NULL AND %s <> ''", c.Name, c.Name) }

// Count is the number of rows of a column that need a key. KeyID is "" for values
// that are not envelopes.
type Count struct {
	Column Column
	KeyID  string
	Rows   int64
}

// Counts returns which keys the rows of the columns need. It reads some columns at a time:
// each takes a scan of its table.
func Counts(ctx context.Context, db *masterdb.DB, columns []Column) ([]Count, error) {
	const atATime = 3
	lists := make([][]Count, len(columns))
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(atATime)
	for i := range columns {
		readers.Go(func() (err error) {
			lists[i], err = CountsIn(ctx, db, db.Engine, columns[i:i+1])
			return err
		})
	}
	if err := readers.Wait(); err != nil {
		return nil, err
	}
	return slices.Concat(lists...), nil
}

// CountsIn is Counts within a snapshot or transaction of a master of that engine.
func CountsIn(ctx context.Context, q masterdb.Querier, engine masterdb.Engine, columns []Column) ([]Count, error) {
	// The key id is the second of the parts between dots; see keyring.Seal.
	keyID := `CASE WHEN substr(%[1]s, 1, 3) = 'v1.' THEN split_part(%[1]s, '.', 2) ELSE '' END`
	if engine == masterdb.SQLite {
		keyID = `CASE WHEN substr(%[1]s, 1, 3) = 'v1.' THEN substr(%[1]s, 4, max(instr(substr(%[1]s, 4), '.') - 1, 0)) ELSE '' END`
	}
	var out []Count
	for _, c := range columns {
		var rows []struct {
			KeyID string
			Rows  int64
		}
		err := q.Select(ctx, &rows, fmt.Sprintf(`SELECT `+keyID+` AS key_id, count(*) AS rows FROM %[2]s WHERE %[3]s GROUP BY 1 ORDER BY 1`,
			c.Name, c.Table, c.filled()))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c, err)
		}
		for _, r := range rows {
			out = append(out, Count{Column: c, KeyID: r.KeyID, Rows: r.Rows})
		}
	}
	return out, nil
}

// Progress is the progress of a run, in rows. Failed rows cannot be decrypted. Rows
// that were changed during the run are in Done only.
type Progress struct {
	Total, Done, Resealed, Failed int64
}

// Lost is a row that cannot be decrypted.
type Lost struct {
	Column Column
	Key    string // the primary key of the row
	KeyID  string // the key that its envelope needs
	Cause  error  // keyring.ErrUnknownKey or keyring.ErrTampered
}

// maxLost limits the list that Run returns. The count is not limited.
const maxLost = 100

// run holds the state of one Run over all columns.
type run struct {
	db   *masterdb.DB
	ring *keyring.Ring
	show func(Progress)
	at   Progress
	lost []Lost
}

// Run encrypts every row that is not encrypted with the ring's current key again,
// in batches, and calls show after each batch. It may be interrupted and repeated,
// and may run while servers and other runs do: a row is replaced only if it has
// not changed since it was decrypted. It does not change rows that cannot be
// decrypted, and returns up to 100 of them.
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

// batchSize is how many rows one transaction changes. On SQLite, other writers wait
// meanwhile.
const batchSize = 100

// row is an envelope and its key.
type row struct{ Key, Envelope string }

// column processes a column in the order of the primary key, so that rows that
// cannot be decrypted are read once.
func (r *run) column(ctx context.Context, c Column) error {
	id, _ := r.ring.Current()
	current := "v1." + id + "."
	query := fmt.Sprintf(`SELECT CAST(%[1]s AS text) AS key, %[2]s AS envelope FROM %[3]s
		WHERE %[4]s AND substr(%[2]s, 1, %[5]d) <> $1 AND %[1]s > $2 ORDER BY %[1]s LIMIT %[6]d`,
		c.Key, c.Name, c.Table, c.filled(), len(current), batchSize)
	after := "00000000-0000-0000-0000-000000000000" // sorts before every id
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
				r.lost = append(r.lost, Lost{Column: c, Key: old.Key, KeyID: keyring.KeyID(old.Envelope), Cause: err})
			}
			continue
		}
		if renewed[old], err = r.ring.Seal(plain, c.Owner(old.Key)); err != nil {
			return err
		}
	}
	update := fmt.Sprintf(`UPDATE %[1]s SET %[2]s = $1 WHERE %[3]s = $2 AND %[2]s = $3`, c.Table, c.Name, c.Key)
	var changed int64
	// Each statement compares a row with what was decrypted and replaces it, and needs no
	// other row. Read committed is enough, and does not conflict with changes of other rows.
	err := r.db.TxReadCommitted(ctx, func(tx *masterdb.Tx) error {
		changed = 0
		for _, old := range rows { // in the order of the ids, so that concurrent runs cannot deadlock
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
