package provisioning

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestHostileSettings checks that a store on a server with hostile settings is connected,
// served, written to and rotated like any other, and that a schema with the user's name
// that is created later is not used.
func TestHostileSettings(t *testing.T) {
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if servers(t)[0] != credential.PostgreSQL {
			t.Skip("needs PostgreSQL")
		}
		b := setup(t, db).start(t)
		cases := [][]string{slices.DeleteFunc(slices.Clone(tenantdbtest.HostileRole), func(s string) bool {
			return strings.HasPrefix(s, "search_path") // the effective search_path names another schema
		})}
		if !testing.Short() && db.Engine == masterdb.SQLite {
			for _, setting := range tenantdbtest.HostileRole {
				cases = append(cases, []string{setting})
			}
		}
		for _, settings := range cases {
			t.Run(fmt.Sprintf("%.60s", strings.Join(settings, "; ")), func(t *testing.T) {
				c := credentials(t, credential.PostgreSQL)
				for _, setting := range settings {
					tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+c.User+` SET `+setting)
				}
				b.keepsWords(t, c, func() { tenantdbtest.Exec(t, c, `CREATE SCHEMA `+c.User) })
			})
		}
	})
}

// TestHostileGlobals is the same test on MySQL and MariaDB, whose settings apply to the
// whole server.
func TestHostileGlobals(t *testing.T) {
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin, create := tenantdbtest.OwnMySQL(t, start)
			b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))).start(t)
			settings := tenantdbtest.HostileGlobals
			if testing.Short() {
				settings = []string{`autocommit = 0`, `init_connect = 'SET NAMES latin1'`, `sql_mode = 'NO_BACKSLASH_ESCAPES'`, `wait_timeout = 1`}
			}
			for _, setting := range settings {
				t.Run(setting, func(t *testing.T) {
					c := create(t)
					variable, _, _ := strings.Cut(setting, " ")
					if _, err := admin.ExecContext(t.Context(), `SET GLOBAL `+setting); err != nil {
						t.Skipf("%s has no such setting: %v", name, err)
					}
					defer admin.ExecContext(context.Background(), `SET GLOBAL `+variable+` = DEFAULT`) //nolint:errcheck // no other test uses this server
					b.keepsWords(t, c, func() {})
				})
			}
		})
	}
}

// keepsWords connects a store's database, applies change to the server, and checks that
// the store returns text as it was written, before and after a rotation.
func (b fixture) keepsWords(t *testing.T, c credential.Credentials, change func()) {
	t.Helper()
	p, s := b.store(t)
	s = b.succeeded(t, p, b.connect(t, p, s.ID, c))
	change()
	b.tenants.Forget(s.ID)
	words := `back\slash 'quote' "é" ` + "\U0001f980" + ` ends`
	for range 2 {
		lease, err := b.tenants.Acquire(t.Context(), s.ID)
		testkit.Must(t, err)
		_, err = storedata.UpdateProfile(t.Context(), lease.DB, s.ID, storedata.ProfilePatch{Name: &words})
		testkit.Must(t, err)
		profile, err := storedata.ReadProfile(t.Context(), lease.DB, s.ID)
		lease.Release()
		testkit.Must(t, err)
		if profile.Name != words {
			t.Errorf("read %q, want %q", profile.Name, words)
		}
		testkit.Must(t, b.Rotate(t.Context(), p, s.ID, c))
		b.tenants.Forget(s.ID)
	}
}

// TestRefusedSetting checks that a setting that cannot be overridden ends the run, and
// that the owner is told its name. After its removal the run continues.
func TestRefusedSetting(t *testing.T) {
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if servers(t)[0] != credential.PostgreSQL {
			t.Skip("needs PostgreSQL")
		}
		b := setup(t, db).start(t)
		p, s := b.store(t)
		c := credentials(t, credential.PostgreSQL)
		tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+c.User+` SET session_replication_role = replica`)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "connect", stoa.DatabaseSettingRefused)
		if !strings.Contains(run.Fault.Message, "session_replication_role") {
			t.Errorf("%q does not name the setting", run.Fault.Message)
		}
		tenantdbtest.Admin(t, credential.PostgreSQL, `ALTER ROLE `+c.User+` RESET session_replication_role`)
		b.succeeded(t, p, b.retry(t, p, s.ID))
	})
}
