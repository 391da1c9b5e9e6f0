package tenantdb_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestOrderFaults compares recorded versions with files and checks which
// contradictions are reported.
func TestOrderFaults(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		files, applied []int64
		want           []string
	}{
		"none applied":        {[]int64{1, 2}, nil, nil},
		"in order":            {[]int64{1, 2, 3}, []int64{1, 2}, nil},
		"gaps":                {[]int64{1, 5, 9}, []int64{1, 5}, nil},
		"below":               {[]int64{1, 2, 3}, []int64{1, 3}, []string{"sqlite/2_m.sql was added below"}},
		"below the first":     {[]int64{1, 2}, []int64{2}, []string{"sqlite/1_m.sql was added below"}},
		"gone":                {[]int64{1, 3}, []int64{1, 2, 3}, []string{"the migration 2 has run"}},
		"gone, more to come":  {[]int64{1, 3}, []int64{1, 2}, []string{"the migration 2 has run"}},
		"renumbered up":       {[]int64{1, 4, 5}, []int64{1, 2, 4}, []string{"the migration 2 has run"}},
		"renumbered down":     {[]int64{1, 2}, []int64{1, 3}, []string{"sqlite/2_m.sql was added below"}},
		"merged into the 3rd": {[]int64{3, 4}, []int64{1, 2, 3}, nil},
		"of a later release":  {[]int64{1, 2}, []int64{1, 2, 3, 4}, nil},
		"both":                {[]int64{1, 2, 4}, []int64{1, 3, 4}, []string{"sqlite/2_m.sql", "the migration 3"}},
	} {
		files := map[string]string{}
		for _, v := range tt.files {
			files[fmt.Sprintf("sqlite/%d_m.sql", v)] = up
		}
		own, err := tenantdb.LoadCustomMigrations(ownMigrations(t, files))
		testkit.Must(t, err)
		var got []string
		for _, f := range own.OrderFaults(credential.SQLite, tt.applied) {
			got = append(got, f.String())
		}
		if !slices.EqualFunc(got, tt.want, strings.HasPrefix) {
			t.Errorf("%s: %q", name, got)
		}
	}
	if faults := (*tenantdb.CustomMigrations)(nil).OrderFaults(credential.SQLite, []int64{1}); faults != nil {
		t.Errorf("without any: %v", faults)
	}
}

// TestMigrateOutOfOrder checks that a database that has already run a later
// migration is not changed, and that the error names the file and the remedy.
func TestMigrateOutOfOrder(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			folder := map[credential.EngineName]string{credential.SQLite: "sqlite", credential.MySQL: "mysql"}[engine]
			if folder == "" {
				folder = "postgres"
			}
			file := func(n int) (string, string) {
				return fmt.Sprintf("%s/%05d_t%d.sql", folder, n, n), fmt.Sprintf("%sCREATE TABLE t%d (id integer PRIMARY KEY);", up, n)
			}
			dir := t.TempDir()
			write := func(numbers ...int) {
				for _, n := range numbers {
					name, text := file(n)
					testkit.Must(t, os.MkdirAll(filepath.Join(dir, folder), 0o700))
					testkit.Must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
				}
			}
			remove := func(n int) {
				name, _ := file(n)
				testkit.Must(t, os.Remove(filepath.Join(dir, name)))
			}
			c, data := tenantdbtest.Create(t, engine), t.TempDir()
			refused := func(want string) {
				t.Helper()
				db := opened(t, c, data, dir)
				_, err := db.Migrate(t.Context())
				if stoa.CodeOf(err) != stoa.MigrationFailed || !strings.Contains(err.Error(), want) {
					t.Errorf("want %q: %v", want, err)
				}
				if in, err := db.Inspect(t.Context()); err != nil || slices.Contains(in.Tables, "t2") || slices.Contains(in.Tables, "t4") {
					t.Errorf("it was migrated all the same: %v, %v", in.Tables, err)
				}
			}
			write(1, 3)
			_, err := opened(t, c, data, dir).Migrate(t.Context())
			testkit.Must(t, err)
			write(2)
			refused(folder + "/00002_t2.sql was added below")
			write(4)
			refused(folder + "/00002_t2.sql was added below")
			remove(2)
			remove(3) // the file returns under another number
			write(5)
			refused("the migration 3 has run")
			write(3)
			schema, err := opened(t, c, data, dir).MigrateTo(t.Context(), tenantdb.MigrateOptions{})
			if err != nil || schema.Own != 5 {
				t.Errorf("%+v, %v", schema, err)
			}
		})
	}
}
