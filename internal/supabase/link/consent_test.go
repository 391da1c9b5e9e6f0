package link

import (
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestStates checks that a state can be used once, before it expires, unchanged, with the
// code of the same consent, and while the user who started the consent may still connect
// the store.
func TestStates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		ctx := t.Context()
		p, store := b.store(t)
		good := b.ask(t, p, store)
		tampered := good
		text := good.State.Reveal()
		last := map[bool]string{true: "A", false: "B"}[!strings.HasSuffix(text, "A")]
		for _, state := range []string{"", "x", text[:len(text)-1], text[:len(text)-1] + last, strings.Repeat("v1.", 5000)} {
			tampered.State = keyring.NewSecret(state)
			wantCode(t, b.Finish(ctx, tampered), stoa.TokenInvalid)
			wantCode(t, b.Decline(ctx, tampered.State), stoa.TokenInvalid)
		}
		before := b.sb.Count(tokenCall)
		testkit.Must(t, b.Finish(ctx, good))
		wantCode(t, b.Finish(ctx, good), stoa.TokenInvalid)
		wantCode(t, b.Decline(ctx, good.State), stoa.TokenInvalid)
		if n := b.sb.Count(tokenCall) - before; n != 1 {
			t.Errorf("%d exchanges", n)
		}

		declined := b.ask(t, p, store)
		testkit.Must(t, b.Decline(ctx, declined.State))
		wantCode(t, b.Finish(ctx, declined), stoa.TokenInvalid)

		late := b.ask(t, p, store)
		b.exec(t, `UPDATE supabase_consents SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		wantCode(t, b.Finish(ctx, late), stoa.TokenExpired)
		wantCode(t, b.Finish(ctx, late), stoa.TokenInvalid)

		// The code of one user's consent is refused with the state of another user.
		mallory, hers := b.store(t)
		theirs, own := b.ask(t, p, store), b.ask(t, mallory, hers)
		own.State, own.Browser = theirs.State, theirs.Browser
		wantCode(t, b.Finish(ctx, own), stoa.TokenInvalid)
		b.wantState(t, mallory, hers, None, "")

		// The user may no longer connect the store.
		left := b.ask(t, mallory, hers)
		b.exec(t, `DELETE FROM store_members WHERE store_id = $1`, hers)
		spent := b.sb.Count(tokenCall)
		wantCode(t, b.Finish(ctx, left), stoa.StoreNotFound)
		if n := b.sb.Count(tokenCall) - spent; n != 0 {
			t.Errorf("%d exchanges for somebody who may not", n)
		}
		_, err := b.Authorize(ctx, mallory, store)
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// TestStateAtOnce checks that exactly one of several concurrent browsers with the same
// state connects the store.
func TestStateAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		r := b.ask(t, p, store)
		worked := 0
		for _, err := range atOnce(8, func(int) error { return b.Finish(t.Context(), r) }) {
			if err == nil {
				worked++
			} else if stoa.CodeOf(err) != stoa.TokenInvalid {
				t.Error(err)
			}
		}
		if worked != 1 {
			t.Errorf("%d have connected", worked)
		}
		b.wantState(t, p, store, Connected, "")
	})
}

// TestAnotherBrowser checks that a user who sends another person to a consent gets no
// connection until that person has been told whose store it is for.
func TestAnotherBrowser(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		for _, browser := range []string{"", "another"} {
			r := b.ask(t, p, store)
			r.Browser = keyring.NewSecret(browser)
			var ask *Unconfirmed
			if err := b.Finish(t.Context(), r); !errors.As(err, &ask) || ask.Store != "Bakery" || ask.Email != p.UserID.String()+"@example.com" {
				t.Fatalf("%+v, %v", ask, err)
			}
			b.wantState(t, p, store, None, "")
			r.Confirmed = true
			testkit.Must(t, b.Finish(t.Context(), r))
			b.wantState(t, p, store, Connected, "")
			testkit.Must(t, b.Disconnect(t.Context(), p, store))
		}
	})
}

// TestExchangeFails checks that a failed exchange invalidates the consent and connects
// nothing.
func TestExchangeFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		r := b.ask(t, p, store)
		b.sb.Break(tokenCall, supabasetest.Broken)
		wantCode(t, b.Finish(t.Context(), r), stoa.SupabaseUnavailable)
		wantCode(t, b.Finish(t.Context(), r), stoa.TokenInvalid)
		b.wantState(t, p, store, None, "")

		late := b.ask(t, p, store)
		b.sb.Pass(time.Hour) // the code has expired at Supabase
		wantCode(t, b.Finish(t.Context(), late), stoa.TokenInvalid)
	})
}

// TestNotConfigured checks that without an application at Supabase every call fails with
// the same code.
func TestNotConfigured(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		b.opts.API = nil
		_, err := b.Authorize(t.Context(), p, store)
		wantCode(t, err, stoa.SupabaseNotConfigured)
		_, err = b.Organizations(t.Context(), p, store)
		wantCode(t, err, stoa.SupabaseNotConfigured)
		_, err = b.Regions(t.Context(), p, store)
		wantCode(t, err, stoa.SupabaseNotConfigured)
		wantCode(t, b.Check(t.Context(), store, Choice{Ref: strings.Repeat("a", 20)}), stoa.SupabaseNotConfigured)
		testkit.Must(t, b.ProjectFault(t.Context(), store, nil))
		b.wantState(t, p, store, None, "")
		testkit.Must(t, b.Disconnect(t.Context(), p, store))
	})
}

// TestAuthorizeURL checks that the URL has PKCE parameters and the exact redirect
// address, and contains no secret.
func TestAuthorizeURL(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		c, err := b.Authorize(t.Context(), p, store)
		testkit.Must(t, err)
		u, err := url.Parse(c.URL)
		testkit.Must(t, err)
		q := u.Query()
		if q.Get("code_challenge_method") != "S256" || len(q.Get("code_challenge")) != 43 || q.Get("redirect_uri") != redirect || len(c.URL) > 4096 {
			t.Errorf("%s", c.URL)
		}
		if strings.Contains(c.URL, c.Browser.Reveal()) || strings.Contains(c.URL, supabasetest.ClientSecret) {
			t.Error("the address holds a secret")
		}
	})
}

// TestConsentsAreBounded checks that repeated calls keep only the newest consents of the
// store, and do not affect those of other stores.
func TestConsentsAreBounded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, b fixture) {
		p, store := b.store(t)
		other, second := b.store(t)
		theirs := b.ask(t, other, second)
		first := b.ask(t, p, store)
		for range maxConsents + 5 {
			_, err := b.Authorize(t.Context(), p, store)
			testkit.Must(t, err)
		}
		last := b.ask(t, p, store)
		var n int
		testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM supabase_consents WHERE store_id = $1`, store))
		if n != maxConsents {
			t.Errorf("%d consents are kept, want %d", n, maxConsents)
		}
		wantCode(t, b.Finish(t.Context(), first), stoa.TokenInvalid)
		testkit.Must(t, b.Finish(t.Context(), last))
		testkit.Must(t, b.Finish(t.Context(), theirs))
	})
}
