package tenantdb_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestBreakerProbes checks that one caller tries the database after the
// cooldown and that the others are refused at once. The result of that call
// decides for all.
func TestBreakerProbes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const cooldown = 5 * time.Second
		h := setup(t, tenantdb.Options{Cooldown: cooldown})
		store := h.embedded(t)
		broken := errors.New("no route")
		h.beforeOpen(func() error { return stoa.Errorf(stoa.TenantUnavailable, "down").WithCause(broken) })
		for range tenantdb.TripAfter {
			if err := h.ask(t.Context(), store); !errors.Is(err, broken) {
				t.Fatalf("got %v", err)
			}
		}
		openers := h.opened()
		for range 10 {
			if err := h.ask(t.Context(), store); !errors.Is(err, tenantdb.ErrOpen) {
				t.Fatalf("got %v", err)
			}
		}
		<-time.After(cooldown + time.Millisecond) // in the bubble's time
		if err := h.ask(t.Context(), store); !errors.Is(err, broken) {
			t.Fatalf("the first after the pause: %v", err)
		}
		if err := h.ask(t.Context(), store); !errors.Is(err, tenantdb.ErrOpen) {
			t.Fatalf("after a probe that failed: %v", err)
		}
		h.beforeOpen(nil)
		<-time.After(cooldown + time.Millisecond) // in the bubble's time
		testkit.Must(t, h.ask(t.Context(), store))
		testkit.Must(t, h.ask(t.Context(), store))
		if n := h.opened() - openers; n != 1 {
			t.Errorf("%d pools opened after the recovery", n)
		}
		h.EvictIdleSince(time.Now().Add(time.Hour))
		h.Tidy()
		if n := h.Breakers(); n != 0 {
			t.Errorf("%d breakers are remembered of stores that are well", n)
		}
	})
}

// TestBreakerCountsOnlyFailures checks that cancelled calls and errors of the
// caller itself do not count as failures of the database.
func TestBreakerCountsOnlyFailures(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: time.Hour})
			store := h.embedded(t)
			if engine != credential.SQLite {
				h.save(t, store, tenantdbtest.Create(t, engine))
			}
			l := h.lease(t, store)
			defer l.Release()
			gone, cancel := context.WithCancel(t.Context())
			cancel()
			late, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
			defer cancel()
			var n int
			for range 2 * tenantdb.TripAfter {
				for _, ctx := range []context.Context{gone, late} {
					if err := l.Get(ctx, &n, `SELECT 1`); err == nil {
						t.Error("read for nobody")
					}
				}
				if err := l.Get(t.Context(), &n, `SELECT nothing FROM nowhere`); err == nil || errors.Is(err, tenantdb.ErrOpen) || engine != credential.SQLite && tenantdb.HealthCode(err) != stoa.DatabaseContentInvalid {
					t.Errorf("got %v", err)
				}
				if err := l.Get(t.Context(), &n, `SELECT 1 WHERE 1 = 0`); !errors.Is(err, tenantdb.ErrNotFound) {
					t.Errorf("got %v", err)
				}
			}
			works(t, l)
		})
	}
}
