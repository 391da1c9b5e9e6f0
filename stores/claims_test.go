package stores

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
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
	"github.com/stoahq/stoa/quotas"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/stores/storestest"
	"github.com/stoahq/stoa/tenantdb"
)

// named is a replica with a name server of its own.
type named struct {
	bench
	*storestest.DNS
}

func eachNamed(t *testing.T, test func(t *testing.T, b named)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := named{setup(t, db), storestest.NewDNS(t)}
		b.UseDNS(b.Address)
		test(t, b)
	})
}

// owned is a store with its owner.
type owned struct {
	Store
	access.Principal
}

func (b named) shop(t *testing.T, name string) owned {
	t.Helper()
	p := b.user(t)
	s := b.create(t, p, name)
	b.setStatus(t, s.ID, Active)
	must(t, b.mapHostname(t.Context(), s.ID))
	return owned{s, p}
}

func (b named) claim(t *testing.T, o owned, host string) HostnameDetails {
	t.Helper()
	h, _, err := b.ClaimHostname(t.Context(), o.Principal, o.ID, host)
	must(t, err)
	return h
}

// verify is VerifyHostname when the pause after the last one is over.
func (b named) verify(t *testing.T, o owned, host string) (HostnameDetails, error) {
	t.Helper()
	b.exec(t, `UPDATE hostname_claims SET asked_at = NULL`)
	return b.VerifyHostname(t.Context(), o.Principal, o.ID, host)
}

// prove puts the record into the DNS and has it found.
func (b named) prove(t *testing.T, o owned, host string) {
	t.Helper()
	h := b.claim(t, o, host)
	b.Put(h.RecordName(), h.RecordValue())
	h, err := b.verify(t, o, host)
	must(t, err)
	if h.VerifiedAt == nil {
		t.Fatalf("%s is not verified: %+v", host, *h.Proof)
	}
}

// leads fails the test unless host leads to the store, or nowhere for nil.
func (b named) leads(t *testing.T, host string, to *owned) {
	t.Helper()
	site, err := b.Resolve(t.Context(), host)
	answers, answersErr := b.Answers(t.Context(), host)
	must(t, answersErr)
	if to == nil {
		wantCode(t, err, stoa.StoreNotFound)
	} else if must(t, err); site.StoreID != to.ID {
		t.Fatalf("%s leads to %s, want %s", host, site.StoreID, to.ID)
	}
	if answers != (to != nil) {
		t.Fatalf("%s answers: %t", host, answers)
	}
}

// nextDay makes every proven hostname due and runs the daily job.
func (b named) nextDay(t *testing.T) {
	t.Helper()
	b.exec(t, `UPDATE hostname_claims SET check_after = $1`, time.Now().UTC().Add(-time.Second))
	must(t, b.CheckHostnames(t.Context(), CheckHostnames{}))
}

func (b named) primary(t *testing.T, o owned) string {
	t.Helper()
	list, err := b.Hostnames(t.Context(), o.Principal, o.ID)
	must(t, err)
	var primary []string
	for _, h := range list {
		if h.Primary {
			primary = append(primary, h.Hostname.Hostname)
		}
	}
	return strings.Join(primary, " ")
}

func TestCustomHostnameFaults(t *testing.T) {
	t.Parallel()
	b := setup(t, masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite)))
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
		"a-xn--b.example":       "a-xn--b.example",
		"shops.test.attack.com": "shops.test.attack.com",
	} {
		if got, err := b.customHostname(given); got != want || err != nil {
			t.Errorf("%q becomes %q, %v", given, got, err)
		}
	}
	for _, given := range []string{
		"", " ", ".", "127.0.0.1", "[::1]", "::1", "1.2.3", "0x7f.1", "example.0x", "2130706433", "*.example.com", "*", "a.*.example.com",
		"shops.test", "SHOPS.test.", "x.shops.test", "a.b.shops.test", "ｘ.ｓhops.test", "localhost", "com", "co.uk", "github.io",
		"shop.example.com:443", "https://shop.example.com", "shop.example.com/x", "user@example.com", "a..example.com", ".example.com",
		"-a.example.com", "a-.example.com", "a_b.example.com", "_stoa.example.com", label + "a.example.com", "a b.example.com",
		"a\x00.example.com", "a\xff.example.com", "xn--a.example.com", "a'--.example.com", strings.Repeat("a.", 121) + "example.com", strings.Repeat("x", 1<<16),
	} {
		got, err := b.customHostname(given)
		if stoa.CodeOf(err) != stoa.HostnameInvalid || fields(err) != "[hostname]" {
			t.Errorf("%.80q becomes %q, %v", given, got, err)
		}
	}
}

// TestCustomHostname is the whole life of one.
func TestCustomHostname(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Bakery")
		const host, name = "Müller.example", "xn--mller-kva.example"
		h, made, err := b.ClaimHostname(t.Context(), o.Principal, o.ID, host)
		must(t, err)
		if !made || h.RecordName() != "_stoa."+name || len(h.RecordValue()) < 40 || h.PointTo != "bakery.shops.test" || h.VerifiedAt != nil {
			t.Errorf("%t %+v", made, h)
		}
		again, made, err := b.ClaimHostname(t.Context(), o.Principal, o.ID, name)
		must(t, err)
		if made || again.RecordValue() != h.RecordValue() || again.Proof.ExpiresAt.Before(*h.Proof.ExpiresAt) {
			t.Errorf("claimed again: %t %+v", made, again)
		}
		for _, c := range []struct {
			what string
			dns  func()
			want ProofFault
		}{
			{"no such name", func() {}, RecordNotFound},
			{"a name without records", func() { b.Put(h.RecordName()) }, RecordNotFound},
			{"records of others", func() { b.Put(h.RecordName(), "v=spf1 -all", "") }, RecordNotFound},
			{"another token", func() { b.Put(h.RecordName(), h.RecordValue()+"x") }, RecordMismatch},
			{"the token alone", func() { b.Put(h.RecordName(), h.Proof.Token) }, RecordNotFound},
			{"servers that fail", func() { b.Break(dnsmessage.RCodeServerFailure) }, DNSUnavailable},
			{"servers that refuse", func() { b.Break(dnsmessage.RCodeRefused) }, DNSUnavailable},
		} {
			c.dns()
			got, err := b.verify(t, o, host)
			must(t, err)
			if got.VerifiedAt != nil || got.Proof.Fault != c.want || got.Proof.CheckedAt == nil || got.Proof.Fault.Message("x") == "" {
				t.Errorf("%s: %+v", c.what, *got.Proof)
			}
			b.leads(t, host, nil)
			_, err = b.MakePrimary(t.Context(), o.Principal, o.ID, host)
			wantCode(t, err, stoa.HostnameInvalid)
		}
		b.Break(dnsmessage.RCodeSuccess)
		b.Put(h.RecordName(), "v=spf1 -all", strings.Repeat("x", 600), ` "`+h.RecordValue()+`" `)
		for range 2 { // the second finds it done
			got, err := b.verify(t, o, host)
			must(t, err)
			if got.VerifiedAt == nil || got.Proof.Fault != "" || got.Proof.ExpiresAt != nil || got.Primary {
				t.Errorf("%+v %+v", got, *got.Proof)
			}
		}
		b.leads(t, host, &o)

		_, err = b.MakePrimary(t.Context(), o.Principal, o.ID, "MÜLLER.example.")
		must(t, err)
		s, err := b.Get(t.Context(), o.Principal, o.ID)
		must(t, err)
		if len(s.Hostnames) != 2 || s.Hostnames[0].Hostname != name || !s.Hostnames[0].Primary || s.Hostnames[1].Primary {
			t.Errorf("%+v", s.Hostnames)
		}
		must(t, b.rename(t.Context(), access.Principal{}, o.ID, shop.ProfilePatch{Slug: ptr("moved")}))
		if got := b.primary(t, o); got != name {
			t.Errorf("after a change of slug the primary hostname is %q", got)
		}

		must(t, b.RemoveHostname(t.Context(), o.Principal, o.ID, host))
		b.leads(t, host, nil)
		if got := b.primary(t, o); got != "moved.shops.test" {
			t.Errorf("after its removal the primary hostname is %q", got)
		}
		wantCode(t, b.RemoveHostname(t.Context(), o.Principal, o.ID, host), stoa.NotFound)
		if n := b.count(t, `hostname_claims`); n != 0 {
			t.Errorf("%d claims are left", n)
		}
	})
}

// TestFirstProofWins: a claim keeps nobody away, and of those who prove it at
// the same moment one has the name.
func TestFirstProofWins(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		const host, rivals = "shop.example.com", 4
		var shops []owned
		var values []string
		for i := range rivals {
			shops = append(shops, b.shop(t, fmt.Sprintf("Shop %d", i)))
			h := b.claim(t, shops[i], host)
			values = append(values, h.RecordValue())
			b.Put(h.RecordName(), values...)
		}
		if slices.Sort(values); len(slices.Compact(values)) != rivals {
			t.Errorf("two stores have one token: %v", values)
		}
		_, errs := atOnce(rivals, func(i int) (HostnameDetails, error) {
			return b.VerifyHostname(t.Context(), shops[i].Principal, shops[i].ID, host)
		})
		winner := -1
		for i, err := range errs {
			if err == nil && winner < 0 {
				winner = i
				continue
			}
			wantCode(t, err, stoa.HostnameTaken)
		}
		b.leads(t, host, &shops[winner])
		// A claim to it can still be made, by somebody to whom the domain was sold.
		loser := (winner + 1) % rivals
		b.claim(t, shops[loser], host)
		_, err := b.verify(t, shops[loser], host)
		wantCode(t, err, stoa.HostnameTaken)
		must(t, b.RemoveHostname(t.Context(), shops[winner].Principal, shops[winner].ID, host))
		b.leads(t, host, nil)
		_, err = b.verify(t, shops[loser], host)
		must(t, err)
		b.leads(t, host, &shops[loser])
	})
}

// TestHostnameRights: members of a lower rank look only; of another store's
// hostnames nobody learns anything.
func TestHostnameRights(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o, other := b.shop(t, "Bakery"), b.shop(t, "Other")
		const host = "shop.example.com"
		b.prove(t, o, host)
		calls := map[string]func(access.Principal, stoa.StoreID, string) error{
			"claim": func(p access.Principal, id stoa.StoreID, host string) error {
				_, _, err := b.ClaimHostname(t.Context(), p, id, host)
				return err
			},
			"verify": func(p access.Principal, id stoa.StoreID, host string) error {
				_, err := b.VerifyHostname(t.Context(), p, id, host)
				return err
			},
			"primary": func(p access.Principal, id stoa.StoreID, host string) error {
				_, err := b.MakePrimary(t.Context(), p, id, host)
				return err
			},
			"remove": func(p access.Principal, id stoa.StoreID, host string) error {
				return b.RemoveHostname(t.Context(), p, id, host)
			},
		}
		member := b.member(t, o.ID, access.Member)
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
		list, err := b.Hostnames(t.Context(), b.member(t, o.ID, access.Viewer), o.ID)
		if err != nil || len(list) != 2 {
			t.Errorf("a viewer sees %+v, %v", list, err)
		}
		_, err = b.Hostnames(t.Context(), other.Principal, o.ID)
		wantCode(t, err, stoa.StoreNotFound)
		b.leads(t, host, &o)
	})
}

// TestHostnameBounds: neither the registry nor the DNS can be flooded from
// one store.
func TestHostnameBounds(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Bakery")
		b.UseQuotas(quotas.Limits{Hostnames: 20})
		_, errs := atOnce(26, func(i int) (bool, error) {
			_, made, err := b.ClaimHostname(t.Context(), o.Principal, o.ID, fmt.Sprintf("shop%d.example.com", i))
			return made, err
		})
		refused := 0
		for _, err := range errs {
			if err != nil {
				wantQuota(t, err, stoa.Quota{Name: quotas.Hostnames, Limit: 20, Used: 20})
				refused++
			}
		}
		if n := b.count(t, `hostname_claims`); n != 20 || refused != 6 {
			t.Errorf("%d claims, %d refused", n, refused)
		}
		list, err := b.Hostnames(t.Context(), o.Principal, o.ID)
		must(t, err)
		h := list[len(list)-1]
		_, errs = atOnce(10, func(int) (HostnameDetails, error) {
			return b.VerifyHostname(t.Context(), o.Principal, o.ID, h.Hostname.Hostname)
		})
		var limited *stoa.Error
		for _, err := range errs {
			if err != nil && errors.As(err, &limited) && (limited.Code != stoa.RateLimited || limited.RetryAfter <= 0) {
				t.Error(err)
			}
		}
		if n := b.Asked(h.RecordName()); n != 1 || limited == nil {
			t.Errorf("the DNS was asked %d times", n)
		}
	})
}

// TestHostnamesAreNotified: every replica hears of a hostname that leads to a
// store or no longer does, and of nothing else.
func TestHostnamesAreNotified(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Bakery")
		const host = "shop.example.com"
		told := 0
		b.db.Subscribe(ChangeTopic, func(string) { told++ }, func() {})
		h := b.claim(t, o, host)
		for _, c := range []struct {
			what string
			do   func() error
			want int
		}{
			{"verify in vain", func() error { _, err := b.verify(t, o, host); return err }, 0},
			{"verify", func() error {
				b.Put(h.RecordName(), h.RecordValue())
				_, err := b.verify(t, o, host)
				return err
			}, 1},
			{"verify again", func() error { _, err := b.verify(t, o, host); return err }, 0},
			{"daily check", func() error { b.nextDay(t); return nil }, 0},
			{"primary", func() error { _, err := b.MakePrimary(t.Context(), o.Principal, o.ID, host); return err }, 1},
			{"remove", func() error { return b.RemoveHostname(t.Context(), o.Principal, o.ID, host) }, 1},
			{"remove a claim", func() error {
				b.claim(t, o, host)
				return b.RemoveHostname(t.Context(), o.Principal, o.ID, host)
			}, 0},
		} {
			told = 0
			must(t, c.do())
			if told != c.want {
				t.Errorf("%s: told %d times, want %d", c.what, told, c.want)
			}
		}
	})
}

// TestHostnameBeforeTheStore: a domain can be prepared before the store has a
// database, and then the store's own address takes its place beside it.
func TestHostnameBeforeTheStore(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		p := b.user(t)
		o := owned{b.create(t, p, "Bakery"), p}
		const host = "shop.example.com"
		b.prove(t, o, host)
		_, err := b.Resolve(t.Context(), host)
		wantCode(t, err, stoa.StorePendingDatabase)
		_, err = b.MakePrimary(t.Context(), o.Principal, o.ID, host)
		must(t, err)
		b.connect(t, o.Store, tenantdb.ManagedSQLite(o.ID))
		b.leads(t, host, &o)
		b.leads(t, "bakery.shops.test", &o)
		if got := b.primary(t, o); got != host {
			t.Errorf("the primary hostname is %q", got)
		}
		_, err = b.Update(t.Context(), o.Principal, o.ID, shop.ProfilePatch{Slug: ptr("moved")})
		must(t, err)
		b.leads(t, "moved.shops.test", &o)
	})
}

// TestVerifyInterrupted: who leaves in the middle has changed nothing.
func TestVerifyInterrupted(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Bakery")
		h := b.claim(t, o, "shop.example.com")
		b.Silence(true)
		ctx, leave := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			_, err := b.VerifyHostname(ctx, o.Principal, o.ID, "shop.example.com")
			done <- err
		}()
		until(t, "the DNS is asked", func() bool { return b.Asked(h.RecordName()) > 0 })
		leave()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		list, err := b.Hostnames(t.Context(), o.Principal, o.ID)
		must(t, err)
		if got := list[1].Proof; got.Fault != "" || got.CheckedAt != nil {
			t.Errorf("%+v", got)
		}
		b.dns.timeout = 50 * time.Millisecond
		got, err := b.verify(t, o, "shop.example.com")
		must(t, err)
		if got.Proof.Fault != DNSUnavailable {
			t.Errorf("servers that say nothing: %+v", *got.Proof)
		}
	})
}
