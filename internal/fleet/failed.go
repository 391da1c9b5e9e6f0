package fleet

import (
	"context"
	"strconv"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/page"
)

// FailedPage is a page of the stores whose last migration failed, the newest store first.
type FailedPage struct {
	Stores     []Store
	NextCursor *string // nil on the last page
	// Failed is the number of such stores on all pages; MaxFailed + 1 means more than
	// MaxFailed.
	Failed int
}

// MaxFailed is how many stores FailedPage counts.
const MaxFailed = 1000

// The columns of the order and of the join are those of the partial index, so that it is
// read in its order. CROSS JOIN makes SQLite read it first.
const (
	fromFailed   = ` FROM store_databases x CROSS JOIN stores s` + inUse + ` AND s.id = x.store_id` + hasFailed
	selectFailed = selectColumns + fromFailed + ` AND x.store_id < $1 ORDER BY x.store_id DESC LIMIT $2`
)

// countFailed counts in the order of the index, so that PostgreSQL has no reason to read
// anything else first.
var countFailed = `SELECT count(*) FROM (SELECT x.store_id` + fromFailed + ` ORDER BY x.store_id LIMIT ` + strconv.Itoa(MaxFailed+1) + `) c`

// Failed lists the stores whose last migration failed, or has begun and not ended. What it
// reads does not grow with the fleet. It fails with invalid_request.
func (s *Service) Failed(ctx context.Context, limit int, cursor string) (FailedPage, error) {
	var faults stoa.Invalid
	bounds := page.ByID[stoa.StoreID](limit, cursor, &faults)
	if err := faults.Err(); err != nil {
		return FailedPage{}, err
	}
	list, err := s.list(ctx, selectFailed, bounds.Before, bounds.Rows())
	if err != nil {
		return FailedPage{}, err
	}
	var out FailedPage
	out.Stores, out.NextCursor = page.Cut(list, bounds.Limit, func(st Store) string { return st.ID.String() })
	err = s.db.Get(ctx, &out.Failed, countFailed)
	return out, err
}
