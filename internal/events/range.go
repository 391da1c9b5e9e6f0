package events

import (
	"context"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Range selects published events in the order of their positions.
type Range struct {
	Store       stoa.StoreID // zero: those of the whole platform
	After, UpTo int64        // positions after After, and not after UpTo
	Types       []string     // empty: all
	NewestFirst bool
	Limit       int
}

// Read reads the events.
func (r Range) Read(ctx context.Context, q masterdb.Querier) ([]Event, error) {
	query, args := r.query()
	found := []Event{}
	err := q.Select(ctx, &found, query, args...)
	return found, err
}

// query returns the query of the events, and its arguments.
//
// Those of one store are bounded and ordered by pairs of store and position, which only the
// index of both fits. For "store_id = … ORDER BY position" the planner of PostgreSQL may
// choose the index of all positions, and would read whatever other stores have done since.
func (r Range) query() (string, []any) {
	where, order, args := `position > $1 AND position <= $2`, `position`, []any{r.After, r.UpTo}
	switch {
	case r.Store.IsZero() && r.NewestFirst:
		order = `position DESC`
	case r.Store.IsZero():
	case r.NewestFirst:
		where, order, args = rangeOfStore, `store_id DESC, position DESC`, append(args, r.Store)
	default:
		where, order, args = rangeOfStore, `store_id, position`, append(args, r.Store)
	}
	if len(r.Types) > 0 {
		var in []string
		for _, t := range r.Types {
			args = append(args, t)
			in = append(in, "$"+strconv.Itoa(len(args)))
		}
		where += ` AND type IN (` + strings.Join(in, ", ") + `)`
	}
	args = append(args, r.Limit)
	return `SELECT id, position, store_id, user_id, type, data, created_at FROM events WHERE ` + where +
		` ORDER BY ` + order + ` LIMIT $` + strconv.Itoa(len(args)), args
}

const rangeOfStore = `(store_id, position) > ($3, $1) AND (store_id, position) <= ($3, $2)`
