package stores

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/stoahq/stoa"
)

// TestLosingAHostname: three days in a row without the record. A day on which
// the DNS does not work counts neither way, one with the record begins anew.
func TestLosingAHostname(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o := b.shop(t, "Bakery")
		const host = "shop.example.com"
		b.prove(t, o, host)
		_, err := b.MakePrimary(t.Context(), o.Principal, o.ID, host)
		must(t, err)
		h, err := b.hostname(t.Context(), o.ID, host)
		must(t, err)
		gone, wrong := func() { b.Remove(h.RecordName()) }, func() { b.Put(h.RecordName(), recordPrefix+"other") }
		down, back := func() { b.Break(dnsmessage.RCodeServerFailure) }, func() { b.Put(h.RecordName(), h.RecordValue()) }
		for day, c := range []struct {
			dns    func()
			fault  ProofFault
			misses int
		}{
			{gone, RecordNotFound, 1}, {gone, RecordNotFound, 2}, {back, "", 0},
			{gone, RecordNotFound, 1}, {down, DNSUnavailable, 1}, {wrong, RecordMismatch, 2}, {down, DNSUnavailable, 2},
		} {
			b.Break(dnsmessage.RCodeSuccess)
			c.dns()
			b.nextDay(t)
			must(t, b.CheckHostnames(t.Context(), CheckHostnames{})) // nothing is due any more
			got, err := b.hostname(t.Context(), o.ID, host)
			must(t, err)
			if got.VerifiedAt == nil || got.Proof.Fault != c.fault || got.Proof.Misses != c.misses {
				t.Fatalf("day %d: %+v", day, *got.Proof)
			}
			b.leads(t, host, &o)
		}
		b.Break(dnsmessage.RCodeSuccess)
		gone()
		for range 5 { // that its owner looks costs nothing
			_, err := b.verify(t, o, host)
			must(t, err)
		}
		b.leads(t, host, &o)
		b.nextDay(t)
		b.leads(t, host, nil)
		if got := b.primary(t, o); got != "bakery.shops.test" {
			t.Errorf("the primary hostname is %q", got)
		}
		got, err := b.hostname(t.Context(), o.ID, host)
		must(t, err)
		if got.VerifiedAt != nil || got.Proof.Fault != RecordNotFound || got.Proof.Misses != maxMisses || got.Proof.ExpiresAt == nil {
			t.Errorf("what its owner sees: %+v", *got.Proof)
		}
		asked := b.Asked(h.RecordName())
		b.nextDay(t)
		if n := b.Asked(h.RecordName()); n != asked {
			t.Error("a claim is checked daily")
		}
		back()
		got, err = b.verify(t, o, host)
		must(t, err)
		if got.VerifiedAt == nil || got.Proof.Misses != 0 {
			t.Errorf("proven again: %+v", *got.Proof)
		}
		b.leads(t, host, &o)
	})
}

// TestManyChecks: more than one batch, at once, and what cannot be looked up
// keeps nobody else from being.
func TestManyChecks(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		const shops, each = 7, 18
		var all []owned
		for i := range shops {
			o := b.shop(t, fmt.Sprintf("Shop %d", i))
			all = append(all, o)
			for j := range each {
				b.prove(t, o, fmt.Sprintf("s%d.shop%d.example", j, i))
			}
		}
		b.setStatus(t, all[1].ID, Deleting)
		b.exec(t, `UPDATE hostname_claims SET check_after = $1`, time.Now().UTC().Add(-time.Second))
		for j := range each {
			b.Remove(fmt.Sprintf("_stoa.s%d.shop0.example", j))
		}
		_, errs := atOnce(2, func(int) (bool, error) { // a job may run twice
			return true, b.CheckHostnames(t.Context(), CheckHostnames{})
		})
		for _, err := range errs {
			must(t, err)
		}
		if n := b.count(t, `hostname_claims WHERE misses = 1`); n != each {
			t.Errorf("%d hostnames have missed a day", n)
		}
		if n := b.count(t, `hostname_claims WHERE misses = 0 AND fault IS NULL AND check_after > created_at`); n != (shops-1)*each {
			t.Errorf("%d hostnames are in order", n)
		}
	})
}

// TestClaimsEnd: what nobody proves does not stay, nor what a deleted store
// has left.
func TestClaimsEnd(t *testing.T) {
	t.Parallel()
	eachNamed(t, func(t *testing.T, b named) {
		o, deleted := b.shop(t, "Bakery"), b.shop(t, "Deleted")
		b.prove(t, o, "proven.example.com")
		b.claim(t, o, "new.example.com")
		b.prove(t, deleted, "gone.example.com")
		old := func(host string) {
			t.Helper()
			b.claim(t, o, host)
			b.exec(t, `UPDATE hostname_claims SET expires_at = $1 WHERE hostname = $2`, time.Now().UTC().Add(-time.Second), host)
		}
		old("old.example.com")
		old("renewed.example.com")
		b.claim(t, o, "renewed.example.com")
		b.setStatus(t, deleted.ID, Deleting)
		_, _, err := b.ClaimHostname(t.Context(), deleted.Principal, deleted.ID, "late.example.com")
		wantCode(t, err, stoa.StoreSuspended)
		b.setStatus(t, deleted.ID, Deleted)
		must(t, b.CheckHostnames(t.Context(), CheckHostnames{}))
		var left []string
		must(t, b.db.Select(t.Context(), &left, `SELECT hostname FROM hostname_claims ORDER BY hostname`))
		if got := fmt.Sprint(left); got != "[new.example.com proven.example.com renewed.example.com]" {
			t.Error(got)
		}
		_, err = b.verify(t, o, "old.example.com")
		wantCode(t, err, stoa.NotFound)
		b.leads(t, "proven.example.com", &o)
	})
}
