package moves

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// A batch of the journal is read in one snapshot, together with the present rows of its
// keys. These rows are written to the other database in one transaction; then the batch is
// deleted from the journal. An interruption between the two repeats the batch, which changes
// nothing, because it writes present rows and not changes. A change that commits later has a
// later entry in the journal, whatever its number.
const (
	batchChanges = 1000
	batchBytes   = 32 << 20
	// maxBatch is the most entries of a batch whose rows depend on later ones: see catchUp.
	maxBatch = 256_000
)

// change is an entry of the journal.
type change struct {
	Seq  int64
	Name string `max:"63"`
	K    string `max:"2000"`
	Gone bool
}

// batch is what a part of the journal means for the other database.
type batch struct {
	seqs   []int64
	whole  bool // there was nothing else in the journal
	tables map[string]*tableBatch
}

type tableBatch struct {
	keys map[archive.Key]bool // all that the journal names
	gone map[archive.Key]bool // to be deleted, even if there is such a row
	rows []archive.Row
}

// errTooLarge means that a batch has too many bytes.
var errTooLarge = errors.New("moves: too large a batch of rows")

// errTruncated means that a table was emptied by a statement that records no rows.
func errTruncated(table string) error {
	return stoa.Errorf(stoa.MoveRefused, "The table %s was truncated while the store was moved. Nothing is lost: the store uses the database it had. Start the move again.", table)
}

// pair is a database that is in use and the other one, which follows it.
type pair struct {
	from, to side
	store    stoa.StoreID
	tables   []archive.Table

	changed map[string]map[archive.Key]bool // keys since the last comparison of all rows; nil before it
	shape   string                          // of from, at that comparison
	quick   bool                            // that comparison was quick enough to be repeated in a freeze

	limits pace // of each round; zero: the defaults
}

// catchUp writes the changes of the journal to the other database until nothing is left, or
// until the number of entries in one round is at most few. It returns how many entries it
// has written. It fails with move_refused when the journal does not become shorter: see pace.
func (p *pair) catchUp(ctx context.Context, few int) (done int64, err error) {
	pace := p.limits
	for limit := batchChanges; ; {
		b, err := p.read(ctx, limit)
		if errors.Is(err, errTooLarge) && limit > 1 {
			limit = max(1, limit/4)
			continue
		}
		if err == nil && len(b.seqs) > 0 {
			err = p.apply(ctx, b)
		}
		// The rows of a part of the journal may depend on rows that the rest names, such as
		// one that has had a unique value before.
		if err != nil && archive.IsOfRow(err) && !b.whole && limit < maxBatch {
			limit *= 4
			continue
		}
		if err != nil {
			return done, err
		}
		if err := forget(ctx, p.from, b.seqs); err != nil {
			return done, err
		}
		done += int64(len(b.seqs))
		if b.whole && len(b.seqs) <= few {
			return done, nil
		}
		if err := pace.check(ctx, p.from, len(b.seqs)); err != nil {
			return done, err
		}
		limit = batchChanges
	}
}

// read reads at most limit entries of the journal with the rows that they name.
func (p *pair) read(ctx context.Context, limit int) (b batch, err error) {
	err = p.from.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		b = batch{tables: map[string]*tableBatch{}}
		var changes []change
		err := s.Select(ctx, &changes, `SELECT seq, name, k, gone FROM `+journalTable+` ORDER BY seq LIMIT ?`, limit)
		if err != nil {
			return err
		}
		b.whole = len(changes) < limit
		if err := p.sort(&b, changes); err != nil {
			return err
		}
		rows, bytes := archive.NewRows(p.from.DB, s), 0
		for _, t := range p.tables {
			of := b.tables[t.Name]
			if of == nil {
				continue
			}
			missing := maps.Clone(of.keys)
			err := rows.ByKey(ctx, t, slices.Collect(maps.Keys(of.keys)), func(r archive.Row) error {
				if bytes += r.Bytes; bytes > batchBytes && limit > 1 {
					return errTooLarge
				}
				delete(missing, r.Key)
				of.rows = append(of.rows, r)
				return nil
			})
			if err != nil {
				return err
			}
			maps.Copy(of.gone, missing)
		}
		return nil
	})
	return b, err
}

// sort collects the keys of the entries by table.
func (p *pair) sort(b *batch, changes []change) error {
	for _, c := range changes {
		at := slices.IndexFunc(p.tables, func(t archive.Table) bool { return t.Name == c.Name })
		if at < 0 {
			return fmt.Errorf("the journal names a table %q", c.Name)
		}
		if c.K == "" {
			return errTruncated(c.Name)
		}
		key, err := archive.ParseKey(p.tables[at], c.K)
		if err != nil {
			return err
		}
		of := b.tables[c.Name]
		if of == nil {
			of = &tableBatch{keys: map[archive.Key]bool{}, gone: map[archive.Key]bool{}}
			b.tables[c.Name] = of
		}
		b.seqs, of.keys[key] = append(b.seqs, c.Seq), true
		if c.Gone {
			of.gone[key] = true
		}
		if p.changed != nil {
			p.changed[c.Name][key] = true
		}
	}
	return nil
}

// apply writes a batch to the other database. It deletes first, in a transaction of its own,
// and then looks which rows are there: a foreign key may delete or change others. Nobody
// reads the other database, so it need not change at once.
func (p *pair) apply(ctx context.Context, b batch) error {
	err := p.unfenced(ctx, func(tx *tenantdb.Tx) error {
		for _, t := range slices.Backward(p.tables) { // a row before those that it references
			if of := b.tables[t.Name]; of != nil {
				if err := deleteKeys(ctx, tx, t, slices.Collect(maps.Keys(of.gone))); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	there, err := p.there(ctx, b)
	if err != nil {
		return err
	}
	return p.unfenced(ctx, func(tx *tenantdb.Tx) error {
		for _, t := range p.tables {
			if of := b.tables[t.Name]; of != nil {
				if err := p.writeRows(ctx, tx, t, of, there[t.Name]); err != nil {
					return fmt.Errorf("table %s: %w", t.Name, err)
				}
			}
		}
		return nil
	})
}

// unfenced runs fn in a transaction of the other database, and lifts its fence for this
// transaction only: others wait for its end and then meet the fence.
func (p *pair) unfenced(ctx context.Context, fn func(*tenantdb.Tx) error) error {
	return p.to.Tx(ctx, func(tx *tenantdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1 AND fenced = ?`, false, true)
		if err != nil {
			return err
		}
		if n == 0 { // another execution has completed the move, or rolled it back
			return errInUse
		}
		if err := fn(tx); err != nil {
			return err
		}
		// The triggers have recorded these changes too, if they exist already.
		if _, err := tx.Exec(ctx, `DELETE FROM `+journalTable); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1`, true)
		return err
	})
}

// errInUse means that the database that was to follow accepts changes of others.
var errInUse = errors.New("moves: the other database is in use")

// keysAtOnce limits the keys of one statement.
const keysAtOnce = 500

func deleteKeys(ctx context.Context, tx *tenantdb.Tx, t archive.Table, keys []archive.Key) error {
	for part := range slices.Chunk(keys, keysAtOnce) {
		where, args, err := archive.WhereKey(t, part)
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM `+t.Name+` WHERE `+where, args...)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// there returns the rows of the other database that have keys of the batch.
func (p *pair) there(ctx context.Context, b batch) (rows map[string]map[archive.Key]archive.Sums, err error) {
	err = p.to.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		rows = map[string]map[archive.Key]archive.Sums{}
		reader := archive.NewRows(p.to.DB, s)
		for _, t := range p.tables {
			of, found := b.tables[t.Name], map[archive.Key]archive.Sums{}
			if of == nil {
				continue
			}
			rows[t.Name] = found
			err := reader.ByKey(ctx, t, slices.Collect(maps.Keys(of.keys)), func(r archive.Row) error {
				found[r.Key] = r.Sum
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return rows, err
}

// writeRows replaces the rows that exist and differ, inserts the others and then sets the
// references to the table itself.
func (p *pair) writeRows(ctx context.Context, tx *tenantdb.Tx, t archive.Table, b *tableBatch, there map[archive.Key]archive.Sums) error {
	var missing, other []archive.Row
	for _, row := range b.rows {
		sum, found := there[row.Key]
		switch {
		case !found:
			missing = append(missing, row)
		case sum != row.Sum:
			other = append(other, row)
		}
	}
	// A row that is replaced may leave a unique value to one that is inserted.
	if err := archive.Replace(ctx, tx, p.to.ArchiveSQL(), t, other); err != nil {
		return err
	}
	if err := archive.Insert(ctx, tx, t, missing); err != nil {
		return err
	}
	for _, row := range append(other, missing...) {
		if err := archive.Link(ctx, tx, t, row); err != nil {
			return err
		}
	}
	return nil
}

// execer is a database or a transaction.
type execer interface {
	Exec(ctx context.Context, query string, args ...any) (int64, error)
}

// forget deletes entries from a journal.
func forget(ctx context.Context, in execer, seqs []int64) error {
	for part := range slices.Chunk(seqs, keysAtOnce) {
		where, args := `seq IN (?`, []any{part[0]}
		for _, seq := range part[1:] {
			where, args = where+`, ?`, append(args, seq)
		}
		if _, err := in.Exec(ctx, `DELETE FROM `+journalTable+` WHERE `+where+`)`, args...); err != nil {
			return err
		}
	}
	return nil
}

// entries returns how many entries the journal of a database has, at most limit.
func (s side) entries(ctx context.Context, limit int) (n int, err error) {
	err = s.Get(ctx, &n, `SELECT count(*) FROM (SELECT 1 FROM `+journalTable+` LIMIT ?) entries`, limit)
	return n, err
}

// since returns how long ago a time was, for logs.
func since(t time.Time) time.Duration { return time.Since(t).Round(time.Millisecond) }
