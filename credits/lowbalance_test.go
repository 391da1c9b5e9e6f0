package credits_test

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
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/jobs"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/mail/mailtest"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

func (b bench) threshold(t testing.TB, amount credits.Amount) {
	t.Helper()
	must(t, b.ledger.SetSettings(t.Context(), b.owner, b.store, credits.Settings{LowBalance: &amount}))
}

// crossings are how often what is available fell below the threshold.
func (b bench) crossings(t testing.TB) (n int) {
	t.Helper()
	must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM credit_crossings WHERE store_id = $1`, b.store))
	return n
}

// TestLowBalanceIsCrossed: each fall counts once, by whatever it came.
func TestLowBalanceIsCrossed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		ctx := t.Context()
		spend := func(amount credits.Amount) {
			t.Helper()
			_, err := b.spend(ctx, credits.SpendRequest{Amount: amount})
			must(t, err)
		}
		expect := func(what string, want int) {
			t.Helper()
			if got := b.crossings(t); got != want {
				t.Fatalf("%s: %d crossings, want %d", what, got, want)
			}
		}
		b.give(t, 100)
		spend(99)
		expect("no threshold", 0)
		b.threshold(t, 50)
		expect("set above what is available", 0)
		spend(1)
		expect("lower still", 0)
		b.give(t, 50)
		spend(1)
		expect("back at it, and one less", 1)
		spend(10)
		expect("lower still", 1)
		b.give(t, 10)
		spend(1)
		expect("never back at it", 1)
		b.give(t, 100)
		held, err := b.ledger.Hold(ctx, b.owner, b.store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 99}})
		must(t, err)
		expect("held", 2)
		_, err = b.ledger.Capture(ctx, b.owner, b.store, held.Hold.ID, credits.CaptureRequest{Amount: 99})
		must(t, err)
		expect("captured, which changes nothing", 2)
		b.give(t, 1000)
		must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			_, err := b.ledger.ClawBack(ctx, tx, b.store, credits.Reversal{Type: credits.TypeRefund, Amount: 5000, IdempotencyKey: "r"})
			return err
		}))
		expect("clawed back into debt", 3)
		b.give(t, 10_000)
		b.threshold(t, 10_000)
		must(t, b.ledger.SetSettings(ctx, b.owner, b.store, credits.Settings{}))
		spend(1000)
		expect("turned off", 3)
	})
}

// TestLowBalanceUnderLoad: of two hundred spends at once one crosses, in a
// batch or alone.
func TestLowBalanceUnderLoad(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.give(t, 200)
		b.threshold(t, 100)
		other := credits.New(db) // another replica
		var wg sync.WaitGroup
		for i := range 200 {
			ledger := []*credits.Ledger{b.ledger, other}[i%2]
			wg.Go(func() {
				if _, err := ledger.Spend(context.WithoutCancel(t.Context()), b.owner, b.store, credits.SpendRequest{Amount: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := b.crossings(t); got != 1 {
			t.Errorf("%d crossings, want 1", got)
		}
	})
}

// replica is one process that tells owners.
func (b bench) replica(t *testing.T, server *mailtest.Server) *credits.Feed {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	queue, err := jobs.New(b.db, log, jobs.Options{})
	must(t, err)
	sender, err := mail.New(mail.Options{URL: keyring.NewSecret("smtp://" + server.Address()), From: "Stoa <no-reply@shops.test>", Log: log})
	must(t, err)
	feed := credits.NewFeed(b.ledger, queue, log)
	w := credits.NewWarner(b.ledger, feed, queue, sender, "https://shops.test")
	jobs.Handle(queue, time.Minute, w.Announce)
	jobs.Handle(queue, time.Minute, w.Mail)
	jobs.Handle(queue, time.Minute, feed.Sweep)
	must(t, queue.Start(t.Context()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() {
		defer close(done)
		feed.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		must(t, queue.Stop(context.Background()))
	})
	return feed
}

// TestOwnersAreTold: two replicas, one mail to each owner for each fall, and
// none to anybody else.
func TestOwnersAreTold(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		execute(t, db, `UPDATE stores SET name = $2 WHERE id = $1`, b.store, "Käse & www.evil.test\r\nBcc: victim@example.com")
		execute(t, db, `UPDATE users SET first_name = 'Zoë', last_name = 'Müller' WHERE id = $1`, b.owner.UserID)
		second := b.member(t, access.Owner)
		b.member(t, access.Admin)
		unproven := b.member(t, access.Owner) // perhaps somebody else's address
		execute(t, db, `UPDATE users SET email_verified = false WHERE id = $1`, unproven.UserID)
		server := mailtest.Start(t, mailtest.Options{Refuse: firstTime("RCPT", 451)})
		b.replica(t, server)
		other := b.replica(t, server)

		b.give(t, 100*credits.Credit)
		b.threshold(t, 50*credits.Credit)
		fall := func() {
			_, err := b.spend(t.Context(), credits.SpendRequest{Amount: 60 * credits.Credit})
			must(t, err)
			b.give(t, 60*credits.Credit) // a short dip
		}
		fall()
		must(t, other.Sweep(t.Context(), credits.SweepFeed{})) // and another replica looks too
		eventually(t, "both owners have mail", func() bool { return len(server.Mails()) >= 2 })
		fall()
		eventually(t, "they have another", func() bool { return len(server.Mails()) >= 4 })
		eventually(t, "no job is left", func() bool {
			stats, err := jobs.ReadStats(t.Context(), db)
			must(t, err)
			return stats.Waiting+stats.Retrying == 0
		})
		counts := map[string]int{}
		for _, m := range server.Mails() {
			counts[strings.Join(m.To, " ")]++
		}
		for _, owner := range []access.Principal{b.owner, second} {
			if n := counts["TO:<"+owner.UserID.String()+"@example.com>"]; n != 2 {
				t.Errorf("an owner has %d mails, want 2", n)
			}
		}
		if len(server.Mails()) != 4 {
			t.Errorf("%d mails: %v", len(server.Mails()), counts)
		}
		checkLowMail(t, server.Mails(), b.owner.UserID)
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
		must(t, err)
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

// firstTime refuses a command once.
func firstTime(command string, code int) func(string, string) int {
	var once sync.Once
	return func(c, _ string) (answer int) {
		if c == command {
			once.Do(func() { answer = code })
		}
		return answer
	}
}

// TestMailThatIsRefused: what the server will never take is given up; a mail to
// somebody who owns the store no more is not written.
func TestMailThatIsRefused(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		server := mailtest.Start(t, mailtest.Options{Refuse: func(c, _ string) int {
			if c == "RCPT" {
				return 550
			}
			return 0
		}})
		b.replica(t, server)
		b.give(t, 100)
		b.threshold(t, 50)
		_, err := b.spend(t.Context(), credits.SpendRequest{Amount: 60})
		must(t, err)
		eventually(t, "the mail is given up", func() bool {
			var n int
			must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM river_job WHERE kind = 'credits.mail_low' AND CAST(state AS text) = 'cancelled'`))
			return n == 1
		})
		if len(server.Mails()) != 0 {
			t.Error("it was taken")
		}
	})
}

// TestSettings: who may see and change them.
func TestSettings(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		ctx := t.Context()
		set := func(p access.Principal, amount credits.Amount) error {
			return b.ledger.SetSettings(ctx, p, b.store, credits.Settings{LowBalance: &amount})
		}
		for role, code := range map[access.Role]stoa.Code{access.Admin: "", access.Member: stoa.Forbidden, access.Viewer: stoa.Forbidden} {
			p := b.member(t, role)
			wantCode(t, set(p, 5), code)
			_, err := b.ledger.Settings(ctx, p, b.store)
			must(t, err)
		}
		stranger := setup(t, db).owner
		wantCode(t, set(stranger, 7), stoa.StoreNotFound)
		_, err := b.ledger.Settings(ctx, stranger, b.store)
		wantCode(t, err, stoa.StoreNotFound)
		wantCode(t, set(b.owner, 0), stoa.InvalidRequest)
		wantCode(t, set(b.owner, -1), stoa.InvalidRequest)
		must(t, set(b.owner, 1<<63-1))
		s, err := b.ledger.Settings(ctx, b.owner, b.store)
		must(t, err)
		if s.LowBalance == nil || *s.LowBalance != 1<<63-1 {
			t.Errorf("%v", s.LowBalance)
		}
	})
}

func execute(t *testing.T, db *masterdb.DB, query string, args ...any) {
	t.Helper()
	must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// TestLowBalanceFlood: credits that fall and rise fill nobody's mailbox.
func TestLowBalanceFlood(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		server := mailtest.Start(t, mailtest.Options{})
		warner := b.replica(t, server)
		b.give(t, 100*credits.Credit)
		b.threshold(t, 50*credits.Credit)
		for range 30 {
			held, err := b.ledger.Hold(t.Context(), b.owner, b.store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 60 * credits.Credit}})
			must(t, err)
			_, err = b.ledger.Release(t.Context(), b.owner, b.store, held.Hold.ID, "")
			must(t, err)
		}
		must(t, warner.Sweep(t.Context(), credits.SweepFeed{}))
		eventually(t, "every fall is announced", func() bool {
			var n int
			must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM credit_crossings WHERE announced_at IS NULL`))
			stats, err := jobs.ReadStats(t.Context(), db)
			must(t, err)
			return n == 0 && stats.Waiting+stats.Retrying == 0 && len(server.Mails()) >= 10
		})
		if n := b.crossings(t); n != 30 || len(server.Mails()) != 10 {
			t.Errorf("%d mails about %d falls, want 10", len(server.Mails()), n)
		}
	})
}
