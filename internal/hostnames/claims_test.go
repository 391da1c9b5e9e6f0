package hostnames

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestCustomHostnameFaults(t *testing.T) {
	t.Parallel()
	r := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
	label := strings.Repeat("a", 63)
	for given, want := range map[string]string{
		"shop.example.com":      "shop.example.com",
		" Shop.Example.COM. ":   "shop.example.com",
		"müller.example":        "xn--mller-kva.example",
		"example.co.uk":         "example.co.uk",
		"a.b.c.d.e.f.example":   "a.b.c.d.e.f.example",
		"1.example":             "1.example",
		"notshops.test":         "notshops.test",
		label + ".example.com":  label + ".example.com",
		"a-xn--r.example":       "a-xn--r.example",
		"shops.test.attack.com": "shops.test.attack.com",
	} {
		if got, err := r.validate(given); got != want || err != nil {
			t.Errorf("%q becomes %q, %v", given, got, err)
		}
	}
	for _, given := range []string{
		"", " ", ".", "127.0.0.1", "[::1]", "::1", "1.2.3", "0x7f.1", "example.0x", "2130706433", "*.example.com", "*", "a.*.example.com",
		"shops.test", "SHOPS.test.", "x.shops.test", "a.b.shops.test", "ｘ.ｓhops.test", "localhost", "com", "co.uk", "github.io",
		"shop.example.com:443", "https://shop.example.com", "shop.example.com/x", "user@example.com", "a..example.com", ".example.com",
		"-a.example.com", "a-.example.com", "a_b.example.com", "_stoa.example.com", label + "a.example.com", "a r.example.com",
		"a\x00.example.com", "a\xff.example.com", "xn--a.example.com", "a'--.example.com", strings.Repeat("a.", 121) + "example.com", strings.Repeat("x", 1<<16),
	} {
		got, err := r.validate(given)
		if stoa.CodeOf(err) != stoa.HostnameInvalid || fields(err) != "[hostname]" {
			t.Errorf("%.80q becomes %q, %v", given, got, err)
		}
	}
}

// TestCustomHostname covers the whole lifecycle of a custom hostname.
func TestCustomHostname(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "bakery")
		const host, name = "Müller.example", "xn--mller-kva.example"
		h, made, err := r.Claim(t.Context(), o.Principal, o.ID, host)
		testkit.Must(t, err)
		if !made || h.RecordName() != "_stoa."+name || len(h.RecordValue()) < 40 || h.PointTo != "bakery.shops.test" || h.VerifiedAt != nil {
			t.Errorf("%t %+v", made, h)
		}
		again, made, err := r.Claim(t.Context(), o.Principal, o.ID, name)
		testkit.Must(t, err)
		if made || again.RecordValue() != h.RecordValue() || again.Verification.ExpiresAt.Before(*h.Verification.ExpiresAt) {
			t.Errorf("claimed again: %t %+v", made, again)
		}
		for _, c := range []struct {
			what string
			dns  func()
			want VerificationFault
		}{
			{"no such name", func() {}, RecordNotFound},
			{"a name without records", func() { r.server.Put(h.RecordName()) }, RecordNotFound},
			{"records of others", func() { r.server.Put(h.RecordName(), "v=spf1 -all", "") }, RecordNotFound},
			{"another token", func() { r.server.Put(h.RecordName(), h.RecordValue()+"x") }, RecordMismatch},
			{"the token alone", func() { r.server.Put(h.RecordName(), h.Verification.Token) }, RecordNotFound},
			{"servers that fail", func() { r.server.Break(dnsmessage.RCodeServerFailure) }, DNSUnavailable},
			{"servers that refuse", func() { r.server.Break(dnsmessage.RCodeRefused) }, DNSUnavailable},
		} {
			c.dns()
			got, err := r.verify(t, o, host)
			testkit.Must(t, err)
			if got.VerifiedAt != nil || got.Verification.Fault != c.want || got.Verification.CheckedAt == nil || got.Verification.Fault.Message("x") == "" {
				t.Errorf("%s: %+v", c.what, *got.Verification)
			}
			r.wantStore(t, host, nil)
			_, err = r.MakePrimary(t.Context(), o.Principal, o.ID, host)
			wantCode(t, err, stoa.HostnameInvalid)
		}
		r.server.Break(dnsmessage.RCodeSuccess)
		r.server.Put(h.RecordName(), "v=spf1 -all", strings.Repeat("x", 600), ` "`+h.RecordValue()+`" `)
		for range 2 { // the second call has nothing to do
			got, err := r.verify(t, o, host)
			testkit.Must(t, err)
			if got.VerifiedAt == nil || got.Verification.Fault != "" || got.Verification.ExpiresAt != nil || got.Primary {
				t.Errorf("%+v %+v", got, *got.Verification)
			}
		}
		r.wantStore(t, host, &o)

		_, err = r.MakePrimary(t.Context(), o.Principal, o.ID, "MÜLLER.example.")
		testkit.Must(t, err)
		list, err := Select(t.Context(), r.db, ` WHERE x.store_id = $1`, o.ID)
		testkit.Must(t, err)
		if len(list) != 2 || list[0].Hostname != name || !list[0].Primary || list[1].Primary {
			t.Errorf("%+v", list)
		}
		testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return r.MapSlug(t.Context(), tx, o.ID, "moved") }))
		if got := r.primary(t, o); got != name {
			t.Errorf("after a change of slug the primary hostname is %q", got)
		}

		testkit.Must(t, r.Remove(t.Context(), o.Principal, o.ID, host))
		r.wantStore(t, host, nil)
		if got := r.primary(t, o); got != "moved.shops.test" {
			t.Errorf("after its removal the primary hostname is %q", got)
		}
		wantCode(t, r.Remove(t.Context(), o.Principal, o.ID, host), stoa.NotFound)
		if n := r.count(t, `hostname_claims`); n != 0 {
			t.Errorf("%d claims are left", n)
		}
	})
}

// TestFirstVerificationWins checks that a claim excludes no other claim, and that exactly
// one of several concurrent verifications succeeds.
func TestFirstVerificationWins(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		const host, rivals = "shop.example.com", 4
		var shops []store
		var values []string
		for i := range rivals {
			shops = append(shops, r.store(t, fmt.Sprintf("shop-%d", i)))
			h := r.claim(t, shops[i], host)
			values = append(values, h.RecordValue())
			r.server.Put(h.RecordName(), values...)
		}
		if slices.Sort(values); len(slices.Compact(values)) != rivals {
			t.Errorf("two stores have one token: %v", values)
		}
		_, errs := atOnce(rivals, func(i int) (Details, error) {
			return r.Verify(t.Context(), shops[i].Principal, shops[i].ID, host)
		})
		winner := -1
		for i, err := range errs {
			if err == nil && winner < 0 {
				winner = i
				continue
			}
			wantCode(t, err, stoa.HostnameTaken)
		}
		r.wantStore(t, host, &shops[winner])
		// The hostname can still be claimed, such as by a new owner of the domain.
		loser := (winner + 1) % rivals
		r.claim(t, shops[loser], host)
		_, err := r.verify(t, shops[loser], host)
		wantCode(t, err, stoa.HostnameTaken)
		testkit.Must(t, r.Remove(t.Context(), shops[winner].Principal, shops[winner].ID, host))
		r.wantStore(t, host, nil)
		_, err = r.verify(t, shops[loser], host)
		testkit.Must(t, err)
		r.wantStore(t, host, &shops[loser])
	})
}

// TestHostnameRights checks that members of a lower role can only read, and that another
// store's hostnames are not accessible.
func TestHostnameRights(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o, other := r.store(t, "bakery"), r.store(t, "other")
		const host = "shop.example.com"
		r.claimVerified(t, o, host)
		calls := map[string]func(authz.Principal, stoa.StoreID, string) error{
			"claim": func(p authz.Principal, id stoa.StoreID, host string) error {
				_, _, err := r.Claim(t.Context(), p, id, host)
				return err
			},
			"verify": func(p authz.Principal, id stoa.StoreID, host string) error {
				_, err := r.Verify(t.Context(), p, id, host)
				return err
			},
			"primary": func(p authz.Principal, id stoa.StoreID, host string) error {
				_, err := r.MakePrimary(t.Context(), p, id, host)
				return err
			},
			"remove": func(p authz.Principal, id stoa.StoreID, host string) error {
				return r.Remove(t.Context(), p, id, host)
			},
		}
		member := r.member(t, o.ID, authz.Member)
		for what, call := range calls {
			if err := call(member, o.ID, host); stoa.CodeOf(err) != stoa.Forbidden {
				t.Errorf("%s by a member: %v", what, err)
			}
			if err := call(other.Principal, o.ID, "no name at all"); stoa.CodeOf(err) != stoa.StoreNotFound {
				t.Errorf("%s by a stranger: %v", what, err)
			}
			if what == "claim" {
				continue
			}
			for _, name := range []string{host, "no name at all", "", strings.Repeat("x", 2000)} {
				if err := call(other.Principal, other.ID, name); stoa.CodeOf(err) != stoa.NotFound {
					t.Errorf("%s of another store's %.20q: %v", what, name, err)
				}
			}
		}
		wantCode(t, calls["verify"](o.Principal, o.ID, "bakery.shops.test"), stoa.HostnameInvalid)
		wantCode(t, calls["remove"](o.Principal, o.ID, "bakery.shops.test"), stoa.HostnameInvalid)
		list, err := r.List(t.Context(), r.member(t, o.ID, authz.Viewer), o.ID)
		if err != nil || len(list) != 2 {
			t.Errorf("a viewer sees %+v, %v", list, err)
		}
		_, err = r.List(t.Context(), other.Principal, o.ID)
		wantCode(t, err, stoa.StoreNotFound)
		r.wantStore(t, host, &o)
	})
}

// TestHostnameBounds checks that one store can flood neither the registry nor the DNS.
func TestHostnameBounds(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "bakery")
		r.LimitPerStore(20)
		_, errs := atOnce(26, func(i int) (bool, error) {
			_, made, err := r.Claim(t.Context(), o.Principal, o.ID, fmt.Sprintf("shop%d.example.com", i))
			return made, err
		})
		refused := 0
		for _, err := range errs {
			if err != nil {
				wantQuota(t, err, stoa.Quota{Name: quotas.Hostnames, Limit: 20, Used: 20})
				refused++
			}
		}
		if n := r.count(t, `hostname_claims`); n != 20 || refused != 6 {
			t.Errorf("%d claims, %d refused", n, refused)
		}
		list, err := r.List(t.Context(), o.Principal, o.ID)
		testkit.Must(t, err)
		h := list[len(list)-1]
		_, errs = atOnce(10, func(int) (Details, error) {
			return r.Verify(t.Context(), o.Principal, o.ID, h.Hostname.Hostname)
		})
		var limited *stoa.Error
		for _, err := range errs {
			if err != nil && errors.As(err, &limited) && (limited.Code != stoa.RateLimited || limited.RetryAfter <= 0) {
				t.Error(err)
			}
		}
		if n := r.server.Asked(h.RecordName()); n != 1 || limited == nil {
			t.Errorf("the DNS was asked %d times", n)
		}
	})
}

// TestHostnamesAreNotified checks that every replica is notified when a hostname is
// mapped to or unmapped from a store, and of nothing else.
func TestHostnamesAreNotified(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "bakery")
		const host = "shop.example.com"
		told := 0
		r.db.Subscribe(ChangeTopic, func(string) { told++ }, func() {})
		h := r.claim(t, o, host)
		for _, c := range []struct {
			what string
			do   func() error
			want int
		}{
			{"verify in vain", func() error { _, err := r.verify(t, o, host); return err }, 0},
			{"verify", func() error {
				r.server.Put(h.RecordName(), h.RecordValue())
				_, err := r.verify(t, o, host)
				return err
			}, 1},
			{"verify again", func() error { _, err := r.verify(t, o, host); return err }, 0},
			{"daily check", func() error { r.nextDay(t); return nil }, 0},
			{"primary", func() error { _, err := r.MakePrimary(t.Context(), o.Principal, o.ID, host); return err }, 1},
			{"remove", func() error { return r.Remove(t.Context(), o.Principal, o.ID, host) }, 1},
			{"remove a claim", func() error {
				r.claim(t, o, host)
				return r.Remove(t.Context(), o.Principal, o.ID, host)
			}, 0},
		} {
			told = 0
			testkit.Must(t, c.do())
			if told != c.want {
				t.Errorf("%s: told %d times, want %d", c.what, told, c.want)
			}
		}
	})
}

// TestVerifyInterrupted checks that a caller who leaves during Verify has changed
// nothing.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "bakery")
		h := r.claim(t, o, "shop.example.com")
		r.server.Silence(true)
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := r.Verify(ctx, o.Principal, o.ID, "shop.example.com")
			done <- err
		}()
		testkit.Eventually(t, testkit.Timeout, "the DNS is asked", func() bool { return r.server.Asked(h.RecordName()) > 0 })
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		list, err := r.List(t.Context(), o.Principal, o.ID)
		testkit.Must(t, err)
		if got := list[1].Verification; got.Fault != "" || got.CheckedAt != nil {
			t.Errorf("%+v", got)
		}
		r.dns.timeout = 50 * time.Millisecond
		got, err := r.verify(t, o, "shop.example.com")
		testkit.Must(t, err)
		if got.Verification.Fault != DNSUnavailable {
			t.Errorf("servers that say nothing: %+v", *got.Verification)
		}
	})
}
