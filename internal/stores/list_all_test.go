package stores

import (
	"context"
	"reflect"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// countingQuerier counts the rows that lists are read from.
type countingQuerier struct {
	masterdb.Querier
	rows *int
}

func (c countingQuerier) Select(ctx context.Context, dest any, query string, args ...any) error {
	err := c.Querier.Select(ctx, dest, query, args...)
	*c.rows += reflect.ValueOf(dest).Elem().Len()
	return err
}

// TestListAllReadsOnlyWhatItLists checks that the list of the stores in one status reads no
// details of the stores between them: there may be a hundred thousand.
func TestListAllReadsOnlyWhatItLists(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		ids := b.fill(t, b.user(t), 60) // one in ten is suspended; each has a database
		read := 0
		list, err := ListAll(t.Context(), countingQuerier{db, &read}, Suspended, stoa.StoreID{}, 4)
		testkit.Must(t, err)
		if len(list) != 4 || list[0].ID != ids[50] || list[3].ID != ids[20] {
			t.Fatalf("%d stores: %+v", len(list), list)
		}
		for _, s := range list {
			if s.Status != Suspended || s.Database == nil {
				t.Errorf("%+v", s)
			}
		}
		if read > 2*len(list) {
			t.Errorf("%d rows were read for %d stores with a database", read, len(list))
		}
		rest, err := ListAll(t.Context(), db, Suspended, list[3].ID, 4)
		if err != nil || len(rest) != 2 || rest[1].ID != ids[0] {
			t.Errorf("then %+v, %v", rest, err)
		}
		if all, err := ListAll(t.Context(), db, "", stoa.StoreID{}, 100); err != nil || len(all) != 60 || all[59].Database == nil {
			t.Errorf("%d stores in all, %v", len(all), err)
		}
	})
}
