package provisioning

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
	"github.com/stoahq/stoa/tenantdb/tenantdbtest"
)

// roleSettings change what any other client would store.
var roleSettings = []string{
	`DateStyle = 'German'`, `TimeZone = 'Asia/Kathmandu'`, `client_encoding = 'LATIN1'`, `standard_conforming_strings = off`, `bytea_output = 'escape'`,
	`default_transaction_isolation = 'serializable'`, `default_transaction_read_only = on`, `statement_timeout = '1ms'`, `lock_timeout = '1ms'`,
	`idle_in_transaction_session_timeout = '1ms'`, `synchronous_commit = off`, `row_security = off`, `exit_on_error = on`, `quote_all_identifiers = on`,
}

// A store on a server with hostile settings connects, is served, written to and
// rotated as any other; a schema with the user's name that comes later does not
// take its place.
func TestHostileSettings(t *testing.T) {
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if servers(t)[0] != tenantdb.PostgreSQL {
			t.Skip("needs PostgreSQL")
		}
		b := setup(t, db).start(t)
		p, s := b.store(t)
		c := credentials(t, tenantdb.PostgreSQL)
		for _, setting := range roleSettings {
			tenantdbtest.Admin(t, tenantdb.PostgreSQL, `ALTER ROLE `+c.User+` SET `+setting)
		}
		s = b.succeeded(t, p, b.connect(t, p, s.ID, c))
		tenantdbtest.Exec(t, c, `CREATE SCHEMA `+c.User)
		b.tenants.Forget(s.ID)
		words := `back\slash 'quote' "é" ` + "\U0001f980" + ` ends`
		for range 2 {
			lease, err := b.tenants.Acquire(t.Context(), s.ID)
			must(t, err)
			_, err = shop.UpdateProfile(t.Context(), lease.DB, s.ID, shop.ProfilePatch{Name: &words})
			must(t, err)
			profile, err := shop.ReadProfile(t.Context(), lease.DB, s.ID)
			lease.Release()
			must(t, err)
			if profile.Name != words {
				t.Errorf("read %q, want %q", profile.Name, words)
			}
			must(t, b.Rotate(t.Context(), p, s.ID, c))
			b.tenants.Forget(s.ID)
		}
	})
}

// A setting that cannot be overridden ends the run, and the owner is told its
// name. When it has been removed the run goes on.
func TestRefusedSetting(t *testing.T) {
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if servers(t)[0] != tenantdb.PostgreSQL {
			t.Skip("needs PostgreSQL")
		}
		b := setup(t, db).start(t)
		p, s := b.store(t)
		c := credentials(t, tenantdb.PostgreSQL)
		tenantdbtest.Admin(t, tenantdb.PostgreSQL, `ALTER ROLE `+c.User+` SET session_replication_role = replica`)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "connect", stoa.DatabaseSettingRefused)
		if !strings.Contains(run.Fault.Message, "session_replication_role") {
			t.Errorf("%q does not name the setting", run.Fault.Message)
		}
		tenantdbtest.Admin(t, tenantdb.PostgreSQL, `ALTER ROLE `+c.User+` RESET session_replication_role`)
		b.succeeded(t, p, b.retry(t, p, s.ID))
	})
}
