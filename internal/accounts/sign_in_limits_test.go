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

// tryWrongPassword signs in with a wrong password from the address and returns the
// error's code.
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

// exhaustUnknownNetworks tries wrong passwords from many addresses until unknown
// networks are delayed.
func exhaustUnknownNetworks(t *testing.T, a *Accounts, email string) {
	t.Helper()
	for n := range 200 {
		if tryWrongPassword(t, a, email, "198.51.100."+string(rune('0'+n%10))+string(rune('0'+n/10%2))) == stoa.RateLimited {
			return
		}
	}
	t.Fatal("200 guesses from many addresses are all heard")
}

// TestWrongPasswordsAreDelayed checks that attempts from one network are delayed for
// any spelling of the e-mail address. A delayed attempt is neither hashed nor recorded.
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

// TestConcurrentWrongPasswords checks that concurrent attempts are all counted.
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

// TestOwnerIsNotLockedOut checks that, however many addresses try passwords, the owner
// can sign in from the networks where they have signed in before, one IPv6 network
// counting as one. Elsewhere a password link makes the network known.
func TestOwnerIsNotLockedOut(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		register(t, a) // at 192.0.2.7
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
		if _, err := a.Login(t.Context(), "owner@example.com", right, elsewhere); stoa.CodeOf(err) != stoa.RateLimited || !strings.Contains(err.Error(), "with a link sent to your address") {
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

// TestUnknownAddressIsDelayedAlike checks that the delay does not reveal which
// addresses have an account.
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

// TestSessionGuessesPassword checks that an attacker with a session cannot try many
// passwords, and that the owner's own session is not delayed.
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

// TestHashQueueIsBounded checks that with too many concurrent calls some are refused,
// and that none waits forever.
func TestHashQueueIsBounded(t *testing.T) {
	t.Parallel()
	h := newHasher(testCost)
	for range cap(h.slots) {
		h.slots <- struct{}{} // takes every slot, so that no call can hash
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
