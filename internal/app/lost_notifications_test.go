package app_test

import (
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/doctor"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// replicasOn starts two servers on one PostgreSQL master, with a store that b has
// cached.
func replicasOn(t *testing.T, cfg *config.Config) twoReplicas {
	t.Helper()
	r := twoReplicas{t: t, a: startServer(t, cfg)}
	second := *cfg
	second.PrivateListen = "127.0.0.1:0"
	r.b = startServer(t, &second)
	r.owner, _ = register(t, r.a, "owner@example.com")
	r.StoreID = r.store("shop")
	r.until(time.Now(), "shop.localhost", http.StatusOK)
	return r
}

// seen changes the store through a. It returns how long b takes to answer accordingly.
func (r twoReplicas) seen(status string, want int) time.Duration {
	r.t.Helper()
	start := time.Now()
	r.change(r.StoreID, `UPDATE stores SET status = '`+status+`' WHERE id = $1`)
	r.until(start, "shop.localhost", want)
	return time.Since(start)
}

func (r twoReplicas) silent() bool {
	r.t.Helper()
	return value(scrape(r.t, r.b), "stoa_listen_deaf") == 1
}

// TestFrozenListener freezes the server process of a listener's session while the
// master answers. The replica receives changes within seconds.
func TestFrozenListener(t *testing.T) {
	t.Parallel()
	own := newOwnPostgres(t)
	cfg := testConfig(t, masterdb.SQLite)
	cfg.MasterDBURL = keyring.NewSecret(own.url())
	r := replicasOn(t, cfg)
	testkit.Eventually(t, testkit.Timeout, "both listen", func() bool { return !r.a.Master.MissesNotifications() && !r.silent() })
	var pids []int
	if err := r.a.Master.Select(t.Context(), &pids, `SELECT pid FROM pg_stat_activity WHERE application_name = $1`, masterdb.ListenName); err != nil {
		t.Fatal(err)
	}
	if len(pids) != 2 {
		t.Fatalf("%d sessions listen", len(pids))
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	}
	d := r.seen("suspended", http.StatusServiceUnavailable)
	t.Logf("with frozen listeners a change is seen after %v", d.Round(10*time.Millisecond))
	if d > 12*time.Second {
		t.Errorf("seen after %v", d)
	}
	testkit.Eventually(t, testkit.Timeout, "both listen again", func() bool { return !r.a.Master.MissesNotifications() && !r.silent() })
}

// TestChangesWithoutNotifications ends every session of a listener while the master
// answers. The replica receives changes from the change log, and doctor and the metrics
// report it.
func TestChangesWithoutNotifications(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	r := replicasOn(t, testConfig(t, masterdb.Postgres))
	testkit.Eventually(t, testkit.Timeout, "b listens", func() bool { return !r.silent() })
	watcher := masterdbtest.Open(t, r.a.Cfg.MasterDBURL.Reveal())
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
			var ended []bool
			if err := watcher.Select(t.Context(), &ended, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
				WHERE application_name = $1 AND datname = current_database()`, masterdb.ListenName); err != nil {
				t.Error(err)
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		cutting.Wait()
	})
	t.Cleanup(end)
	testkit.Eventually(t, testkit.Timeout, "b is silent", r.silent)
	testkit.Eventually(t, testkit.Timeout, "b has forgotten what it knew", func() bool { return r.front("shop.localhost").status == http.StatusOK })
	for i := range 4 {
		status, want := "suspended", http.StatusServiceUnavailable
		if i%2 == 1 {
			status, want = "active", http.StatusOK
		}
		d := r.seen(status, want)
		t.Logf("without notifications a change is seen after %v", d.Round(10*time.Millisecond))
		if d > 5*time.Second {
			t.Errorf("seen after %v", d)
		}
	}
	end()
	testkit.Eventually(t, testkit.Timeout, "b hears again", func() bool { return !r.silent() })
}

// TestDoctorTriesNotifications checks doctor's test of notifications, which only
// PostgreSQL has.
func TestDoctorTriesNotifications(t *testing.T) {
	t.Parallel()
	onEachMaster(t, func(t *testing.T, s *server) {
		findings, _ := doctor.Examine(t.Context(), s.Cfg, nil)
		found := 0
		for _, f := range findings {
			if f.Check == "notifications" {
				found++
				if !f.OK {
					t.Errorf("%+v", f)
				}
			}
		}
		want := 0
		if s.Master.Engine == masterdb.Postgres {
			want = 1
		}
		if found != want {
			t.Errorf("%d findings about notifications, want %d", found, want)
		}
	})
}
