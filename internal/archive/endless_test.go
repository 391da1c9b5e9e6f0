package archive

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// onServers runs test for a store on each server, which may be hostile, unlike an embedded
// database. The context ends after a time that is too short for endless rows.
func onServers(t *testing.T, test func(t *testing.T, ctx context.Context, db *tenantdb.DB)) {
	t.Helper()
	for _, engine := range slices.DeleteFunc(tenantdbtest.All(), credential.EngineName.Embedded) {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := migrated(t, engine)
			fillStore(t, db)
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			test(t, ctx, db)
		})
	}
}

// TestComparisonEndsAtTheFirstRowTooMany compares databases that send rows without an end: more
// than expected, and as many but longer ones.
func TestComparisonEndsAtTheFirstRowTooMany(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, ctx context.Context, db *tenantdb.DB) {
		var want []Summary
		_, head, _ := archived(t, db, newIdentity(t), WriteOptions{OnTable: func(s Summary) { want = append(want, s) }})
		tenantdbtest.EndlessSettings(t, db, true)
		wantMessage(t, Compare(ctx, db, head.Tables, want), stoa.ArchiveRefused, "settings", "more than")
		for i := range want {
			if want[i].Table == "settings" {
				want[i].Rows, want[i].Bytes = math.MaxInt64, 1<<20
			}
		}
		wantMessage(t, Compare(ctx, db, head.Tables, want), stoa.ArchiveRefused, "settings", "not the same")
	})
}

// TestRowsOfKeysEnd asks for the rows of two keys of a table that has more of them.
func TestRowsOfKeysEnd(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, ctx context.Context, db *tenantdb.DB) {
		tables, err := Tables(ctx, tenantdb.LatestVersion())
		testkit.Must(t, err)
		for _, table := range tables {
			if table.Name != "settings" {
				continue
			}
			now := time.Now().UTC()
			exec(t, db, `INSERT INTO settings (setting_key, setting_value, created_at, updated_at) VALUES ('k', '{}', ?, ?)`, now, now)
			exec(t, db, `ALTER TABLE settings RENAME TO kept`)
			exec(t, db, `CREATE VIEW settings AS SELECT kept.* FROM kept, users a, users b`)
			rows := 0
			err := db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
				return NewRows(db, s).ByKey(ctx, table, []Key{`["k"]`, `["l"]`}, func(Row) error {
					rows++
					return nil
				})
			})
			wantMessage(t, err, stoa.ArchiveRefused, "settings")
			if rows != 2 {
				t.Errorf("%d rows for two keys, want 2", rows)
			}
		}
	})
}
