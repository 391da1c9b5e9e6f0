package app_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSpendsSurviveKills kills a server under load twenty times. No acknowledged spend
// is lost, and a repeated one is recorded once.
func TestSpendsSurviveKills(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 3
	}
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			db := masterdbtest.Open(t, cfg.MasterDBURL.Reveal())
			server := startProcess(t, cfg)
			p := newPayers(t, cfg, server.url)
			p.start()
			interrupted := 0
			for range kills {
				acknowledged, doubts := len(p.acknowledged()), p.doubts.Load()
				testkit.Eventually(t, testkit.Timeout, "the server is at work", func() bool { return len(p.acknowledged()) > acknowledged+payerCount })
				<-time.After(rand.N(50 * time.Millisecond))
				server.kill()
				p.verify(db)
				if p.doubts.Load() > doubts {
					interrupted++
				}
				server = startProcess(t, cfg)
				p.url.Store(&server.url)
			}
			p.settle(db)
			if interrupted < kills*3/4 {
				t.Errorf("only %d of %d kills interrupted a spend", interrupted, kills)
			}
		})
	}
}

// TestSpendsSurviveRestartOfPostgres stops the master immediately under load and starts
// it again. Two servers, which keep running, lose and double nothing.
func TestSpendsSurviveRestartOfPostgres(t *testing.T) {
	t.Parallel()
	restarts := 5
	if testing.Short() {
		restarts = 1
	}
	own := newOwnPostgres(t)
	cfg := testConfig(t, masterdb.SQLite)
	cfg.MasterDBURL = keyring.NewSecret(own.url())
	second := *cfg
	servers := []*server{startServer(t, cfg), startServer(t, &second)}
	p := newPayers(t, cfg, servers[0].URL)
	p.start()
	for i := range restarts {
		acknowledged := len(p.acknowledged())
		p.url.Store(&servers[i%2].URL)
		testkit.Eventually(t, testkit.Timeout, "the servers are at work", func() bool { return len(p.acknowledged()) > acknowledged+5*payerCount })
		<-time.After(rand.N(100 * time.Millisecond))
		own.stop()
		<-time.After(rand.N(300 * time.Millisecond)) // the servers run without the master for a while
		own.start()
		p.verify(masterdbtest.Open(t, own.url()))
	}
	p.settle(masterdbtest.Open(t, own.url()))
	if n := p.doubts.Load(); n < int64(restarts) {
		t.Errorf("only %d spends were interrupted by %d restarts", n, restarts)
	}
}
