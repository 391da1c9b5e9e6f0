package accounts

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

var wrong = keyring.NewSecret("Wrong-Password-42")

// guess tries a wrong password from there and returns the code of the answer.
func tryWrongPassword(t *testing.T, a *Accounts, email, address string) stoa.Code {
	t.Helper()
	_, err := a.Login(t.Context(), email, wrong, Client{Address: address})
	return stoa.CodeOf(err)
}

func failedSignIns(t *testing.T, db *masterdb.DB) (n int) {
	t.Helper()
	err := db.Get(t.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1 AND outcome = $2`, audit.SignedIn, string(audit.Failed))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// exhaust guesses from ever new addresses until strangers have to wait.
func exhaustUnknownNetworks(t *testing.T, a *Accounts, email string) {
	t.Helper()
	for n := range 200 {
		if tryWrongPassword(t, a, email, "198.51.100."+string(rune('0'+n%10))+string(rune('0'+n/10%2))) == stoa.RateLimited {
			return
		}
	}
	t.Fatal("200 guesses from many addresses are all heard")
}

// TestWrongPasswordsAreDelayed: from one address, whatever the spelling, and
// neither hashed nor written down.
func TestWrongPasswordsAreDelayed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		for n := range fromNetwork.Free + 1 {
			email := []string{"owner@example.com", "OWNER@Example.COM"}[n%2]
			if code := tryWrongPassword(t, a, email, "203.0.113.5"); code != stoa.InvalidCredentials {
				t.Fatalf("guess %d: %s", n, code)
			}
		}
		written := failedSignIns(t, db)
		for range 20 {
			_, err := a.Login(t.Context(), "owner@example.com", wrong, Client{Address: "203.0.113.5"})
			var known *stoa.Error
			if !errors.As(err, &known) || known.Code != stoa.RateLimited || known.RetryAfter <= 0 || known.RetryAfter > time.Minute {
				t.Fatalf("after many guesses: %v", err)
			}
		}
		if n := failedSignIns(t, db); n != written || n != fromNetwork.Free+1 {
			t.Errorf("%d failures are written down, %d before the refusals", n, written)
		}
		if code := tryWrongPassword(t, a, "other@example.com", "203.0.113.5"); code != stoa.InvalidCredentials {
			t.Errorf("another account: %s", code)
		}
		if code := tryWrongPassword(t, a, "owner@example.com", "203.0.113.6"); code != stoa.InvalidCredentials {
			t.Errorf("another address: %s", code)
		}
	})
}

// TestConcurrentWrongPasswords: they are not all the first.
func TestConcurrentWrongPasswords(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		var all sync.WaitGroup
		for range 60 {
			all.Go(func() { tryWrongPassword(t, a, "owner@example.com", "203.0.113.5") })
		}
		all.Wait()
		if n := failedSignIns(t, db); n > fromNetwork.Free+2 {
			t.Errorf("%d guesses at once were heard", n)
		}
	})
}

// TestOwnerIsNotLockedOut: however many addresses guess, the owner signs in where they
// have signed in before, and from the same IPv6 network; elsewhere a link helps.
func TestOwnerIsNotLockedOut(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a) // from 192.0.2.7
		right := keyring.NewSecret(goodPassword)
		login(t, a, Client{Address: "2001:db8::1"})
		exhaustUnknownNetworks(t, a, "owner@example.com")
		for _, known := range []string{"192.0.2.7", "2001:db8::ffff"} {
			for range 3 {
				if _, err := a.Login(t.Context(), "owner@example.com", right, Client{Address: known}); err != nil {
					t.Fatalf("the owner at %s: %v", known, err)
				}
			}
		}
		elsewhere := Client{Address: "203.0.113.77"}
		if _, err := a.Login(t.Context(), "owner@example.com", right, elsewhere); stoa.CodeOf(err) != stoa.RateLimited || !strings.Contains(err.Error(), "forgot-password") {
			t.Fatalf("the owner elsewhere: %v", err)
		}
		var user stoa.UserID
		if err := db.Get(t.Context(), &user, `SELECT id FROM users`); err != nil {
			t.Fatal(err)
		}
		var token keyring.Secret
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) (err error) {
			token, err = issueToken(t.Context(), tx, resetPassword, oneTime{UserID: &user, ExpiresAt: tx.Now.Add(time.Hour)})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		next := keyring.NewSecret("Another-Password-42")
		if err := a.ResetPassword(t.Context(), token, next, elsewhere); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Login(t.Context(), "owner@example.com", next, elsewhere); err != nil {
			t.Errorf("the owner after the link: %v", err)
		}
	})
}

// TestUnknownAddressIsDelayedAlike: the delay does not tell who has an account.
func TestUnknownAddressIsDelayedAlike(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a)
		var answers [2][]stoa.Code
		for i, email := range []string{"owner@example.com", "nobody@example.com"} {
			for range fromNetwork.Free + 3 {
				answers[i] = append(answers[i], tryWrongPassword(t, a, email, "203.0.113.5"))
			}
		}
		for n := range answers[0] {
			if answers[0][n] != answers[1][n] {
				t.Errorf("guess %d: %s with an account, %s without", n, answers[0][n], answers[1][n])
			}
		}
	})
}

// TestSessionGuessesPassword: who has got hold of a session tries passwords in
// vain, and the owner's own session is not slowed down.
func TestSessionGuessesPassword(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		owner := principal(t, a, register(t, a))
		thief := principal(t, a, login(t, a, Client{Address: "203.0.113.5"}))
		next := keyring.NewSecret("Another-Password-42")
		for n := range fromSession.Free + 2 {
			err := a.ChangePassword(t.Context(), thief, wrong, next)
			if want := map[bool]stoa.Code{false: stoa.InvalidCredentials, true: stoa.RateLimited}[n > fromSession.Free]; stoa.CodeOf(err) != want {
				t.Fatalf("guess %d: %v, want %s", n, err, want)
			}
		}
		if err := a.ChangePassword(t.Context(), owner, keyring.NewSecret(goodPassword), next); err != nil {
			t.Errorf("the owner: %v", err)
		}
	})
}

// TestHashQueueIsBounded: of very many at once some are told to come back, and
// nobody waits for ever.
func TestHashQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(testCost)
	for range cap(h.slots) {
		h.slots <- struct{}{} // nobody gets on
	}
	waiting := make(chan error, cap(h.queue))
	for range cap(h.queue) {
		h.queue <- struct{}{}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if _, err := h.hash(ctx, wrong); stoa.CodeOf(err) != stoa.RateLimited || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one too many: %v", err)
	}
	<-h.queue
	go func() {
		_, err := h.hash(t.Context(), wrong)
		waiting <- err
	}()
	<-h.slots
	if err := <-waiting; err != nil {
		t.Errorf("one that has its turn: %v", err)
	}
}
