package archive

import (
	"context"
	"fmt"
	"io"
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

// TestEndlessRowsAreRefused archives and copies a table with more rows than anybody can read.
func TestEndlessRowsAreRefused(t *testing.T) {
	t.Parallel()
	onServers(t, func(t *testing.T, ctx context.Context, db *tenantdb.DB) {
		_, head, _ := archived(t, db, newIdentity(t), WriteOptions{})
		tenantdbtest.EndlessSettings(t, db, true)
		head.Tables = slices.DeleteFunc(head.Tables, func(t Table) bool { return t.Name != "settings" })
		w, err := NewWriter(io.Discard, head, newIdentity(t).Recipient())
		testkit.Must(t, err)
		defer w.Abort()
		w.content.most = 1 << 20
		wantMessage(t, db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
			return source{s, db.Engine}.writeTable(ctx, w, head.Tables[0], WriteOptions{})
		}), stoa.ArchiveRefused, "1048576 bytes")
		l := loader{db: migrated(t, credential.SQLite)}
		wantMessage(t, db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
			return l.copyTable(ctx, source{s, db.Engine}, head.Tables[0], &contentLimit{most: 1 << 20})
		}), stoa.ArchiveRefused, "1048576 bytes")
	})
}

// TestContentLimit archives and copies stores that are within the limit, and above it.
func TestContentLimit(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		fillStore(t, db)
		id := newIdentity(t)
		_, _, total := archived(t, db, id, WriteOptions{})
		for most, refused := range map[int64]bool{total.Bytes - 1: true, total.Bytes + total.Bytes/4: false} { // links are counted too
			_, _, writeErr := Write(t.Context(), db, stoa.NewID[stoa.StoreID](), io.Discard, WriteOptions{MaxBytes: most}, id.Recipient())
			target := tenantdbtest.Open(t, tenantdbtest.Create(t, credential.SQLite))
			_, copyErr := Copy(t.Context(), db, target, stoa.NewID[stoa.StoreID](), CopyOptions{MaxBytes: most})
			for _, err := range []error{writeErr, copyErr} {
				if refused {
					wantMessage(t, err, stoa.ArchiveRefused, fmt.Sprint(most), "higher limit")
				} else if err != nil {
					t.Errorf("%d of %d bytes: %v", total.Bytes, most, err)
				}
			}
		}
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
