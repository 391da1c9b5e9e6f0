package fleet

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
)

// RunBulk is the job of one bulk action.
type RunBulk struct {
	ID stoa.BulkActionID `json:"id"`
	jobs.AtTenant
}

// Kind implements jobs.Args.
func (RunBulk) Kind() string { return "fleet.bulk_action" }

// bulkStep is the number of stores after which the progress is recorded. A job that runs
// again repeats at most that many; for a store that is done already nothing changes.
const bulkStep = 25

// Run runs the job. It continues where the last execution ended.
func (b *Bulk) Run(ctx context.Context, job RunBulk) error {
	row, err := b.read(ctx, b.db, job.ID)
	if stoa.CodeOf(err) == stoa.NotFound {
		return jobs.Cancel(err) // its record has expired
	}
	if err != nil || row.Ended() {
		return err
	}
	a, err := row.action()
	if err != nil {
		return jobs.Cancel(err)
	}
	principal := authz.Principal{UserID: a.UserID, Origin: audit.Origin{RequestID: a.ID.String()}} // one access for the audit log
	err = b.mayRun(ctx, principal, a)
	for more := true; err == nil && more; {
		if err = ctx.Err(); err == nil {
			row.Position, more, err = b.step(ctx, principal, a, row.Position)
		}
	}
	var known *stoa.Error
	switch {
	case errors.Is(err, errOvertaken):
		return nil
	case err == nil:
		return b.end(ctx, principal, a, BulkFinished, "")
	case errors.As(err, &known) && known.Code != stoa.PlatformUnavailable && ctx.Err() == nil:
		return b.end(ctx, principal, a, BulkFailed, known.Message)
	}
	return err // a fault of the master, or the process stops: the job runs again
}

// errOvertaken means that another process runs the same action.
var errOvertaken = errors.New("fleet: another process continues this action")

// mayRun checks that the user is still an operator and that custom migrations can run in
// their order.
func (b *Bulk) mayRun(ctx context.Context, p authz.Principal, a BulkAction) error {
	if err := authz.CheckOperator(ctx, b.db, p, a.Kind.operatorAction()); err != nil || a.Kind != BulkMigrate {
		return err
	}
	faults, err := b.CheckOrder(ctx, false)
	for _, fault := range faults {
		if err == nil && fault.Refuses() {
			err = stoa.Errorf(stoa.InvalidRequest, "The operator's custom migrations cannot run in order: %s", fault)
		}
	}
	return err
}

// bulkCounts are the results of one step.
type bulkCounts struct {
	done, unchanged, failed int
	failures                []BulkFailure
}

func (c *bulkCounts) fail(store stoa.StoreID, slug, message string) {
	c.failed++
	c.failures = append(c.failures, BulkFailure{Store: store, Slug: slug, Message: message})
}

// step acts on the next stores after position and records the progress.
func (b *Bulk) step(ctx context.Context, p authz.Principal, a BulkAction, position string) (next string, more bool, err error) {
	ids, next, err := b.next(ctx, a.Selection, position)
	if err != nil {
		return position, false, err
	}
	var counts bulkCounts
	if len(ids) > 0 {
		switch a.Kind {
		case BulkMigrate:
			err = b.migrateStep(ctx, ids, &counts)
		case BulkSuspend:
			err = b.changeEach(ctx, p, ids, &counts, b.registry.SuspendForOperator)
		case BulkResume:
			err = b.changeEach(ctx, p, ids, &counts, b.registry.ResumeForOperator)
		}
		if err != nil {
			return position, false, err
		}
	}
	more = next != ""
	if !more {
		next = bulkEnd
	}
	return next, more, b.recordStep(ctx, a.ID, position, next, counts)
}

// bulkEnd is the position after the last store.
const bulkEnd = "end"

// next returns the stores that follow position, and the position after them; "" at the
// end.
func (b *Bulk) next(ctx context.Context, sel Selection, position string) (ids []stoa.StoreID, next string, err error) {
	if position == bulkEnd {
		return nil, "", nil
	}
	if sel.Filter != nil {
		f := *sel.Filter
		f.Limit, f.Cursor = bulkStep, position
		ids, cursor, err := b.registry.Select(ctx, f)
		if cursor != nil {
			next = *cursor
		}
		return ids, next, err
	}
	from, _ := strconv.Atoi(position) // "" is the beginning
	to := min(from+bulkStep, len(sel.Stores))
	if to < len(sel.Stores) {
		next = strconv.Itoa(to)
	}
	return sel.Stores[min(from, to):to], next, nil
}

// changeEach suspends or resumes stores with the operator's own permission.
func (b *Bulk) changeEach(ctx context.Context, p authz.Principal, ids []stoa.StoreID, counts *bulkCounts,
	change func(context.Context, authz.Principal, stoa.StoreID) (bool, error)) error {
	for _, id := range ids {
		changed, err := change(ctx, p, id)
		var known *stoa.Error
		switch {
		case err == nil && changed:
			counts.done++
		case err == nil:
			counts.unchanged++
		case ctx.Err() != nil || !errors.As(err, &known) || known.Code == stoa.PlatformUnavailable || known.Code == stoa.Forbidden:
			return err
		default:
			identity, _ := b.registry.ReadIdentity(ctx, id) // the id tells enough
			counts.fail(id, identity.Slug, known.Message)
		}
	}
	return nil
}

// collector collects the failures of a migration.
type collector struct{ counts *bulkCounts }

func (collector) Begin(int) {}

func (c collector) Add(r Result) {
	switch r.State {
	case Migrated, Current:
		c.counts.done++
	case Failed:
		c.counts.fail(r.Store.ID, r.Store.Slug, r.Message)
	case Pending, Interrupted: // the next execution migrates it
	}
}

func (b *Bulk) migrateStep(ctx context.Context, ids []stoa.StoreID, counts *bulkCounts) error {
	sum, err := b.Migrate(ctx, MigrateOptions{Stores: ids, Concurrency: jobConcurrency, MaxFailures: Share{N: 100, Percent: true}}, collector{counts})
	if err == nil && sum.Interrupted+sum.Untouched > 0 {
		err = ctx.Err()
	}
	counts.unchanged = len(ids) - sum.Lagging
	return err
}

// recordStep adds the results of a step unless another process has recorded it.
func (b *Bulk) recordStep(ctx context.Context, id stoa.BulkActionID, position, next string, c bulkCounts) error {
	return b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var text string
		err := tx.Get(ctx, &text, `SELECT failures FROM bulk_actions WHERE id = $1`+tx.ForUpdate(), id)
		if err != nil {
			return err
		}
		var failures []BulkFailure
		if err := json.Unmarshal([]byte(text), &failures); err != nil {
			return err
		}
		failures = append(failures, c.failures[:min(len(c.failures), max(maxBulkFailures-len(failures), 0))]...)
		encoded, err := json.Marshal(slices.Concat([]BulkFailure{}, failures))
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `UPDATE bulk_actions SET state = 'running', position = $3, done = done + $4, unchanged = unchanged + $5, failed = failed + $6, failures = $7
			WHERE id = $1 AND position = $2`, id, position, next, c.done, c.unchanged, c.failed, string(encoded))
		if err == nil && n == 0 {
			err = errOvertaken
		}
		return err
	})
}

// end records the end of an action.
func (b *Bulk) end(ctx context.Context, p authz.Principal, a BulkAction, state BulkState, message string) error {
	return b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE bulk_actions SET state = $2, error = $3, finished_at = $4 WHERE id = $1 AND finished_at IS NULL`,
			a.ID, string(state), strings.TrimSpace(message), tx.Now)
		if err != nil || n == 0 || a.Kind != BulkMigrate {
			return err
		}
		row, err := b.read(ctx, tx, a.ID)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.TenantsMigrated, Details: map[string]string{
			"version": strconv.FormatInt(b.tenants.Expected().Version, 10), "migrated": strconv.FormatInt(row.Done, 10),
			"failed": strconv.FormatInt(row.Failed, 10), "action": a.ID.String(),
		}})
	})
}
