package tenantdb_test

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/limit"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// gather returns the manager's series by name and labels. The value of a
// histogram is its number of observations.
func gather(t *testing.T, m *tenantdb.Manager) map[string]float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry() // compares the collected series with the described ones
	testkit.Must(t, r.Register(m))
	families, err := r.Gather()
	testkit.Must(t, err)
	series := map[string]float64{}
	for _, f := range families {
		for _, metric := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "stoa_tenant_")
			for _, l := range metric.GetLabel() {
				name += fmt.Sprintf(" %s=%s", l.GetName(), l.GetValue())
			}
			switch {
			case metric.GetHistogram() != nil:
				series[name] = float64(metric.GetHistogram().GetSampleCount())
			case metric.GetCounter() != nil:
				series[name] = metric.GetCounter().GetValue()
			default:
				series[name] = metric.GetGauge().GetValue()
			}
		}
	}
	return series
}

func wantSeries(t *testing.T, m *tenantdb.Manager, want map[string]float64) {
	t.Helper()
	got := gather(t, m)
	for name := range got {
		if _, named := want[name]; !named {
			delete(got, name)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("series (-want +got):\n%s", diff)
	}
}

func TestMetricsOfPools(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxOpen: 2})
	first, warm := h.lease(t, h.embedded(t)), h.embedded(t)
	held := h.lease(t, warm)
	h.lease(t, warm).Release()
	third := h.embedded(t)
	for range 3 {
		h.lease(t, third).Release() // one more than two: it is closed when it is released
	}
	wantSeries(t, h.Manager, map[string]float64{
		"pools_open": 2, "pools_leased": 2, "pools_embedded": 2, "pools_evicted_total": 3,
		"acquires_total outcome=cold": 5, "acquires_total outcome=warm": 1, "acquires_total outcome=failed": 0, "acquires_total outcome=refused": 0,
		"wait_seconds for=open": 5, "wait_seconds for=connection": 0, "breakers state=closed": 2, "breakers state=open": 0,
	})
	testkit.Eventually(t, testkit.Timeout, "no pool drains", func() bool { return gather(t, h.Manager)["pools_draining"] == 0 })
	first.Release()
	wantSeries(t, h.Manager, map[string]float64{"pools_open": 2, "pools_leased": 1})
	h.Forget(warm)
	wantSeries(t, h.Manager, map[string]float64{"pools_open": 1, "pools_draining": 1})
	held.Release()
	testkit.Eventually(t, testkit.Timeout, "no pool drains", func() bool { return gather(t, h.Manager)["pools_draining"] == 0 })

	h.changeWithoutNotification(t, warm)
	testkit.Must(t, h.Reconcile(t.Context()))
	wantSeries(t, h.Manager, map[string]float64{"pools_stale_total": 0, "reconcile_failures_total": 0})
	l := h.lease(t, warm)
	h.changeWithoutNotification(t, warm)
	testkit.Must(t, h.Reconcile(t.Context()))
	wantSeries(t, h.Manager, map[string]float64{"pools_stale_total": 1, "pools_draining": 1})
	l.Release()
}

func TestMetricsOfServers(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Cooldown: time.Hour})
			c, store := tenantdbtest.Create(t, engine), h.store(t)
			h.save(t, store, c)
			l := h.lease(t, store)
			server := " server=" + net.JoinHostPort(c.Host, fmt.Sprint(c.Port))
			wantSeries(t, h.Manager, map[string]float64{
				"server_connections" + server: 1, "server_waiting" + server: 0, "dials_total outcome=ok": 1, "dials_total outcome=failed": 0, "pools_embedded": 0,
			})
			// A caller that waits for the only connection is counted as
			// waiting.
			testkit.Must(t, l.Tx(t.Context(), func(*tenantdb.Tx) error {
				var n int
				return l.Get(t.Context(), &n, `SELECT 1`)
			}))
			wantSeries(t, h.Manager, map[string]float64{"wait_seconds for=connection": 1, "server_connections" + server: 2})
			l.Release()

			dead, lost := c, h.store(t)
			dead.Port = closedPort(t)
			h.save(t, lost, dead)
			for range 5 {
				_, err := h.Acquire(t.Context(), lost)
				checkUnavailable(t, err)
			}
			wantSeries(t, h.Manager, map[string]float64{
				"dials_total outcome=failed": 3, "acquires_total outcome=failed": 3, "acquires_total outcome=refused": 2,
				"breakers state=open": 1, "breakers state=closed": 1,
			})
		})
	}
}

// TestMetricsNameTheBusiestServers checks that a deployment with many servers
// has few series.
func TestMetricsNameTheBusiestServers(t *testing.T) {
	t.Parallel()
	var all []limit.Server
	for i := range 25 {
		all = append(all, limit.Server{Server: fmt.Sprint(i), Open: 100 - i, Waiting: 1})
	}
	got := tenantdb.TopServers(all)
	if len(got) != 11 || got[9] != all[9] {
		t.Fatalf("got %v", got)
	}
	if want := (limit.Server{Server: "other", Open: 15*100 - (10+24)*15/2, Waiting: 15}); got[10] != want {
		t.Errorf("got %v, want %v", got[10], want)
	}
	if few := tenantdb.TopServers(all[:10]); len(few) != 10 {
		t.Errorf("got %v", few)
	}
}

// TestMetricsNameNoStore checks that no series contains a store's id or any
// other value that differs for each store.
func TestMetricsNameNoStore(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	for range 3 {
		h.lease(t, h.embedded(t)).Release()
	}
	few := slices.Collect(maps.Keys(gather(t, h.Manager)))
	for range 5 {
		h.lease(t, h.embedded(t)).Release()
	}
	if more := slices.Collect(maps.Keys(gather(t, h.Manager))); len(more) != len(few) {
		t.Errorf("%d series for three stores, %d for eight: %v", len(few), len(more), more)
	}
}
