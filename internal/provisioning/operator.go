package provisioning

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/page"
)

// StoreRun is a run with its store.
type StoreRun struct {
	Run
	Slug string
	Name string // of the store
}

// StoreRunPage is a page of runs of all stores, newest first, without their steps.
type StoreRunPage struct {
	Runs       []StoreRun
	NextCursor *string // nil on the last page
}

// RunsForOperator lists the runs of all stores in one state, or in every state for "",
// for operators of the platform. It fails with forbidden and with invalid_request.
func (s *Service) RunsForOperator(ctx context.Context, p authz.Principal, state State, limit int, cursor string) (StoreRunPage, error) {
	if err := authz.CheckOperator(ctx, s.db, p, "runs:read"); err != nil {
		return StoreRunPage{}, err
	}
	var faults stoa.Invalid
	bounds := page.ByID[stoa.RunID](limit, cursor, &faults)
	where, args := ``, []any{bounds.Before, bounds.Rows()}
	switch state {
	case "":
	case Queued, Running, Failed, Succeeded:
		where, args = ` AND r.state = $3`, append(args, string(state))
	default:
		faults.Add("state", "must be %s, %s, %s or %s", Queued, Running, Failed, Succeeded)
	}
	if err := faults.Err(); err != nil {
		return StoreRunPage{}, err
	}
	var rows []struct {
		runRow
		Slug, Name string
	}
	err := s.db.Select(ctx, &rows, `SELECT r.id, r.store_id, r.state, r.step, r.attempt, r.error_code, r.error_message, r.created_at, r.started_at,
			r.finished_at, r.in_project, r.warnings AS warning_list, s.slug, s.name
		FROM provisioning_runs r JOIN stores s ON s.id = r.store_id WHERE r.id < $1`+where+` ORDER BY r.id DESC LIMIT $2`, args...)
	if err != nil {
		return StoreRunPage{}, err
	}
	out := StoreRunPage{Runs: make([]StoreRun, 0, len(rows))}
	for i, row := range rows {
		if i == bounds.Limit {
			last := out.Runs[i-1].ID.String()
			out.NextCursor = &last
			break
		}
		run, err := row.run()
		if err != nil {
			return StoreRunPage{}, err
		}
		out.Runs = append(out.Runs, StoreRun{Run: run, Slug: row.Slug, Name: row.Name})
	}
	return out, nil
}
