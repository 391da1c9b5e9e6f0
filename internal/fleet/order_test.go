package fleet_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// remove deletes a file of the operator's migrations.
func (b fixture) remove(t *testing.T, name string) {
	t.Helper()
	for _, folder := range []string{"sqlite", "postgres", "mysql"} {
		testkit.Must(t, os.Remove(filepath.Join(b.ownDir, folder, name)))
	}
}

// order returns what CheckOrder finds in a replica with the present migrations, one line
// for each fault. The line begins with "!" if no process may start.
func (b fixture) order(t *testing.T, all bool) (found []string) {
	t.Helper()
	faults, err := b.release(t, fleet.Options{}).CheckOrder(t.Context(), all)
	testkit.Must(t, err)
	for _, f := range faults {
		text := f.String()
		if f.Refuses() {
			text = "!" + text
		}
		found = append(found, text)
	}
	return found
}

// TestCheckOrder checks that a file that was added below one that has run, or that is
// missing, is found at a start and reported with the stores, on every engine.
func TestCheckOrder(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.write(t, "00003_third.sql", `CREATE TABLE IF NOT EXISTS third (id integer PRIMARY KEY)`)
		var list []stores.Store
		for _, engine := range tenantdbtest.Engines() {
			list = append(list, b.store(t, engine))
		}
		migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
		if found := b.order(t, false); len(found) > 0 {
			t.Errorf("in order: %q", found)
		}
		b.write(t, "00002_second.sql", `CREATE TABLE IF NOT EXISTS second (id integer PRIMARY KEY)`)
		if sum, _ := migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{}); sum.Lagging != 0 {
			t.Fatalf("the registry tells it by itself: %+v", sum)
		}
		for _, all := range []bool{false, true} {
			found := b.order(t, all)
			if len(found) != 1 || !strings.HasPrefix(found[0], "!") || !strings.Contains(found[0], "00002_second.sql") {
				t.Fatalf("added below: %q", found)
			}
			for _, s := range list {
				if !strings.Contains(found[0], s.Slug) {
					t.Errorf("%s is not named: %q", s.Slug, found)
				}
			}
		}
		b.remove(t, "00002_second.sql")
		b.remove(t, "00003_third.sql")
		if found := b.order(t, false); len(found) > 0 {
			t.Errorf("as in the release before: %q", found)
		}
		b.write(t, "00004_third.sql", `CREATE TABLE third (id integer PRIMARY KEY)`)
		if found := b.order(t, false); len(found) != 1 || !strings.Contains(found[0], "the migration 3 has run") {
			t.Errorf("renumbered: %q", found)
		}
	})
}

// TestCheckOrderIsNoMerchants checks that neither a store whose server is unreachable nor
// the unusual version table of a single merchant's database prevents a start.
func TestCheckOrderIsNoMerchants(t *testing.T) {
	t.Parallel()
	if len(tenantdbtest.Engines()) < 2 {
		t.Skip("needs a PostgreSQL server")
	}
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.write(t, "00002_second.sql", `CREATE TABLE IF NOT EXISTS second (id integer PRIMARY KEY)`)
	b.write(t, "00003_third.sql", `CREATE TABLE IF NOT EXISTS third (id integer PRIMARY KEY)`)
	hostile := b.store(t, credential.PostgreSQL)
	for range 2 {
		b.store(t, credential.PostgreSQL)
	}
	away := b.store(t, credential.PostgreSQL)
	migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
	b.redirect(t, away, newHole(t).address)
	b.exec(t, `UPDATE store_databases SET own_version = 3 WHERE store_id = $1`, away.ID)
	b.tenant(t, hostile, `DELETE FROM `+tenantdb.CustomVersionTable+` WHERE version_id = 2`)
	found := b.order(t, false)
	if len(found) != 1 || strings.HasPrefix(found[0], "!") || !strings.Contains(found[0], hostile.Slug) {
		t.Errorf("found: %q", found)
	}
}

// TestOrderOfOneStore checks that a fault is also reported when a store is checked and
// when it is migrated.
func TestOrderOfOneStore(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	b.write(t, "00003_third.sql", `CREATE TABLE IF NOT EXISTS third (id integer PRIMARY KEY)`)
	b.store(t, credential.SQLite)
	migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
	b.write(t, "00002_second.sql", `CREATE TABLE IF NOT EXISTS second (id integer PRIMARY KEY)`)
	testkit.Must(t, b.release(t, fleet.Options{}).Check(t.Context(), nil, 1, func(c fleet.Checked) {
		if len(c.Drift) != 1 || !strings.Contains(c.Drift[0], "00002_second.sql") {
			t.Errorf("%+v", c)
		}
	}))
	b.write(t, "00004_fourth.sql", `CREATE TABLE IF NOT EXISTS fourth (id integer PRIMARY KEY)`)
	sum, r := migrate(t, b.release(t, fleet.Options{}), fleet.MigrateOptions{})
	if sum.Failed != 1 || r.list[0].Code != stoa.MigrationFailed || !strings.Contains(r.list[0].Message, "00002_second.sql") {
		t.Errorf("%+v %+v", sum, r.list)
	}
}
