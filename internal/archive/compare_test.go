package archive

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestCompareWithOneConnection compares databases of users who may have one connection.
func TestCompareWithOneConnection(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		limit := map[credential.EngineName]string{credential.PostgreSQL: `ALTER ROLE %s CONNECTION LIMIT 1`, credential.MySQL: `ALTER USER %s@'%%' WITH MAX_USER_CONNECTIONS 1`}[engine]
		if limit == "" {
			continue // it has no connections
		}
		c := tenantdbtest.Create(t, engine)
		tenantdbtest.Admin(t, engine, fmt.Sprintf(limit, c.User))
		db := tenantdbtest.Open(t, c)
		_, err := db.Migrate(t.Context())
		testkit.Must(t, err)
		fillStore(t, db)
		var sums []Summary
		_, head, _ := archived(t, db, newIdentity(t), WriteOptions{OnTable: func(s Summary) { sums = append(sums, s) }})
		testkit.Must(t, Compare(t.Context(), db, head.Tables, sums))
	}
}

// TestCompareFindsEachTable changes one summary after the other, which either connection may
// read.
func TestCompareFindsEachTable(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		fillStore(t, db)
		var sums []Summary
		_, head, _ := archived(t, db, newIdentity(t), WriteOptions{OnTable: func(s Summary) { sums = append(sums, s) }})
		testkit.Must(t, Compare(t.Context(), db, head.Tables, sums))
		for i := range sums {
			sums[i].Bytes++
			if err := Compare(t.Context(), db, head.Tables, sums); err == nil {
				t.Errorf("a difference of the table %s is not found", sums[i].Table)
			}
			sums[i].Bytes--
		}
		exec(t, db, `DROP TABLE order_items`)
		if err := Compare(t.Context(), db, head.Tables, sums); err == nil {
			t.Error("a table that cannot be read is equal")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := Compare(ctx, db, head.Tables, sums); !errors.Is(err, context.Canceled) {
			t.Errorf("the error is %v", err)
		}
	})
}

// TestComparisonReadsWhatWasLoaded checks that a snapshot is used for the tables that were
// loaded before it began, the largest first.
func TestComparisonReadsWhatWasLoaded(t *testing.T) {
	t.Parallel()
	c := comparison{states: make([]tableState, 3), want: []Summary{{Bytes: 1}, {Bytes: 5}, {Bytes: 9}}}
	for _, want := range []int{1, 0, -1} {
		index, _, ok := c.take(2)
		if !ok {
			index = -1
		}
		if index != want {
			t.Errorf("reads the table %d, want %d", index, want)
		}
	}
	if left := c.count(unread); left != 1 {
		t.Errorf("%d tables are left, want 1", left)
	}
}
