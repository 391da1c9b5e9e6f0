package moves

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/tenantdb"
)

const (
	controlTable = tenantdb.MoveControlTable
	journalTable = tenantdb.MoveJournalTable
)

// role is what a database was when the move began.
type role string

const (
	source role = "source"
	target role = "target"
)

// side is one of the two databases of a move.
type side struct {
	*tenantdb.DB
	role role
}

// control is the one row of the control table.
type control struct {
	MoveID string `db:"move_id"`
	Role   role
	Fenced bool
}

// begin creates the control table and the journal. What an earlier move has left is removed.
// It fails if the database is the other one of the same move, and if its user may not create
// triggers.
func (s side) begin(ctx context.Context, move stoa.MoveID, tables []archive.Table) error {
	c, err := s.control(ctx)
	if err != nil {
		return err
	}
	switch {
	case c != nil && c.MoveID == move.String() && c.Role != s.role:
		return stoa.Errorf(stoa.MoveRefused, "This is the database that the store has now. Give the address of another one.")
	case c != nil && c.MoveID != move.String():
		if err := s.end(ctx, tables); err != nil {
			return err
		}
	}
	for _, ddl := range s.Recorder().State() {
		if _, err := s.Exec(ctx, ddl); err != nil {
			return err
		}
	}
	if c == nil || c.MoveID != move.String() {
		_, err := s.Exec(ctx, `INSERT INTO `+controlTable+` (one, move_id, role, fenced) VALUES (1, ?, ?, ?)`, move.String(), string(s.role), s.role == target)
		if err != nil {
			return err
		}
	}
	return s.probe(ctx)
}

// control returns the control row, or nil if there is none.
func (s side) control(ctx context.Context) (*control, error) {
	structure, err := s.tables(ctx)
	if err != nil || !structure[controlTable] {
		return nil, err
	}
	var c control
	err = s.Get(ctx, &c, `SELECT move_id, role, fenced FROM `+controlTable+` WHERE one = 1`)
	if errors.Is(err, tenantdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: no row
	}
	return &c, err
}

// tables returns which of the tables of a move and of the schema exist.
func (s side) tables(ctx context.Context) (map[string]bool, error) {
	in, err := s.Inspect(ctx)
	there := map[string]bool{}
	for _, name := range in.Tables {
		there[name] = true
	}
	return there, err
}

// probe creates a trigger on the control table and drops it.
func (s side) probe(ctx context.Context) error {
	create, drop := s.Recorder().Probe("stoa_move_probe")
	if create == nil {
		return nil
	}
	for _, statements := range [][]string{drop[:1], create, drop} {
		if err := s.ddl(ctx, statements); err != nil {
			return triggersRefused(err)
		}
	}
	return nil
}

// triggersRefused explains why a server refuses to create a trigger.
func triggersRefused(err error) error {
	var myErr *mysql.MySQLError
	switch {
	case errors.As(err, &myErr) && myErr.Number == 1419: // ER_BINLOG_CREATE_ROUTINE_NEED_SUPER
		return stoa.Errorf(stoa.MoveRefused, "The database server writes a binary log and lets this user create no triggers, with which a move records changes (error 1419). "+
			"Set log_bin_trust_function_creators = 1 in the server's configuration, or its parameter group, then try again.").WithCause(err)
	case errors.As(err, &myErr) && (myErr.Number == 1142 || myErr.Number == 1227 || myErr.Number == 1044): // ER_TABLEACCESS_DENIED_ERROR and the like
		return stoa.Errorf(stoa.MoveRefused, "The database user may not create triggers, with which a move records changes. GRANT TRIGGER ON its database TO the user, then try again.").WithCause(err)
	case stoa.CodeOf(err) == stoa.DatabasePermissionDenied:
		return stoa.Errorf(stoa.MoveRefused, "The database user may not create functions and triggers, with which a move records changes. "+
			"On PostgreSQL: GRANT CREATE ON the schema, and USAGE ON LANGUAGE plpgsql, TO the user; then try again.").WithCause(err)
	}
	return err
}

// Statements that change a table's triggers wait for its writers, and later ones wait for
// the statement: it gives up soon and is repeated.
const (
	ddlWait  = time.Second
	ddlTries = 30
	ddlPause = 500 * time.Millisecond
)

// ddl runs statements in one transaction, as far as the engine allows it.
func (s side) ddl(ctx context.Context, statements []string) error {
	for try := 1; ; try++ {
		err := s.Tx(ctx, func(tx *tenantdb.Tx) error {
			for _, statement := range append([]string{s.Recorder().LimitLock()}, statements...) {
				if _, err := tx.Exec(ctx, statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err == nil || !tenantdb.IsTransient(err) || try == ddlTries {
			return err
		}
		if err := wait(ctx, ddlPause); err != nil {
			return err
		}
	}
}

// record creates the triggers that record changes and refuse them while the database is
// fenced. When it returns, every transaction that began without them has ended.
func (s side) record(ctx context.Context, tables []archive.Table) error {
	var all []tenantdb.Table
	for _, t := range tables {
		all = append(all, schemaOf(t))
	}
	for _, t := range tables {
		// MySQL keeps what a failed attempt has made: the next one drops it.
		statements := append(s.Recorder().DropTriggers(schemaOf(t)), s.Recorder().CreateTriggers(schemaOf(t), all)...)
		err := s.ddl(ctx, statements)
		if other := s.Recorder().Alternative(statements, err); other != nil {
			err = s.ddl(ctx, other)
		}
		if err != nil {
			return fmt.Errorf("table %s: %w", t.Name, triggersRefused(err))
		}
	}
	return nil
}

// schemaOf returns what triggers have to know of a table.
func schemaOf(t archive.Table) tenantdb.Table {
	out := tenantdb.Table{Name: t.Name, Key: t.Key}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, tenantdb.Column{Name: c.Name, References: c.References})
	}
	return out
}

// unrecord drops the triggers of record, of those tables that exist.
func (s side) unrecord(ctx context.Context, tables []archive.Table) error {
	there, err := s.tables(ctx)
	if err != nil {
		return err
	}
	for _, t := range tables {
		if !there[t.Name] {
			continue // its triggers went with it
		}
		if err := s.ddl(ctx, s.Recorder().DropTriggers(schemaOf(t))); err != nil {
			return fmt.Errorf("table %s: %w", t.Name, err)
		}
	}
	return nil
}

// end removes everything that a move has added. It can be repeated.
func (s side) end(ctx context.Context, tables []archive.Table) error {
	if err := s.unrecord(ctx, tables); err != nil {
		return err
	}
	for _, t := range tables {
		functions := s.Recorder().DropFunctions(schemaOf(t))
		if functions == nil {
			break
		}
		if err := s.ddl(ctx, functions); err != nil {
			return err
		}
	}
	return s.ddl(ctx, []string{`DROP TABLE IF EXISTS ` + journalTable, `DROP TABLE IF EXISTS ` + controlTable})
}

// shape describes the tables and triggers as far as a statement that no trigger sees changes
// them: one that truncates a table, creates it anew or alters it.
func (s side) shape(ctx context.Context) (string, error) {
	var parts []struct {
		Part string `max:"20000"`
	}
	err := s.Select(ctx, &parts, s.Recorder().Shape())
	return fmt.Sprint(parts), err
}

// wait waits for d, or until ctx is done.
func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
