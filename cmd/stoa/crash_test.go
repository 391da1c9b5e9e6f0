package main

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

// TestSpendsSurviveKills: a server under load is killed twenty times. Of what
// it acknowledged nothing is lost; what was repeated is there once.
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
				eventually(t, "the server is at work", func() bool { return len(p.acknowledged()) > acknowledged+payerCount })
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
