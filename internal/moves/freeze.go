package moves

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// All rows of both databases are compared before the freeze, except those that the journal
// names then. The freeze compares the rows that have changed since, and checks that no table
// was truncated, created anew or altered. A store whose comparison takes less than
// quickComparison is compared again as a whole in the freeze.
const (
	quickComparison = 100 * time.Millisecond
	// maxChanged is how many keys may change after the comparison of all rows before it is
	// repeated.
	maxChanged = 20_000
	// frozenChanges is how many entries the journal may have when writers are stopped.
	frozenChanges = 500
	// maxFreeze limits one attempt: after it, writers go on.
	maxFreeze = 2 * time.Second
)

// errNotFrozen means that an attempt to freeze was given up in favour of the writers.
var errNotFrozen = errors.New("moves: the freeze would have taken too long")

// errDiffers is the error for two databases whose rows differ.
func errDiffers(table string) error {
	return stoa.Errorf(stoa.MoveRefused, "The rows of the table %s in the two databases are not the same: somebody changed them with a statement that a move does not see, "+
		"such as TRUNCATE or ALTER TABLE, or wrote to the new database. Nothing is lost: the store uses the database it had. Start the move again.", table)
}

// sums returns the sums of all rows of a database, without those whose keys are in except. It
// fails with errDiffers at the first row, or byte, more than most has: a server may send rows
// without an end. nil is no limit.
func (s side) sums(ctx context.Context, tables []archive.Table, except map[string]map[archive.Key]bool, most map[string]archive.Sums) (sums map[string]archive.Sums, err error) {
	err = s.Snapshot(ctx, func(snapshot *tenantdb.Snapshot) error {
		sums, err = rowSums(ctx, archive.NewRows(s.DB, snapshot), tables, except, most)
		return err
	})
	return sums, err
}

func rowSums(ctx context.Context, rows archive.Rows, tables []archive.Table, except map[string]map[archive.Key]bool, most map[string]archive.Sums) (map[string]archive.Sums, error) {
	sums := map[string]archive.Sums{}
	for _, t := range tables {
		var sum archive.Sums
		skipped, limit := 0, most[t.Name]
		err := rows.All(ctx, t, func(r archive.Row) error {
			if except[t.Name][r.Key] {
				skipped++
			} else {
				sum.Add(r.Sum)
			}
			if most != nil && (sum.Rows() > limit.Rows() || sum.Bytes() > limit.Bytes() || skipped > len(except[t.Name])) {
				return errDiffers(t.Name)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		sums[t.Name] = sum
	}
	return sums, nil
}

// compare compares all rows of the two databases, without those that the journal names: the
// other database does not have them yet. It begins the list of keys that change afterwards.
func (p *pair) compare(ctx context.Context) error {
	begun := time.Now()
	var sums map[string]archive.Sums
	except := map[string]map[archive.Key]bool{}
	shape, err := p.from.shape(ctx)
	if err != nil {
		return err
	}
	err = p.from.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		var changes []change
		if err := s.Select(ctx, &changes, `SELECT seq, name, k, gone FROM `+journalTable+` ORDER BY seq LIMIT ?`, maxChanged); err != nil {
			return err
		}
		if len(changes) == maxChanged {
			return errNotFrozen
		}
		for _, t := range p.tables {
			except[t.Name] = map[archive.Key]bool{}
		}
		p.changed = except
		if err := p.sort(&batch{tables: map[string]*tableBatch{}}, changes); err != nil {
			return err
		}
		rows := archive.NewRows(p.from.DB, s)
		if err := p.checkSchema(ctx, rows); err != nil {
			return err
		}
		sums, err = rowSums(ctx, rows, p.tables, except, nil)
		return err
	})
	if err == nil {
		err = p.equals(ctx, sums, except)
	}
	if err != nil {
		p.changed = nil
		return err
	}
	p.shape, p.quick = shape, time.Since(begun) < quickComparison
	return nil
}

// equals compares sums of the database in use with those of the other one.
func (p *pair) equals(ctx context.Context, sums map[string]archive.Sums, except map[string]map[archive.Key]bool) error {
	others, err := p.to.sums(ctx, p.tables, except, sums)
	if err != nil {
		return err
	}
	for _, t := range p.tables {
		if sums[t.Name] != others[t.Name] {
			return errDiffers(t.Name)
		}
	}
	return nil
}

// checkSchema fails if the database has got tables or columns that Stoa did not create.
func (p *pair) checkSchema(ctx context.Context, rows archive.Rows) error {
	head, err := rows.Head(ctx, p.store)
	if err != nil {
		return err
	}
	return checkHead(head)
}

// freeze stops the writers of the database in use, writes the last changes to the other
// database, compares the two, and fences the database in use. Readers are not affected.
// Writers wait meanwhile; after the fence they are refused. After an error writers go on:
// errNotFrozen and a wait for a lock mean that it may be tried again. It returns how long
// writers had to wait.
func (p *pair) freeze(ctx context.Context) (took time.Duration, err error) {
	var begun time.Time
	ctx, cancel := context.WithTimeout(ctx, ddlWait+maxFreeze)
	defer cancel()
	err = p.from.Tx(ctx, func(tx *tenantdb.Tx) error {
		begun = time.Now()
		for _, statement := range []string{p.from.Recorder().LimitLock(), p.from.Recorder().Freeze()} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		if err := p.settle(ctx, tx); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE `+controlTable+` SET fenced = true WHERE one = 1`)
		return err
	})
	if err != nil && ctx.Err() != nil {
		err = errors.Join(errNotFrozen, err)
	}
	return since(begun), err
}

// settle writes the rest of the journal to the other database and compares the two, while
// nothing changes.
func (p *pair) settle(ctx context.Context, tx *tenantdb.Tx) error {
	b, err := p.read(ctx, frozenChanges)
	switch {
	case errors.Is(err, errTooLarge), err == nil && !b.whole:
		return errNotFrozen
	case err != nil:
		return err
	}
	if len(b.seqs) > 0 {
		if err := p.apply(ctx, b); err != nil {
			return err
		}
		if err := forget(ctx, tx, b.seqs); err != nil {
			return err
		}
	}
	return p.verify(ctx)
}

// verify compares the two databases as far as they may have changed since compare.
func (p *pair) verify(ctx context.Context) error {
	shape, err := p.from.shape(ctx)
	if err != nil {
		return err
	}
	if p.quick {
		sums, err := p.from.sums(ctx, p.tables, nil, nil)
		if err != nil {
			return err
		}
		return p.equals(ctx, sums, nil)
	}
	if shape != p.shape {
		p.changed = nil // compare all rows again
		return errNotFrozen
	}
	mine, err := p.from.sumsOf(ctx, p.tables, p.changed)
	if err != nil {
		return err
	}
	others, err := p.to.sumsOf(ctx, p.tables, p.changed)
	if err != nil {
		return err
	}
	for _, t := range p.tables {
		if mine[t.Name] != others[t.Name] {
			return errDiffers(t.Name)
		}
	}
	return nil
}

// sumsOf returns the sums of the rows with these keys.
func (s side) sumsOf(ctx context.Context, tables []archive.Table, keys map[string]map[archive.Key]bool) (map[string]archive.Sums, error) {
	sums := map[string]archive.Sums{}
	err := s.Snapshot(ctx, func(snapshot *tenantdb.Snapshot) error {
		rows := archive.NewRows(s.DB, snapshot)
		for _, t := range tables {
			var sum archive.Sums
			err := rows.ByKey(ctx, t, slices.Collect(maps.Keys(keys[t.Name])), func(r archive.Row) error {
				sum.Add(r.Sum)
				return nil
			})
			if err != nil {
				return err
			}
			sums[t.Name] = sum
		}
		return nil
	})
	return sums, err
}

// changedKeys returns how many keys have changed since compare.
func (p *pair) changedKeys() (n int) {
	for _, keys := range p.changed {
		n += len(keys)
	}
	return n
}

const (
	freezeTries = 60
	freezePause = 250 * time.Millisecond
)

// fence catches up and freezes until the database in use is fenced and the other one has
// the same rows. It gives up after freezeTries attempts. observe is called with the duration
// of each freeze.
func (p *pair) fence(ctx context.Context, observe func(took time.Duration, err error)) error {
	for try := 1; ; try++ {
		_, err := p.catchUp(ctx, frozenChanges/4)
		if err == nil && (p.changed == nil || p.changedKeys() > maxChanged) {
			err = p.compare(ctx)
			if err == nil {
				_, err = p.catchUp(ctx, frozenChanges/4)
			}
		}
		if err == nil {
			var took time.Duration
			took, err = p.freeze(ctx)
			observe(took, err)
		}
		if err == nil {
			return nil
		}
		if !errors.Is(err, errNotFrozen) && !tenantdb.IsTransient(err) || ctx.Err() != nil {
			return err
		}
		if try == freezeTries {
			return stoa.Errorf(stoa.MoveRefused, "The store's writers could not be stopped for a moment in %d attempts: a transaction in its database stays open, or locks a table, or the servers are too slow. "+
				"Nothing is lost: the store uses the database it had. End that transaction, then start the move again.", freezeTries).WithCause(err)
		}
		if err := wait(ctx, freezePause); err != nil {
			return err
		}
	}
}

// unfence lets the database accept changes, and empties its journal.
func (s side) unfence(ctx context.Context) error {
	return s.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, `DELETE FROM `+journalTable); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE `+controlTable+` SET fenced = false WHERE one = 1`)
		return err
	})
}
