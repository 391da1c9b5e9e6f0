package tenantdb_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestExpectedStructure checks that the stored structures are the ones that the
// migrations create. After a new migration, run it with STOA_UPDATE=1 on all
// engines.
func TestExpectedStructure(t *testing.T) {
	t.Parallel()
	folders := map[credential.EngineName]string{credential.SQLite: "sqlite", credential.PostgreSQL: "postgres", credential.MySQL: "mysql"}
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)
			got, err := db.Structure(t.Context())
			testkit.Must(t, err)
			if os.Getenv("STOA_UPDATE") != "" {
				text, err := json.MarshalIndent(got, "", "\t")
				testkit.Must(t, err)
				testkit.Must(t, os.WriteFile("structure/"+folders[engine]+".json", append(text, '\n'), 0o600))
				return
			}
			want, err := tenantdb.Expected(engine)
			testkit.Must(t, err)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the migrations make something else; STOA_UPDATE=1 keeps it: %s", diff)
			}
			if len(want) < 100 {
				t.Errorf("only %d parts are expected", len(want))
			}
		})
	}
}

// TestDriftIsNamed checks each kind of difference on each engine.
func TestDriftIsNamed(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		want, err := tenantdb.Expected(db.Engine)
		testkit.Must(t, err)
		drop := map[credential.EngineName]string{credential.MySQL: `DROP INDEX products_status ON products`}[db.Engine]
		if drop == "" {
			drop = `DROP INDEX products_status`
		}
		for _, s := range []string{
			`CREATE TABLE aaa (n integer)`, `DROP TABLE credit_spending_log`, drop,
			`ALTER TABLE pages ADD COLUMN strange integer`, `ALTER TABLE users DROP COLUMN phone`, `ALTER TABLE users ADD COLUMN phone integer`,
		} {
			testkit.Must(t, exec(t, db, s))
		}
		got, err := db.Structure(t.Context())
		testkit.Must(t, err)
		phone := map[credential.EngineName]string{
			credential.SQLite:     `column users.phone is "integer", want "text not null default ''"`,
			credential.PostgreSQL: `column users.phone is "integer", want "character varying(40) not null default ''::character varying"`,
			credential.MySQL:      `column users.phone is "int", want "varchar(40) not null default"`,
		}[db.Engine]
		index := "index products.products_status is missing"
		if db.Engine == credential.SQLite {
			index = "index products.products_status on status, id is missing"
		}
		wanted := []string{
			"column pages.strange should not be there", phone, index, "table aaa should not be there", "table credit_spending_log is missing",
		}
		if diff := cmp.Diff(wanted, got.Drift(want, true)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(wanted[1:3:3], got.Drift(want, false)[:2]); diff != "" {
			t.Error(diff)
		}
	})
}
