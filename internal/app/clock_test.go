package app_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// setClock makes the server's clock differ by skew (libfaketime's notation) from its
// next start on.
func (p *ownPostgres) setClock(skew string) {
	p.t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/faketime/libfaketime.so.1")
	if len(found) == 0 {
		testkit.Unavailable(p.t, "libfaketime is not installed")
	}
	p.env = []string{"LD_PRELOAD=" + found[0], "FAKETIME=" + skew, "FAKETIME_DONT_FAKE_MONOTONIC=1", "DONT_FAKE_MONOTONIC=1"}
}

// TestMasterClockSkew checks that a skewed clock of the master delays nothing and
// expires nothing too early, and that the operator is told.
func TestMasterClockSkew(t *testing.T) {
	t.Parallel()
	own := newOwnPostgres(t)
	for i, skew := range []string{"-20s", "+20s", "-2h", "+2h"} {
		own.stop()
		own.setClock(skew)
		own.start()
		admin, err := pgx.Connect(t.Context(), own.url())
		if err != nil {
			t.Fatal(err)
		}
		name := "skew" + string(rune('0'+i))
		if _, err := admin.Exec(t.Context(), `CREATE DATABASE `+name); err != nil {
			t.Fatal(err)
		}
		_ = admin.Close(t.Context())
		url := strings.Replace(own.url(), "/postgres?", "/"+name+"?", 1)
		t.Run(skew, func(t *testing.T) {
			skewedPlatform(t, url)
			skewedJobs(t, url)
		})
	}
}

// skewedPlatform checks that comparisons with the master's times, such as the end of a
// session, are correct, and that doctor, /health, the log and the metrics report the
// skew.
func skewedPlatform(t *testing.T, url string) {
	cfg := testConfig(t, masterdb.SQLite)
	cfg.MasterDBURL, cfg.PrivateListen = keyring.NewSecret(url), "127.0.0.1:0"
	cfg.JWTExpiresIn = 15 * time.Minute
	var log syncBuffer
	s, err := launch(t.Context(), cfg, cfg.Logger(&log))
	if err != nil {
		t.Fatal(err)
	}
	c, id, hostname := connected(t, s, "owner@example.com")
	c.call("GET", "/api/stores/"+id, nil).want(http.StatusOK).is("active", "status")
	c.call("GET", "/", nil, "Host", hostname).want(http.StatusOK)
	private := client{t: t, url: s.PrivateURL}
	if said := private.call("GET", "/health", nil).want(http.StatusOK); !strings.Contains(said.raw, "this machine's clock is") {
		t.Errorf("/health: %s", said.raw)
	}
	if said := private.call("GET", "/metrics", nil); !strings.Contains(said.raw, "\nstoa_master_clock_skew_seconds ") || strings.Contains(said.raw, "\nstoa_master_clock_skew_seconds 0\n") {
		t.Error("the metric does not tell the skew")
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "level=WARN msg=\"clock differs") {
		t.Errorf("the log does not tell the skew:\n%s", log.String())
	}
	status, out, _ := command(t, "doctor", "--data-dir="+cfg.DataDir, "--master-db-url="+url)
	if status == 0 || !strings.Contains(out, "FAIL    clock") || !strings.Contains(out, "NTP") {
		t.Errorf("doctor: %d\n%s", status, out)
	}
}

type skewProbe struct{ Name string }

func (skewProbe) Kind() string               { return "skew_probe" }
func (skewProbe) RetryWithin() time.Duration { return time.Second }

// skewedJobs checks that a job runs immediately, at its scheduled time, and promptly
// again after a failure.
func skewedJobs(t *testing.T, url string) {
	db := masterdbtest.Open(t, url)
	q, err := jobs.New(db, slog.New(slog.DiscardHandler), jobs.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ran := make(chan string, 10)
	failed := false
	jobs.Handle(q, time.Minute, func(_ context.Context, p skewProbe) error {
		ran <- p.Name
		if p.Name == "fails once" && !failed {
			failed = true
			return errors.New("on purpose")
		}
		return nil
	})
	if err := q.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer q.Stop(context.WithoutCancel(t.Context())) //nolint:errcheck // no job is running
	for _, c := range []struct {
		name            string
		after           time.Duration
		runs            int
		atLeast, atMost time.Duration
	}{
		{"at once", 0, 1, 0, 10 * time.Second},
		{"in a second", time.Second, 1, 700 * time.Millisecond, 15 * time.Second},
		{"fails once", 0, 2, 700 * time.Millisecond, 15 * time.Second},
	} {
		begin := time.Now()
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if c.after > 0 {
				return q.EnqueueAt(t.Context(), tx, tx.Now.Add(c.after), skewProbe{c.name})
			}
			return q.Enqueue(t.Context(), tx, skewProbe{c.name})
		})
		if err != nil {
			t.Fatal(err)
		}
		for range c.runs {
			select {
			case name := <-ran:
				if name != c.name {
					t.Errorf("%q ran instead of %q", name, c.name)
				}
			case <-time.After(c.atMost):
				t.Fatalf("a job that runs %s did not within %s", c.name, c.atMost)
			}
		}
		took := time.Since(begin)
		if took < c.atLeast || took > c.atMost {
			t.Errorf("a job that runs %s did after %s", c.name, took)
		}
		t.Logf("%s: %s", c.name, took.Round(time.Millisecond))
	}
}
