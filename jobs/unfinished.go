package jobs

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/stoahq/stoa/masterdb"
)

// Unfinished returns the arguments of every job of A's kind that is still to
// end: running, waiting for its time or to be tried again.
func Unfinished[A Args](ctx context.Context, db *masterdb.DB) ([]A, error) {
	var none A
	column := `json(args)` // SQLite keeps it in a binary form
	if db.Engine == masterdb.Postgres {
		column = `args::text`
	}
	var rows []string
	err := db.Select(ctx, &rows, `SELECT `+column+` FROM river_job
		WHERE kind = $1 AND CAST(state AS text) NOT IN ('cancelled', 'completed', 'discarded')`, none.Kind())
	if err != nil {
		return nil, err
	}
	out := make([]A, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal([]byte(row), &out[i]); err != nil {
			return nil, fmt.Errorf("arguments of a job %s: %w", none.Kind(), err)
		}
	}
	return out, nil
}
