package moves

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// State is the state of a move.
type State string

// These are the states of a move. A kept move is complete, and can be rolled back.
const (
	Running    State = "running"
	Kept       State = "kept"
	Succeeded  State = "succeeded"
	Failed     State = "failed"
	Aborted    State = "aborted"
	RolledBack State = "rolled_back"
)

// A wish is what a person has asked a move in progress to do.
const (
	wishAbort    = "abort"
	wishRollback = "rollback"
	wishFinish   = "finish"
)

// Place is a database, without its credentials. One of kind supabase without a host is the
// project of that name, in which the store's role is yet to be made.
type Place struct {
	Kind   credential.Kind
	Engine credential.EngineName
	Host   string
	Port   int
	Name   string
}

// String describes the place for the audit log.
func (p Place) String() string {
	switch {
	case p.Host == "" && p.Kind == credential.KindSupabase:
		return "Supabase project " + p.Name
	case p.Host == "":
		return string(p.Engine)
	}
	return fmt.Sprintf("%s %s:%d/%s", p.Engine, p.Host, p.Port, p.Name)
}

func placeOf(c credential.Credentials) Place {
	return Place{Kind: c.Kind, Engine: c.Engine, Host: c.Host, Port: c.Port, Name: c.Database}
}

func (p Place) info() tenantdb.Info {
	return tenantdb.Info{Kind: p.Kind, Engine: p.Engine, Host: p.Host, Port: p.Port, DatabaseName: p.Name}
}

// Move is a move of a store to another database.
type Move struct {
	ID            stoa.MoveID
	StoreID       stoa.StoreID
	State         State
	Step          string // "" after the end
	Wish          string
	SchemaVersion int64
	Source        Place `db:"-"`
	Target        Place `db:"-"`
	RowsCopied    int64
	RowsTotal     int64 // at the beginning of the copy; 0: not known yet
	Changes       int64
	FrozenMs      *int64
	Executions    int                 // of the step
	Fault         *provisioning.Fault `db:"-"`
	CreatedAt     time.Time
	SwappedAt     *time.Time
	KeepUntil     *time.Time
	FinishedAt    *time.Time
}

// Done reports whether the move has ended. A kept move has not: the old database follows.
func (m Move) Done() bool { return m.FinishedAt != nil }

// Settled reports whether nothing happens until a person asks for it, or the time to roll
// the move back has passed.
func (m Move) Settled() bool {
	return m.Done() || m.State == Kept && m.Step == stepKeep && m.Wish == ""
}

// follows reports whether the old database follows the new one at a time, so that the move
// can be rolled back.
func (m Move) follows(now time.Time) bool {
	return m.State == Kept && m.Step == stepKeep && m.KeepUntil != nil && now.Before(*m.KeepUntil)
}

// row is a row of store_moves.
type row struct {
	Move
	SourceKind, TargetKind               credential.Kind
	SourceEngine, TargetEngine           credential.EngineName
	SourceHost, TargetHost               string
	SourcePort, TargetPort               int
	SourceName, TargetName               string
	SourceCredentials, TargetCredentials string
	ErrorCode, ErrorMessage              *string
}

const selectMoves = `SELECT id, store_id, state, step, wish, schema_version, rows_copied, rows_total, changes, frozen_ms, executions, error_code, error_message,
	created_at, swapped_at, keep_until, finished_at, source_kind, source_engine, source_host, source_port, source_name, source_credentials,
	target_kind, target_engine, target_host, target_port, target_name, target_credentials FROM store_moves WHERE `

func (r row) move() Move {
	m := r.Move
	m.Source = Place{r.SourceKind, r.SourceEngine, r.SourceHost, r.SourcePort, r.SourceName}
	m.Fault = provisioning.NewFault(r.ErrorCode, r.ErrorMessage)
	m.Target = Place{r.TargetKind, r.TargetEngine, r.TargetHost, r.TargetPort, r.TargetName}
	return m
}

func read(ctx context.Context, q masterdb.Querier, store stoa.StoreID, id stoa.MoveID) (Move, error) {
	var r row
	err := q.Get(ctx, &r, selectMoves+`id = $1 AND store_id = $2`, id, store)
	if errors.Is(err, masterdb.ErrNotFound) {
		return Move{}, stoa.Errorf(stoa.NotFound, "There is no such move of this store.")
	}
	return r.move(), err
}

// Page is one page of moves, newest first.
type Page struct {
	Moves      []Move
	NextCursor *string
}

// List lists the store's moves. limit is 1 to page.MaxLimit, or 0 for page.DefaultLimit;
// cursor is NextCursor of the previous page. It fails with invalid_request.
func (s *Service) List(ctx context.Context, p authz.Principal, store stoa.StoreID, limit int, cursor string) (Page, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.MoveID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return Page{}, err
	}
	if _, err := authz.Check(ctx, s.db, p, store, authz.ReadStore); err != nil {
		return Page{}, err
	}
	var rows []row
	err := s.db.Select(ctx, &rows, selectMoves+`store_id = $1 AND id < $2 ORDER BY id DESC LIMIT $3`, store, bounds.Before, bounds.Rows())
	if err != nil {
		return Page{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(r row) string { return r.ID.String() })
	out := Page{NextCursor: next}
	for _, r := range rows {
		out.Moves = append(out.Moves, r.move())
	}
	return out, nil
}

// Expiry returns the rule by which moves that have ended are deleted.
func Expiry(keep time.Duration) masterdb.Expiry {
	return masterdb.Expiry{Table: "store_moves", Key: []string{"id"}, Age: "finished_at", Keep: keep}
}

// moves are the leases of moves that have not ended.
var moves = lease.Table{Name: "store_moves", Key: "id", Where: `finished_at IS NULL`, KeepPresent: true}

func (s *Service) insert(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, from, to credential.Credentials) (Move, error) {
	source, err := s.tenants.SealCredentials(store, from)
	if err != nil {
		return Move{}, err
	}
	target, err := s.tenants.SealCredentials(store, to)
	if err != nil {
		return Move{}, err
	}
	id, a, b := stoa.NewID[stoa.MoveID](), placeOf(from), placeOf(to)
	_, err = tx.Exec(ctx, `INSERT INTO store_moves (id, store_id, state, step, schema_version,
			source_kind, source_engine, source_host, source_port, source_name, source_credentials,
			target_kind, target_engine, target_host, target_port, target_name, target_credentials, claimed_until, created_at)
		VALUES ($1, $2, 'running', $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
		id, store, stepPrepare, tenantdb.LatestVersion(), string(a.Kind), string(a.Engine), a.Host, a.Port, a.Name, source,
		string(b.Kind), string(b.Engine), b.Host, b.Port, b.Name, target, tx.Now.Add(s.opts.Lease), tx.Now)
	if err != nil {
		return Move{}, err
	}
	return read(ctx, tx, store, id)
}

// acquire leases the move of a job and reads it. It fails with lease.ErrLost if the job may
// not work on it.
func (s *Service) acquire(ctx context.Context, tx *masterdb.Tx, id stoa.MoveID, owner lease.Owner) (r row, err error) {
	l := lease.Lease{Table: moves, Key: id, Owner: owner, Duration: s.opts.Lease}
	if err := l.Acquire(ctx, tx); err != nil {
		return r, err
	}
	if _, err := tx.Exec(ctx, `UPDATE store_moves SET executions = executions + 1 WHERE id = $1`, id); err != nil {
		return r, err
	}
	return r, tx.Get(ctx, &r, selectMoves+`id = $1`, id)
}

// record stores the next step with what the step that has ended has changed. Only the owner
// of the lease writes: one that was suspended must not overwrite what another has done.
func (e *execution) record(ctx context.Context, next string, apply applied) error {
	return e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE store_moves SET step = $3, executions = CASE WHEN step = $3 THEN executions ELSE 1 END,
			rows_copied = $4, changes = $5 WHERE id = $1 AND claimed_by = $2`, e.move.ID, string(e.lease.Owner), next, e.rows.Load(), e.changes.Load())
		if err == nil && n == 0 {
			err = lease.ErrLost
		}
		if err != nil || apply == nil {
			return err
		}
		return apply(ctx, tx)
	})
}

// countExecution begins another execution of the same step under the same lease.
func (e *execution) countExecution(ctx context.Context) error {
	return e.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE store_moves SET executions = executions + 1 WHERE id = $1 AND claimed_by = $2`, e.move.ID, string(e.lease.Owner))
		if err == nil && n == 0 {
			err = lease.ErrLost
		}
		if err == nil {
			e.move.Executions++
		}
		return err
	})
}

// fail stores why a move fails, for its owner.
func (e *execution) fail(ctx context.Context, tx *masterdb.Tx, cause error) error {
	fault := provisioning.FaultOf(cause)
	_, err := tx.Exec(ctx, `UPDATE store_moves SET error_code = $2, error_message = $3 WHERE id = $1`, e.move.ID, string(fault.Code), fault.Message)
	return err
}

// finish ends the move in tx and destroys its credentials.
func (e *execution) finish(ctx context.Context, tx *masterdb.Tx, state State) error {
	_, err := tx.Exec(ctx, `UPDATE store_moves SET state = $2, step = '', wish = '', finished_at = $3, source_credentials = '', target_credentials = '',
		claimed_by = NULL, claimed_until = NULL WHERE id = $1`, e.move.ID, string(state), tx.Now)
	if err != nil {
		return err
	}
	details := map[string]string{"move": e.move.ID.String(), "state": string(state)}
	return audit.Record(ctx, tx, authz.Principal{}, audit.Event{Action: audit.MoveEnded, Store: e.move.StoreID, Details: details})
}
