package link

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestRefreshedOnce checks that ten callers on two replicas whose token is expired, or
// refused by Supabase, cause one call to refresh it.
func TestRefreshedOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			dsn := masterdbtest.URL(t, engine)
			first := newFixture(t, masterdbtest.Open(t, dsn), supabasetest.NewAPI(t, supabasetest.Options{}))
			second := first.replica(masterdbtest.Open(t, dsn))
			_, store := first.connected(t)
			for name, spoil := range map[string]func(){
				"outdated": func() { first.outdate(t, store) },
				"refused":  func() { first.sb.Pass(48 * time.Hour) },
			} {
				spoil()
				before := first.sb.Count(tokenCall)
				errs := atOnce(10, func(i int) error {
					b := []fixture{first, second}[i%2]
					return b.withToken(t.Context(), store, func(token keyring.Secret) error {
						_, err := b.opts.API.Organizations(t.Context(), token)
						return err
					})
				})
				if err := errors.Join(errs...); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				if n := first.sb.Count(tokenCall) - before; n != 1 {
					t.Errorf("%s: %d calls for tokens", name, n)
				}
			}
		})
	}
}

// TestOwnerRevokes checks that the connection ends with that reason, and that no more
// calls for tokens are made.
func TestOwnerRevokes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		b.sb.RevokeAll()
		_, err := b.Organizations(t.Context(), p, store)
		wantCode(t, err, stoa.SupabaseReconnect)
		b.wantState(t, p, store, Reconnect, Refused)
		before := b.sb.Count(tokenCall)
		_, err = b.Projects(t.Context(), p, store, "")
		wantCode(t, err, stoa.SupabaseReconnect)
		if n := b.sb.Count(tokenCall); n != before {
			t.Errorf("%d calls for tokens of a connection that has ended", n-before)
		}
		testkit.Must(t, b.Finish(t.Context(), b.ask(t, p, store)))
		b.wantState(t, p, store, Connected, "")
		_, err = b.Organizations(t.Context(), p, store)
		testkit.Must(t, err)
	})
}

// TestAnswerLost checks a renewal whose answer is lost: Supabase has issued new tokens,
// and no process has them. The next caller detects and reports it.
func TestAnswerLost(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		for _, f := range []supabasetest.Fault{supabasetest.CutAfter, supabasetest.BrokenAfter} {
			p, store := b.connected(t)
			b.outdate(t, store)
			b.sb.Break(tokenCall, f)
			_, err := b.Organizations(t.Context(), p, store)
			wantCode(t, err, stoa.SupabaseUnavailable)
			b.wantState(t, p, store, Connected, "") // no process has detected it yet
			_, err = b.Organizations(t.Context(), p, store)
			wantCode(t, err, stoa.SupabaseReconnect)
			if !strings.Contains(err.Error(), "answer was lost") {
				t.Errorf("says %v", err)
			}
			b.wantState(t, p, store, Reconnect, AnswerLost)
		}
	})
}

// TestRefreshNeverReached checks that a call that did not reach Supabase is repeated.
func TestRefreshNeverReached(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		for _, f := range []supabasetest.Fault{supabasetest.Cut, supabasetest.Broken} {
			b.outdate(t, store)
			b.sb.Break(tokenCall, f)
			_, err := b.Organizations(t.Context(), p, store)
			wantCode(t, err, stoa.SupabaseUnavailable)
			_, err = b.Organizations(t.Context(), p, store)
			testkit.Must(t, err)
			b.forget(store)
		}
		b.outdate(t, store)
		b.sb.Break(tokenCall, supabasetest.Busy)
		_, err := b.Organizations(t.Context(), p, store)
		wantCode(t, err, stoa.RateLimited)
		_, _, err = b.token(t.Context(), store, 0)
		testkit.Must(t, err)
		b.wantState(t, p, store, Connected, "")
	})
}

// TestKilledWhileRefreshing ends the process after it has acquired the lease, before its
// call or after Supabase has answered. The next caller waits until the lease expires, and
// not longer. It then continues or reports what has happened.
func TestKilledWhileRefreshing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		b.opts.Lease = 300 * time.Millisecond
		for _, answered := range []bool{false, true} {
			p, store := b.connected(t)
			b.outdate(t, store)
			c, err := b.read(t.Context(), b.db, store)
			testkit.Must(t, err)
			_, err = b.acquire(t.Context(), b.lease(store, "a process that dies"), c)
			testkit.Must(t, err)
			if answered {
				old, err := b.unseal(store, c.Tokens)
				testkit.Must(t, err)
				_, err = b.opts.API.Refresh(t.Context(), old.Refresh)
				testkit.Must(t, err)
			}
			_, err = b.Organizations(t.Context(), p, store)
			if answered {
				wantCode(t, err, stoa.SupabaseReconnect)
				b.wantState(t, p, store, Reconnect, AnswerLost)
				continue
			}
			testkit.Must(t, err)
			b.wantState(t, p, store, Connected, "")
		}
	})
}

// TestProcessEndsWhileRefreshing checks that callers do not wait for the renewal of a
// process that is known to have ended, and that the owner is told if its answer was lost.
func TestProcessEndsWhileRefreshing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		b.opts.Lease = time.Hour
		for _, answered := range []bool{false, true} {
			p, store := b.connected(t)
			b.outdate(t, store)
			c, err := b.read(t.Context(), b.db, store)
			testkit.Must(t, err)
			_, err = b.acquire(t.Context(), b.lease(store, "dead.1"), c)
			testkit.Must(t, err)
			if answered {
				old, err := b.unseal(store, c.Tokens)
				testkit.Must(t, err)
				_, err = b.opts.API.Refresh(t.Context(), old.Refresh)
				testkit.Must(t, err)
			}
			for _, process := range []string{"dead.1", "dea", "another"} { // no process has this name
				testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.Release(t.Context(), tx, process) }))
				if c, err = b.read(t.Context(), b.db, store); err != nil || c.ClaimedUntil == nil {
					t.Fatalf("the claim was released with %q: %v", process, err)
				}
			}
			testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.Release(t.Context(), tx, "dead") }))
			_, err = b.Organizations(t.Context(), p, store)
			if answered {
				wantCode(t, err, stoa.SupabaseReconnect)
				b.wantState(t, p, store, Reconnect, AnswerLost)
				continue
			}
			testkit.Must(t, err)
			b.wantState(t, p, store, Connected, "")
		}
	})
}

// TestLeftWhileRefreshing checks that a connection that the owner ends while new tokens
// are being issued stays ended, and that the new tokens are revoked.
func TestLeftWhileRefreshing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		b.outdate(t, store)
		asked, release := b.sb.Delay(tokenCall)
		done := make(chan error, 1)
		go func() {
			_, err := b.Organizations(t.Context(), p, store)
			done <- err
		}()
		<-asked
		testkit.Must(t, b.Disconnect(t.Context(), p, store))
		release()
		wantCode(t, <-done, stoa.SupabaseNotConnected)
		b.wantState(t, p, store, None, "")
		if n := b.sb.Grants(); n != 0 {
			t.Errorf("%d consents are in force at Supabase", n)
		}
	})
}

// TestCallerLeavesWhileRefreshing checks that a renewal that has started is completed,
// whether or not a caller waits for it.
func TestCallerLeavesWhileRefreshing(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.connected(t)
		b.outdate(t, store)
		asked, release := b.sb.Delay(tokenCall)
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, _, err := b.token(ctx, store, 0)
			done <- err
		}()
		<-asked
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("who has left is told %v", err)
		}
		release()
		b.Wait()
		_, err := b.Organizations(t.Context(), p, store)
		testkit.Must(t, err)
		if n := b.sb.Count(tokenCall); n != 2 {
			t.Errorf("%d calls for tokens", n)
		}
	})
}

// TestTokensAreBound checks that tokens cannot be decrypted in another store's row or
// with another key, and that the log contains no secret.
func TestTokensAreBound(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		_, one := b.connected(t)
		p, other := b.connected(t)
		token, _, err := b.token(t.Context(), one, 0)
		testkit.Must(t, err)
		b.exec(t, `UPDATE supabase_connections SET tokens = (SELECT x.tokens FROM supabase_connections x WHERE x.store_id = $1) WHERE store_id = $2`, one, other)
		if _, err := b.Organizations(t.Context(), p, other); !errors.Is(err, keyring.ErrTampered) {
			t.Errorf("another store's tokens: %v", err)
		}
		testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return Destroy(t.Context(), tx, one) }))
		if _, _, err := b.token(t.Context(), one, 0); stoa.CodeOf(err) != stoa.SupabaseNotConnected {
			t.Errorf("after destruction: %v", err)
		}
		for _, secret := range []string{token.Reveal(), supabasetest.ClientSecret} {
			if strings.Contains(b.logged.String(), secret) {
				t.Errorf("logged: %s", b.logged)
			}
		}
	})
}
