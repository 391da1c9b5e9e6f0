package fleet_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// fill enters n active stores into the master whose databases do not exist: shop-1 to
// shop-n, in the order of their ids. The migration of every failedth has failed.
func (b fixture) fill(t *testing.T, n, failedth int) {
	t.Helper()
	id := `'00000000-0000-7000-8000-' || substr(CAST(1000000000000 + i AS text), 2)`
	if b.db.Engine == masterdb.Postgres {
		id = `CAST(` + id + ` AS uuid)`
	}
	numbers := fmt.Sprintf(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < %d)`, n)
	now := b.db.Now().UTC()
	b.exec(t, numbers+` INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
		SELECT `+id+`, 'shop-' || i, 'Shop', 'active', $1, $2, $2 FROM n`, b.owner.UserID, now)
	b.exec(t, numbers+` INSERT INTO store_databases (store_id, kind, engine, host, port, database_name, credentials, credential_version, schema_version, status,
			created_at, updated_at, migration_error, migration_message, migration_attempts, migrated_at)
		SELECT `+id+fmt.Sprintf(`, 'postgresql', 'postgresql', 'db', 5432, 'x', 'x', 1, 1, 'ok', $1, $1,
			CASE WHEN i %% %[1]d = 0 THEN 'database_not_empty' END, CASE WHEN i %% %[1]d = 0 THEN 'It has tables.' END, 2, $1 FROM n`, failedth), now)
	masterdbtest.Analyze(t, b.db, "stores", "store_databases")
}

func TestFailedIsPaged(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		s := b.release(t, fleet.Options{})
		b.fill(t, 100, 10)
		b.exec(t, `UPDATE stores SET status = 'deleting' WHERE slug = 'shop-50'`)
		b.exec(t, `UPDATE store_databases SET migration_starts = 1, migration_started_at = $1 WHERE store_id = (SELECT id FROM stores WHERE slug = 'shop-7')`, db.Now().UTC())
		var slugs []string
		for cursor := ""; ; {
			page, err := s.Failed(t.Context(), 4, cursor)
			testkit.Must(t, err)
			if page.Failed != 10 || len(page.Stores) > 4 {
				t.Errorf("%d failed, %d on a page", page.Failed, len(page.Stores))
			}
			for _, st := range page.Stores {
				slugs = append(slugs, st.Slug)
				if st.Code == "" || st.Message == "" || st.At == nil || st.Attempts < 2 {
					t.Errorf("%+v", st)
				}
			}
			if page.NextCursor == nil {
				break
			}
			cursor = *page.NextCursor
		}
		want := []string{"shop-100", "shop-90", "shop-80", "shop-70", "shop-60", "shop-40", "shop-30", "shop-20", "shop-10", "shop-7"}
		if !slices.Equal(slugs, want) {
			t.Errorf("%v, want %v", slugs, want)
		}
		for _, cursor := range []string{"x", "0", "shop-7"} {
			if _, err := s.Failed(t.Context(), 0, cursor); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("cursor %q: %v", cursor, err)
			}
		}
	})
}

// TestFailedUsesItsIndex checks that the list reads the stores that failed, and of them no
// more than a page.
func TestFailedUsesItsIndex(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.fill(t, 10_000, 5)
		sorts, index := regexp.MustCompile(`Sort|TEMP B-TREE`), "store_databases_unmigrated"
		for name, query := range fleet.FailedQueries() {
			plan := masterdbtest.Plan(t, db, query.SQL, query.Args...)
			if masterdbtest.ReadsTable(plan) || sorts.MatchString(plan) || !strings.Contains(plan, index) {
				t.Errorf("the %s:\n%s", name, plan)
			}
		}
		page, err := b.release(t, fleet.Options{}).Failed(t.Context(), 0, "")
		testkit.Must(t, err)
		if page.Failed != fleet.MaxFailed+1 {
			t.Errorf("%d failed, want a bounded count", page.Failed)
		}
	})
}
