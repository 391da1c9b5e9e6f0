package masterdb_test

import (
	"bytes"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// record counts the lines of a log that contain a word.
type record struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *record) count(word string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Count(r.buf.String(), word)
}

// TestListenerWithoutNotifications checks that a connection that stays open and delivers no notifications
// is detected, both at its start and later. Meanwhile each change is delivered once from
// the change log, and one line is logged.
func TestListenerWithoutNotifications(t *testing.T) {
	masterdbtest.NeedsNotifications(t, "the test stops them itself, and begins with a listener that works")
	t.Parallel()
	for name, fromStart := range map[string]bool{"from the start": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			direct := postgresURL(t)
			filter, filtered := masterdbtest.NewNotificationFilter(t, direct)
			filter.SetSilent(fromStart)
			a := masterdbtest.Open(t, direct)
			b := replica{DB: masterdbtest.Open(t, filtered), heard: make(chan string, 1000), resyncs: make(chan string, 1000)}
			b.Subscribe(topic, func(payload string) { b.heard <- payload }, func() { b.resyncs <- "resync" })
			log := &record{}
			listenWith(t, b.DB, slog.New(slog.NewTextHandler(log, nil)))
			if !fromStart {
				receive(t, b.resyncs)
				if b.MissesNotifications() {
					t.Error("silent although notifications arrive")
				}
				testkit.Must(t, b.CheckListen(t.Context()))
				filter.SetSilent(true)
			}
			receive(t, b.resyncs) // from here on it reads the change log
			if !b.MissesNotifications() {
				t.Error("not silent although no notifications arrive")
			}
			if err := b.CheckListen(t.Context()); err == nil {
				t.Error("the check finds nothing")
			}
			sender := replica{DB: a}
			for _, payload := range []string{"one", "two", "three"} {
				sender.notify(t, nil, payload)
				if got := receive(t, b.heard); got != payload {
					t.Errorf("heard %q, want %q", got, payload)
				}
			}
			nothing(t, b.heard)
			nothing(t, b.resyncs)
			if n := log.count("change log"); n != 1 {
				t.Errorf("the log says %d times that the change log is read", n)
			}
			if n := log.count("notifications of other replicas are not received"); n != 1 {
				t.Errorf("the log says %d times that no notifications are received", n)
			}

			filter.SetSilent(false)
			receive(t, b.resyncs)
			testkit.Eventually(t, 30*time.Second, "it is not silent any more", func() bool { return !b.MissesNotifications() })
			sender.notify(t, nil, "heard again")
			for receive(t, b.heard) != "heard again" {
				t.Error("heard something else")
			}
		})
	}
}

// TestSwitchStopsNotifications checks that no notification reaches a test master while the
// switch is set, and that they do otherwise.
func TestSwitchStopsNotifications(t *testing.T) {
	t.Parallel()
	err := masterdbtest.Open(t, postgresURL(t)).CheckListen(t.Context())
	if silent := os.Getenv(masterdbtest.WithoutNotificationsEnv) != ""; (err != nil) != silent {
		t.Errorf("%s is set: %t; %v", masterdbtest.WithoutNotificationsEnv, silent, err)
	}
}

// TestChangeLogOverlaps checks that a message whose transaction commits long after writing
// it is not missed while the change log is read.
func TestChangeLogOverlaps(t *testing.T) {
	t.Parallel()
	direct := postgresURL(t)
	filter, filtered := masterdbtest.NewNotificationFilter(t, direct)
	filter.SetSilent(true)
	b := replica{DB: masterdbtest.Open(t, filtered), heard: make(chan string, 1000), resyncs: make(chan string, 1000)}
	b.Subscribe(topic, func(payload string) { b.heard <- payload }, func() { b.resyncs <- "resync" })
	listen(t, b.DB)
	receive(t, b.resyncs)
	a := masterdbtest.Open(t, direct)
	tx, err := a.Pool().Begin(t.Context())
	testkit.Must(t, err)
	_, err = tx.Exec(t.Context(), `INSERT INTO change_log (origin, topic, payload) VALUES ('another', $1, 'slow')`, topic)
	testkit.Must(t, err)
	replica{DB: a}.notify(t, nil, "fast")
	if got := receive(t, b.heard); got != "fast" {
		t.Errorf("heard %q", got)
	}
	testkit.Must(t, tx.Commit(t.Context()))
	if got := receive(t, b.heard); got != "slow" {
		t.Errorf("heard %q", got)
	}
}

// TestChangeLogExpires checks that notified messages are in the change log, and that only
// its expiry rule deletes them.
func TestChangeLogExpires(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := replica{DB: db}
		r.notify(t, nil, "one", "two", "one")
		r.notify(t, errChanged, "rolled back")
		count := func() (n int) {
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM change_log`))
			return n
		}
		if n := count(); n != 2 {
			t.Errorf("%d changes are logged, want 2", n)
		}
		rules := []masterdb.Expiry{masterdb.ChangeLogExpiry()}
		_, err := db.DeleteExpired(t.Context(), rules)
		testkit.Must(t, err)
		if n := count(); n != 2 {
			t.Errorf("%d recent changes are left, want 2", n)
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE change_log SET at = $1 WHERE payload = 'one'`, tx.Now.Add(-time.Hour))
			return err
		}))
		_, err = db.DeleteExpired(t.Context(), rules)
		testkit.Must(t, err)
		if n := count(); n != 1 {
			t.Errorf("%d changes are left, want 1", n)
		}
	})
}
