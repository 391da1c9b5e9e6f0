package tenantdb_test

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// TestCachedCredentials checks that a database that was open before opens again
// while the master is unreachable, up to ServeStale, and never with credentials
// whose change was notified.
func TestCachedCredentials(t *testing.T) {
	t.Parallel()
	if os.Getenv(masterdbtest.PostgresEnv) == "" {
		masterdbtest.Engines()
		t.Skip("no PostgreSQL")
	}
	for name, fault := range map[string]func(*masterdbtest.Relay){
		"refuses": (*masterdbtest.Relay).Refuse, "is silent": func(r *masterdbtest.Relay) { r.SetSilent(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			relay, through := masterdbtest.NewRelay(t, masterdbtest.URL(t, masterdb.Postgres))
			h := setupOn(t, masterdbtest.Open(t, through), tenantdb.Options{MaxOpen: 1})
			brief := tenantdb.NewManager(h.master, h.ring, tenantdb.Options{DataDir: t.TempDir(), MaxOpen: 1, ServeStale: time.Nanosecond})
			t.Cleanup(func() { _ = brief.Close(context.Background()) })
			known, other, changed, unseen := h.embedded(t), h.embedded(t), h.embedded(t), h.embedded(t)
			use := func(m *tenantdb.Manager, store stoa.StoreID) error {
				lease, err := m.Acquire(t.Context(), store)
				if err == nil {
					works(t, lease)
					lease.Release()
				}
				return err
			}
			for _, m := range []*tenantdb.Manager{h.Manager, brief} {
				for _, store := range []stoa.StoreID{changed, known, other} { // only the last one stays open
					if err := use(m, store); err != nil {
						t.Fatal(err)
					}
				}
			}
			h.Forget(changed) // as after a notification of its new credentials
			fault(relay)
			for _, store := range []stoa.StoreID{known, other, known} {
				if err := use(h.Manager, store); err != nil {
					t.Error(err)
				}
			}
			for _, store := range []stoa.StoreID{changed, unseen} {
				if err := use(h.Manager, store); stoa.CodeOf(err) != stoa.TenantUnavailable {
					t.Errorf("%v, want tenant_unavailable", err)
				}
			}
			if err := use(brief, known); stoa.CodeOf(err) != stoa.TenantUnavailable {
				t.Errorf("%v, want tenant_unavailable", err)
			}
		})
	}
}
