package moves

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// prepare checks the source, before it makes the target: tables that are not Stoa's, and the
// right to create triggers. It then makes the target, which must contain no store.
func (e *execution) prepare(ctx context.Context) (string, applied, error) {
	from, err := e.openSide(ctx, e.SourceCredentials)
	if err != nil {
		return "", nil, err
	}
	e.from = side{from, source}
	err = from.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		return (&pair{store: e.move.StoreID}).checkSchema(ctx, archive.NewRows(from, s))
	})
	if err == nil {
		err = e.from.begin(ctx, e.move.ID, e.tables)
	}
	if err != nil {
		return "", nil, err
	}
	c, err := e.targetAccess(ctx)
	if err != nil {
		return "", nil, err
	}
	to, c, in, err := e.databases.OpenTarget(ctx, e.move.StoreID, c)
	if err != nil {
		return "", nil, err
	}
	e.to = side{to, target}
	if err := e.to.checkEmpty(ctx, e.move, in.Tables); err != nil {
		return "", nil, err
	}
	if err := e.to.begin(ctx, e.move.ID, e.tables); err != nil {
		return "", nil, err
	}
	if err := to.Mark(ctx, e.move.StoreID); err != nil {
		return "", nil, err
	}
	saveTarget, err := e.setTarget(c)
	return stepCopy, saveTarget, err
}

// copy records changes of the source from now on, and copies all its rows. A copy that was
// interrupted is emptied and done again.
func (e *execution) copy(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.from.record(ctx, e.tables); err != nil {
		return "", nil, err
	}
	// An interrupted execution may have fenced the target already.
	if err := e.to.unrecord(ctx, e.tables); err != nil {
		return "", nil, err
	}
	e.countRows(ctx)
	e.rows.Store(0)
	head, err := archive.Copy(ctx, e.from.DB, e.to.DB, e.move.StoreID, archive.CopyOptions{OnRows: func(n int64) { e.rows.Add(n) }, MaxBytes: e.opts.MaxContent})
	if err == nil {
		err = checkHead(head)
	}
	if err == nil {
		err = e.to.record(ctx, e.tables)
	}
	if err == nil {
		err = e.to.SelfTest(ctx)
	}
	if err == nil {
		err = e.to.ProveClosed(ctx)
	}
	return stepCatchUp, nil, err
}

// countRows records how many rows are to be copied. It is for people only: a table that is
// too large to be counted in the time of a statement is copied all the same.
func (e *execution) countRows(ctx context.Context) {
	total := int64(0)
	for _, t := range e.tables {
		var n int64
		if err := e.from.Get(ctx, &n, `SELECT count(*) FROM `+t.Name); err != nil {
			e.log.DebugContext(ctx, "rows of a move not counted", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "table", t.Name, "err", err)
			return
		}
		total += n
	}
	err := e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE store_moves SET rows_total = $3 WHERE id = $1 AND claimed_by = $2`, e.move.ID, string(e.lease.Owner), total)
		return err
	})
	if err != nil {
		e.log.DebugContext(ctx, "progress not recorded", "move", e.move.ID.String(), "err", err)
	}
}

func (e *execution) catchUp(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	n, err := e.forward().catchUp(ctx, batchChanges)
	e.changes.Add(n)
	return stepFreeze, nil, err
}

// freeze ends with a source that refuses changes and a target that has the same rows. An
// execution that finds the source fenced was interrupted after that.
func (e *execution) freeze(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	took, err := e.fence(ctx, e.from, e.forward())
	return stepSwap, func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE store_moves SET frozen_ms = coalesce($2, frozen_ms) WHERE id = $1`, e.move.ID, took)
		return err
	}, err
}

// fence fences the database in use of a pair, unless it is fenced already. It returns how
// long writers had to wait, in milliseconds.
func (e *execution) fence(ctx context.Context, from side, p *pair) (took *int64, err error) {
	c, err := from.control(ctx)
	if err != nil {
		return nil, err
	}
	if c == nil || c.MoveID != e.move.ID.String() {
		return nil, stoa.Errorf(stoa.MoveRefused, "Somebody removed the table %s from the store's database. Nothing is lost: the store uses the database it had. Start the move again.", controlTable)
	}
	if c.Fenced {
		return nil, nil //nolint:nilnil // documented: nobody had to wait for this execution
	}
	err = p.fence(ctx, func(d time.Duration, err error) {
		ms := d.Milliseconds()
		took = &ms
		e.log.InfoContext(ctx, "writers stopped for a move", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "duration_ms", ms, "err", err)
	})
	return took, err
}

// swap lets the target accept changes and makes it the store's database. Replicas that use
// the source meet the fence and continue in the target.
func (e *execution) swap(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.to.unfence(ctx); err != nil {
		return "", nil, err
	}
	return stepKeep, func(ctx context.Context, tx *masterdb.Tx) error {
		var wish string
		if err := tx.Get(ctx, &wish, `SELECT wish FROM store_moves WHERE id = $1`, e.move.ID); err != nil {
			return err
		}
		if wish == wishAbort {
			return errAborted
		}
		if err := e.use(ctx, tx, e.TargetCredentials); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE store_moves SET state = 'kept', swapped_at = $2, keep_until = $3 WHERE id = $1`, e.move.ID, tx.Now, tx.Now.Add(e.opts.Keep))
		return err
	}, nil
}

// use makes a database the store's, as a rotation of credentials does.
func (e *execution) use(ctx context.Context, tx *masterdb.Tx, envelope string) error {
	c, err := e.tenants.UnsealCredentials(e.move.StoreID, envelope)
	if err != nil {
		return err
	}
	c.RolePassword, c.Adopt = credential.Credentials{}.RolePassword, false
	if err := e.tenants.Save(ctx, tx, e.move.StoreID, c); err != nil {
		return err
	}
	if err := link.RecordProject(ctx, tx, e.move.StoreID, e.tenants.ProjectRef(c)); err != nil {
		return err
	}
	if err := tenantdb.RecordSchema(ctx, tx, e.move.StoreID, tenantdb.Schema{Version: e.move.SchemaVersion}); err != nil {
		return err
	}
	if err := tenantdb.RecordHealth(ctx, tx, e.move.StoreID, nil); err != nil {
		return err
	}
	details := map[string]string{"move": e.move.ID.String(), "to": placeOf(c).String()}
	return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.MoveSwapped, Store: e.move.StoreID, Details: details})
}

// maxJournal is how many entries a journal may have while the old database does not answer.
const maxJournal = 500_000

// maxFollow limits one round in which the old database follows.
const maxFollow = 5 * time.Minute

// keep lets the old database follow the new one, until the time for a rollback has passed.
func (e *execution) keep(ctx context.Context) (string, applied, error) {
	var now row
	if err := e.db.Get(ctx, &now, selectMoves+`id = $1`, e.move.ID); err != nil {
		return "", nil, err
	}
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	switch {
	case gone, now.Wish == wishFinish, !now.follows(e.db.Now()):
		return stepDrop, nil, nil
	case now.Wish == wishRollback:
		return stepRollbackFreeze, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxFollow)
	defer cancel()
	if err := e.open(ctx); err == nil {
		n, err := e.back().catchUp(ctx, frozenChanges)
		e.changes.Add(n)
		if err != nil {
			e.log.WarnContext(ctx, "old database of a move does not follow", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "err", err)
		}
	}
	if e.to.DB != nil {
		if n, err := e.to.entries(ctx, maxJournal); err == nil && n == maxJournal {
			return stepDrop, nil, nil
		}
	}
	return "", nil, errLater
}

// storeGone reports whether the store has been deleted for good since the move began.
func (e *execution) storeGone(ctx context.Context) (bool, error) {
	_, err := e.tenants.Load(ctx, e.db, e.move.StoreID)
	if stoa.CodeOf(err) == stoa.StorePendingDatabase {
		return true, nil
	}
	return false, err
}

// drop ends a move: the new database records no more, and the old one is removed if the
// platform manages it. One of the owner's own keeps its tables.
func (e *execution) drop(ctx context.Context) (string, applied, error) {
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	if !gone {
		if err := e.clean(ctx, e.move.Target, func(s side) error { return s.end(ctx, e.tables) }, e.TargetCredentials, target, dropTries); err != nil {
			return "", nil, err
		}
	}
	e.close()
	if err := e.remove(ctx, e.move.Source, func(s side) error { return s.end(ctx, e.tables) }, e.SourceCredentials, source); err != nil {
		return "", nil, err
	}
	return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, Succeeded) }, nil
}

// undoTries is how many executions try to clean up a database of the owner's that does not
// answer.
const undoTries = 10

// dropTries is the same for the database that the store uses: about an hour. It may be lost
// for good, and is restored from an archive only after the end of the move.
const dropTries = 60

// remove drops a managed database. In one of the owner's own it calls do.
func (e *execution) remove(ctx context.Context, place Place, do func(side) error, envelope string, r role) error {
	switch {
	case place.Kind == credential.Managed:
		return e.managed.Drop(ctx, e.move.StoreID, place.info())
	case place.Kind == credential.KindSupabase && place.Host == "":
		return nil // nothing is in the project yet, except perhaps the store's role
	}
	return e.clean(ctx, place, do, envelope, r, undoTries)
}

// clean calls do with a database. If that does not answer in this number of executions, what
// the move has added stays there: the next move removes it.
func (e *execution) clean(ctx context.Context, place Place, do func(side) error, envelope string, r role, tries int) error {
	db, err := e.openSide(ctx, envelope)
	if err == nil {
		defer db.Close() //nolint:errcheck // no statement is pending
		err = do(side{db, r})
	}
	if err != nil && e.move.Executions >= tries && ctx.Err() == nil {
		e.log.WarnContext(ctx, "database not cleaned up after a move", "store_id", e.move.StoreID.String(), "move", e.move.ID.String(), "database", place.String(), "err", err)
		return nil
	}
	return err
}

// undo ends a move before the swap: the source accepts changes and records no more, and
// nothing is left of the target.
func (e *execution) undo(ctx context.Context) (string, applied, error) {
	gone, err := e.storeGone(ctx)
	if err != nil {
		return "", nil, err
	}
	if !gone {
		db, err := e.openSide(ctx, e.SourceCredentials)
		if err != nil {
			return "", nil, err
		}
		e.from = side{db, source}
		if c, err := e.from.control(ctx); err != nil {
			return "", nil, err
		} else if c != nil { // writers need not wait until all triggers are removed
			if _, err := db.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1`, false); err != nil {
				return "", nil, err
			}
		}
		if err := e.from.end(ctx, e.tables); err != nil {
			return "", nil, err
		}
	}
	e.close()
	var code *string
	if err := e.db.Get(ctx, &code, `SELECT error_code FROM store_moves WHERE id = $1`, e.move.ID); err != nil {
		return "", nil, err
	}
	if code != nil && *code == string(stoa.DatabaseNotEmpty) { // what is there is not the move's
		return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, Failed) }, nil
	}
	if err := e.remove(ctx, e.move.Target, func(s side) error { return s.erase(ctx, e.move, e.tables) }, e.TargetCredentials, target); err != nil {
		return "", nil, err
	}
	state := Failed
	if code == nil {
		state = Aborted
	}
	return "", func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, state) }, nil
}

func (e *execution) rollbackFreeze(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	_, err := e.fence(ctx, e.to, e.back())
	return stepRollbackSwap, nil, err
}

// cancelRollback lets the store continue in the new database after a rollback has failed.
func (e *execution) cancelRollback(ctx context.Context, cause error) (string, applied, error) {
	if tenantdb.IsTransient(cause) && e.move.Executions <= steps[stepRollbackFreeze].tries {
		return "", nil, cause
	}
	db, err := e.openSide(ctx, e.TargetCredentials)
	if err != nil {
		return "", nil, errors.Join(cause, err)
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if _, err := db.Exec(ctx, `UPDATE `+controlTable+` SET fenced = ? WHERE one = 1`, false); err != nil {
		return "", nil, errors.Join(cause, err)
	}
	return stepKeep, func(ctx context.Context, tx *masterdb.Tx) error {
		if err := e.fail(ctx, tx, cause); err != nil {
			return err
		}
		_, err := tx.Exec(ctx, `UPDATE store_moves SET wish = '' WHERE id = $1`, e.move.ID)
		return err
	}, nil
}

func (e *execution) rollbackSwap(ctx context.Context) (string, applied, error) {
	if err := e.open(ctx); err != nil {
		return "", nil, err
	}
	if err := e.from.unfence(ctx); err != nil {
		return "", nil, err
	}
	return stepRollbackDrop, func(ctx context.Context, tx *masterdb.Tx) error { return e.use(ctx, tx, e.SourceCredentials) }, nil
}

func (e *execution) rollbackDrop(ctx context.Context) (string, applied, error) {
	next, _, err := e.undo(ctx)
	return next, func(ctx context.Context, tx *masterdb.Tx) error { return e.finish(ctx, tx, RolledBack) }, err
}

// checkEmpty fails for a database that holds something else than what an interrupted
// execution of this move has left.
func (s side) checkEmpty(ctx context.Context, m Move, tables []string) error {
	c, err := s.control(ctx)
	if err != nil || c != nil && c.MoveID == m.ID.String() {
		return err // begin refuses the source
	}
	stoas, err := archive.Tables(ctx, m.SchemaVersion)
	if err != nil {
		return err
	}
	known := map[string]bool{tenantdb.VersionTable: true, tenantdb.CustomVersionTable: true, tenantdb.MarkerTable: true, controlTable: true, journalTable: true}
	for _, t := range stoas {
		known[t.Name] = true
	}
	there := map[string]bool{}
	for _, name := range tables {
		if there[name] = true; !known[name] {
			return stoa.Errorf(stoa.DatabaseNotEmpty, "The new database holds other tables (%.80q, for one). Give the store a database of its own.", name)
		}
	}
	for _, t := range stoas {
		if !there[t.Name] {
			continue
		}
		var rows int
		if err := s.Get(ctx, &rows, `SELECT count(*) FROM (SELECT 1 FROM `+t.Name+` LIMIT 1) one`); err != nil {
			return err
		}
		if rows > 0 {
			return stoa.Errorf(stoa.DatabaseNotEmpty, "The table %s of the new database has rows already. Use an empty database.", t.Name)
		}
	}
	return nil
}

// erase removes the store's tables from a target, if the move has made them.
func (s side) erase(ctx context.Context, m Move, tables []archive.Table) error {
	c, err := s.control(ctx)
	if err != nil || c == nil || c.MoveID != m.ID.String() || c.Role != target {
		return err
	}
	names := []string{tenantdb.VersionTable, tenantdb.MarkerTable}
	for _, t := range tables { // a table before those that it references
		names = append([]string{t.Name}, names...)
	}
	for _, name := range names {
		if err := s.ddl(ctx, []string{`DROP TABLE IF EXISTS ` + name}); err != nil {
			return fmt.Errorf("table %s: %w", name, err)
		}
	}
	return s.end(ctx, tables) // the control row last: it says that the tables are the move's
}
