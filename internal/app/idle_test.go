package app_test

import (
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestStatementsOfAnIdleServer checks that an idle server sends the master database at
// most two statements a second. The measured time is longer than the intervals of
// everything that polls.
func TestStatementsOfAnIdleServer(t *testing.T) {
	t.Parallel()
	masterdbtest.NeedsPostgres(t)
	const (
		warmUp   = 15 * time.Second // the jobs that run at each start need this time
		measured = 60 * time.Second
		most     = 2 * int(measured/time.Second)
	)
	cfg := testConfig(t, masterdb.Postgres)
	counter, url := masterdbtest.NewStatementCounter(t, cfg.MasterDBURL.Reveal())
	cfg.MasterDBURL = keyring.NewSecret(url)
	startServer(t, cfg)
	<-time.After(warmUp)
	if counts, err := counter.Reset(); err != nil || len(counts) == 0 {
		t.Fatalf("%d statements were counted while the server started: %v", len(counts), err)
	}
	<-time.After(measured)
	counts, err := counter.Reset()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	t.Logf("%.2f statements a second:\n%s", float64(total)/measured.Seconds(), masterdbtest.DescribeStatements(counts))
	if total > most {
		t.Errorf("%d statements in %v, want at most %d:\n%s", total, measured, most, masterdbtest.DescribeStatements(counts))
	}
}
