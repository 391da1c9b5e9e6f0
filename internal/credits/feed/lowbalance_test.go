package feed_test

import (
	"context"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/feed"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/mail/mailtest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// setThreshold sets the threshold below which the owners get mails.
func setThreshold(t testing.TB, b creditstest.Account, amount credits.Amount) {
	t.Helper()
	testkit.Must(t, b.Ledger.SetSettings(t.Context(), b.Owner, b.Store, credits.Settings{LowBalance: &amount}, nil))
}

// startReplica starts the parts of one process that notify owners.
func startReplica(t *testing.T, b creditstest.Account, server *mailtest.Server) *feed.Feed {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	queue, err := jobs.New(b.DB, log, jobs.Options{})
	testkit.Must(t, err)
	sender, err := mail.New(mail.Options{URL: keyring.NewSecret("smtp://" + server.Address()), From: "Stoa <no-reply@shops.test>", Log: log})
	testkit.Must(t, err)
	changes := feed.New(b.DB, b.Ledger, queue, log)
	n := feed.NewLowBalanceNotifier(b.DB, changes, queue, sender, "https://shops.test")
	jobs.Handle(queue, time.Minute, n.Announce)
	jobs.Handle(queue, time.Minute, n.Mail)
	jobs.Handle(queue, time.Minute, changes.Sweep)
	testkit.Must(t, queue.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		changes.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		testkit.Must(t, queue.Stop(context.Background()))
	})
	return changes
}

// TestOwnersAreNotified checks that two replicas send one mail to each owner for each fall,
// and none to other users.
func TestOwnersAreNotified(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Exec(t, `UPDATE stores SET name = $2 WHERE id = $1`, b.Store, "Käse & www.evil.test\r\nBcc: victim@example.com")
		b.Exec(t, `UPDATE users SET first_name = 'Zoë', last_name = 'Müller' WHERE id = $1`, b.Owner.UserID)
		second := b.Member(t, authz.Owner)
		b.Member(t, authz.Admin)
		unproven := b.Member(t, authz.Owner) // the address is not verified and may be another person's
		b.Exec(t, `UPDATE users SET email_verified = false WHERE id = $1`, unproven.UserID)
		server := mailtest.Start(t, mailtest.Options{Refuse: firstTime("RCPT", 451)})
		startReplica(t, b, server)
		other := startReplica(t, b, server)

		b.Give(t, 100*credits.Credit)
		setThreshold(t, b, 50*credits.Credit)
		fall := func() {
			_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 60 * credits.Credit})
			testkit.Must(t, err)
			b.Give(t, 60*credits.Credit) // the balance falls and rises again
		}
		fall()
		testkit.Must(t, other.Sweep(t.Context(), feed.Sweep{})) // another replica sweeps too
		testkit.Eventually(t, testkit.Timeout, "both owners have mail", func() bool { return len(server.Mails()) >= 2 })
		fall()
		testkit.Eventually(t, testkit.Timeout, "they have another", func() bool { return len(server.Mails()) >= 4 })
		testkit.Eventually(t, testkit.Timeout, "no job is left", func() bool {
			stats, err := jobs.ReadStats(t.Context(), db)
			testkit.Must(t, err)
			return stats.Waiting+stats.Retrying == 0
		})
		counts := map[string]int{}
		for _, m := range server.Mails() {
			counts[strings.Join(m.To, " ")]++
		}
		for _, owner := range []authz.Principal{b.Owner, second} {
			if n := counts["TO:<"+owner.UserID.String()+"@example.com>"]; n != 2 {
				t.Errorf("an owner has %d mails, want 2", n)
			}
		}
		if len(server.Mails()) != 4 {
			t.Errorf("%d mails: %v", len(server.Mails()), counts)
		}
		checkLowMail(t, server.Mails(), b.Owner.UserID)
	})
}

func checkLowMail(t *testing.T, mails []mailtest.Mail, owner stoa.UserID) {
	t.Helper()
	ids := map[string]bool{}
	for _, m := range mails {
		msg := m.Message(t)
		ids[msg.Header.Get("Message-ID")] = true
		if msg.Header.Get("Bcc") != "" || len(m.To) != 1 {
			t.Errorf("a header came out of the store's name: %v", msg.Header)
		}
		if !strings.Contains(m.To[0], owner.String()) {
			continue
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
		if err != nil || subject != "Credits run low: Käse & www. evil. test Bcc: victim at example. com" {
			t.Errorf("subject %q, %v", subject, err)
		}
		text, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
		testkit.Must(t, err)
		for _, want := range []string{"Hello Zoë", "fell to 40 on", "below 50", "https://shops.test"} {
			if !strings.Contains(string(text), want) {
				t.Errorf("no %q in %s", want, text)
			}
		}
	}
	if len(ids) != len(mails) {
		t.Errorf("%d message ids of %d mails", len(ids), len(mails))
	}
}

// firstTime returns a function that refuses a command once.
func firstTime(command string, code int) func(string, string) int {
	var once sync.Once
	return func(c, _ string) (answer int) {
		if c == command {
			once.Do(func() { answer = code })
		}
		return answer
	}
}

// TestMailThatIsRefused checks that a mail that the server refuses permanently is not
// retried, and that a user who no longer owns the store gets no mail.
func TestMailThatIsRefused(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		server := mailtest.Start(t, mailtest.Options{Refuse: func(c, _ string) int {
			if c == "RCPT" {
				return 550
			}
			return 0
		}})
		startReplica(t, b, server)
		b.Give(t, 100)
		setThreshold(t, b, 50)
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 60})
		testkit.Must(t, err)
		testkit.Eventually(t, testkit.Timeout, "the mail is given up", func() bool {
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM river_job WHERE kind = 'credits.mail_low' AND CAST(state AS text) = 'cancelled'`))
			return n == 1
		})
		if len(server.Mails()) != 0 {
			t.Error("it was taken")
		}
	})
}

// TestLowBalanceFlood checks that credits that fall and rise repeatedly send a limited
// number of mails.
func TestLowBalanceFlood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		server := mailtest.Start(t, mailtest.Options{})
		changes := startReplica(t, b, server)
		b.Give(t, 100*credits.Credit)
		setThreshold(t, b, 50*credits.Credit)
		for range 30 {
			held, err := b.Ledger.Hold(t.Context(), b.Owner, b.Store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 60 * credits.Credit}})
			testkit.Must(t, err)
			_, err = b.Ledger.Release(t.Context(), b.Owner, b.Store, held.Hold.ID, "")
			testkit.Must(t, err)
		}
		testkit.Must(t, changes.Sweep(t.Context(), feed.Sweep{}))
		testkit.Eventually(t, testkit.Timeout, "every fall is announced", func() bool {
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM credit_crossings WHERE announced_at IS NULL`))
			stats, err := jobs.ReadStats(t.Context(), db)
			testkit.Must(t, err)
			return n == 0 && stats.Waiting+stats.Retrying == 0 && len(server.Mails()) >= 10
		})
		var n int
		testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM credit_crossings WHERE store_id = $1`, b.Store))
		if n != 30 || len(server.Mails()) != 10 {
			t.Errorf("%d mails about %d falls, want 10", len(server.Mails()), n)
		}
	})
}
