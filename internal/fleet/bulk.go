package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
)

// BulkKind is what a bulk action does to each store.
type BulkKind string

// The kinds of bulk actions.
const (
	BulkSuspend BulkKind = "suspend" // as the operator: owners cannot resume the store
	BulkResume  BulkKind = "resume"  // also a store that its owner suspended
	BulkMigrate BulkKind = "migrate" // to the schema of the process that runs the job
)

// BulkState is the state of a bulk action.
type BulkState string

// The states of a bulk action.
const (
	BulkQueued   BulkState = "queued"
	BulkRunning  BulkState = "running"
	BulkFinished BulkState = "finished"
	BulkFailed   BulkState = "failed" // it ended early
)

// Selection names stores: those listed, or those that a filter selects when the job
// reaches them.
type Selection struct {
	Stores []stoa.StoreID     `json:"stores,omitempty"`
	Filter *stores.ListFilter `json:"filter,omitempty"`
}

// MaxSelected is the number of stores that a selection may list.
const MaxSelected = 500

// BulkAction is an action on many stores with its progress.
type BulkAction struct {
	ID         stoa.BulkActionID
	UserID     stoa.UserID
	Email      string // of the user
	Kind       BulkKind
	Selection  Selection `db:"-"`
	State      BulkState
	Total      *int64 // stores, if the selection lists them
	Done       int64
	Unchanged  int64 // stores that had nothing to be done
	Failed     int64
	Failures   []BulkFailure `db:"-"` // the first ones
	Error      string        // why it ended early
	CreatedAt  time.Time
	FinishedAt *time.Time
}

// Ended reports whether the action will not change any more.
func (a BulkAction) Ended() bool { return a.State == BulkFinished || a.State == BulkFailed }

// BulkFailure is a store that an action failed for.
type BulkFailure struct {
	Store   stoa.StoreID `json:"store"`
	Slug    string       `json:"slug"`
	Message string       `json:"message"`
}

// maxBulkFailures is the number of failures that are recorded with their reason.
const maxBulkFailures = 50

// Bulk acts on many stores for operators of the platform, in jobs. Unlike Service, it
// checks permissions: of the operator who begins an action, and again when the job runs.
// It is safe for concurrent use.
type Bulk struct {
	*Service
	registry *stores.Registry
	queue    *jobs.Queue
}

// NewBulk returns the bulk actions on the stores of registry. Its Run method is the
// handler of RunBulk jobs.
func NewBulk(s *Service, registry *stores.Registry, queue *jobs.Queue) *Bulk {
	return &Bulk{Service: s, registry: registry, queue: queue}
}

// operatorAction is the action that the audit log records for the access of an operator.
func (k BulkKind) operatorAction() authz.Action {
	if k == BulkMigrate {
		return "store:migrate"
	}
	return authz.SuspendStore
}

// Begin queues an action on the selected stores. It fails with invalid_request, and with
// forbidden unless the caller is an operator.
func (b *Bulk) Begin(ctx context.Context, p authz.Principal, kind BulkKind, sel Selection) (BulkAction, error) {
	if err := checkBulk(kind, &sel); err != nil {
		return BulkAction{}, err
	}
	if err := authz.CheckOperator(ctx, b.db, p, kind.operatorAction()); err != nil {
		return BulkAction{}, err
	}
	if sel.Filter != nil {
		f := *sel.Filter
		f.Limit, f.Cursor, f.Newer = 0, "", false
		sel.Filter = &f
		if _, _, err := b.registry.Select(ctx, f); err != nil { // refuses an invalid filter
			return BulkAction{}, err
		}
	}
	a := BulkAction{ID: stoa.NewID[stoa.BulkActionID](), UserID: p.UserID, Kind: kind, Selection: sel, State: BulkQueued}
	if n := int64(len(sel.Stores)); n > 0 {
		a.Total = &n
	}
	text, err := json.Marshal(sel)
	if err != nil {
		return BulkAction{}, err
	}
	return a, b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		a.CreatedAt = tx.Now
		_, err := tx.Exec(ctx, `INSERT INTO bulk_actions (id, user_id, kind, selection, state, total, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
			a.ID, a.UserID, string(kind), string(text), string(a.State), a.Total, tx.Now)
		if err != nil {
			return err
		}
		details := map[string]string{"kind": string(kind), "action": a.ID.String()}
		if a.Total != nil {
			details["stores"] = strconv.FormatInt(*a.Total, 10)
		}
		if err := audit.Record(ctx, tx, p, audit.Event{Action: audit.BulkBegun, Details: details}); err != nil {
			return err
		}
		return b.queue.Enqueue(ctx, tx, RunBulk{ID: a.ID})
	})
}

// checkBulk checks a selection and removes what it lists twice.
func checkBulk(kind BulkKind, sel *Selection) error {
	var faults stoa.Invalid
	if kind != BulkSuspend && kind != BulkResume && kind != BulkMigrate {
		faults.Add("action", "must be suspend, resume or migrate")
	}
	seen := map[stoa.StoreID]bool{}
	var once []stoa.StoreID
	for _, id := range sel.Stores {
		if !seen[id] {
			seen[id], once = true, append(once, id)
		}
	}
	sel.Stores = once
	switch {
	case len(sel.Stores) > 0:
		sel.Filter = nil
		if len(sel.Stores) > MaxSelected {
			faults.Add("store", "select at most %d stores, or all that match a filter", MaxSelected)
		}
	case sel.Filter == nil:
		faults.Add("store", "select at least one store")
	case kind != BulkMigrate && isUnfiltered(*sel.Filter):
		faults.Add("store", "choose a filter: this would %s every store of the platform", kind)
	}
	return faults.Err()
}

// isUnfiltered reports whether a filter selects every store.
func isUnfiltered(f stores.ListFilter) bool {
	return f.Search == "" && f.Status == "" && f.Engine == "" && f.Health == "" && f.Schema == 0 && !f.Behind && f.Server == ""
}

const selectBulk = `SELECT a.id, a.user_id, u.email, a.kind, a.selection, a.state, a.total, a.done, a.unchanged, a.failed, a.failures, a.position,
	coalesce(a.error, '') AS error, a.created_at, a.finished_at FROM bulk_actions a JOIN users u ON u.id = a.user_id`

// bulkRow is the row of a BulkAction.
type bulkRow struct {
	BulkAction
	SelectionText string `db:"selection"`
	FailuresText  string `db:"failures"`
	Position      string
}

func (r bulkRow) action() (BulkAction, error) {
	a := r.BulkAction
	return a, errors.Join(json.Unmarshal([]byte(r.SelectionText), &a.Selection), json.Unmarshal([]byte(r.FailuresText), &a.Failures))
}

// Get returns an action. It fails with not_found, and with forbidden unless the caller is
// an operator.
func (b *Bulk) Get(ctx context.Context, p authz.Principal, id stoa.BulkActionID) (BulkAction, error) {
	if err := authz.CheckOperator(ctx, b.db, p, authz.ReadStore); err != nil {
		return BulkAction{}, err
	}
	row, err := b.read(ctx, b.db, id)
	if err != nil {
		return BulkAction{}, err
	}
	return row.action()
}

func (b *Bulk) read(ctx context.Context, q masterdb.Querier, id stoa.BulkActionID) (row bulkRow, err error) {
	err = q.Get(ctx, &row, selectBulk+` WHERE a.id = $1`, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		err = stoa.Errorf(stoa.NotFound, "There is no such action.")
	}
	return row, err
}

// Latest returns the last n actions, newest first. The caller must be an operator.
func (b *Bulk) Latest(ctx context.Context, p authz.Principal, n int) ([]BulkAction, error) {
	if err := authz.CheckOperator(ctx, b.db, p, authz.ReadStore); err != nil {
		return nil, err
	}
	var rows []bulkRow
	if err := b.db.Select(ctx, &rows, selectBulk+` ORDER BY a.id DESC LIMIT $1`, min(max(n, 1), 100)); err != nil {
		return nil, err
	}
	list := make([]BulkAction, len(rows))
	for i, row := range rows {
		var err error
		if list[i], err = row.action(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Migration returns the record of a store's migrations; ok is false for a store whose
// database is not in use. The caller must be an operator.
func (b *Bulk) Migration(ctx context.Context, p authz.Principal, id stoa.StoreID) (st Store, ok bool, err error) {
	if err := authz.CheckOperator(ctx, b.db, p, authz.ReadStore); err != nil {
		return Store{}, false, err
	}
	list, err := b.list(ctx, selectStores+` AND s.id = $1`, id)
	if err != nil || len(list) == 0 {
		return Store{}, false, err
	}
	return list[0], true, nil
}

// IsBehind reports whether a store's schema lacks migrations of this process.
func (b *Bulk) IsBehind(st Store) bool { return behind(st.Schema, b.tenants.Expected()) }
