package hostnames

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLostHostname checks that a hostname is unmapped after three consecutive days
// without the record. A day on which the DNS does not answer changes nothing, and a day
// with the record resets the count.
func TestLostHostname(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o := r.store(t, "bakery")
		const host = "shop.example.com"
		r.claimVerified(t, o, host)
		_, err := r.MakePrimary(t.Context(), o.Principal, o.ID, host)
		testkit.Must(t, err)
		h, err := r.read(t.Context(), o.ID, host)
		testkit.Must(t, err)
		gone, wrong := func() { r.server.Remove(h.RecordName()) }, func() { r.server.Put(h.RecordName(), recordPrefix+"other") }
		down, back := func() { r.server.Break(dnsmessage.RCodeServerFailure) }, func() { r.server.Put(h.RecordName(), h.RecordValue()) }
		for day, c := range []struct {
			dns    func()
			fault  VerificationFault
			misses int
		}{
			{gone, RecordNotFound, 1}, {gone, RecordNotFound, 2}, {back, "", 0},
			{gone, RecordNotFound, 1}, {down, DNSUnavailable, 1}, {wrong, RecordMismatch, 2}, {down, DNSUnavailable, 2},
		} {
			r.server.Break(dnsmessage.RCodeSuccess)
			c.dns()
			r.nextDay(t)
			testkit.Must(t, r.Recheck(t.Context(), Recheck{})) // no check is due any more
			got, err := r.read(t.Context(), o.ID, host)
			testkit.Must(t, err)
			if got.VerifiedAt == nil || got.Verification.Fault != c.fault || got.Verification.Misses != c.misses {
				t.Fatalf("day %d: %+v", day, *got.Verification)
			}
			r.wantStore(t, host, &o)
		}
		r.server.Break(dnsmessage.RCodeSuccess)
		gone()
		for range 5 { // a check that the owner requests does not count
			_, err := r.verify(t, o, host)
			testkit.Must(t, err)
		}
		r.wantStore(t, host, &o)
		r.nextDay(t)
		r.wantStore(t, host, nil)
		if got := r.primary(t, o); got != "bakery.shops.test" {
			t.Errorf("the primary hostname is %q", got)
		}
		got, err := r.read(t.Context(), o.ID, host)
		testkit.Must(t, err)
		if got.VerifiedAt != nil || got.Verification.Fault != RecordNotFound || got.Verification.Misses != maxMisses || got.Verification.ExpiresAt == nil {
			t.Errorf("what its owner sees: %+v", *got.Verification)
		}
		asked := r.server.Asked(h.RecordName())
		r.nextDay(t)
		if n := r.server.Asked(h.RecordName()); n != asked {
			t.Error("a claim is checked daily")
		}
		back()
		got, err = r.verify(t, o, host)
		testkit.Must(t, err)
		if got.VerifiedAt == nil || got.Verification.Misses != 0 {
			t.Errorf("proven again: %+v", *got.Verification)
		}
		r.wantStore(t, host, &o)
	})
}

// TestManyChecks checks that concurrent jobs handle more than one batch, and that
// hostnames that cannot be looked up do not prevent the checks of others.
func TestManyChecks(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		const shops, each = 7, 18
		var all []store
		for i := range shops {
			o := r.store(t, fmt.Sprintf("shop-%d", i))
			all = append(all, o)
			for j := range each {
				r.claimVerified(t, o, fmt.Sprintf("s%d.shop%d.example", j, i))
			}
		}
		r.setStatus(t, all[1].ID, "deleting")
		r.exec(t, `UPDATE hostname_claims SET check_after = $1`, time.Now().UTC().Add(-time.Second))
		for j := range each {
			r.server.Remove(fmt.Sprintf("_stoa.s%d.shop0.example", j))
		}
		_, errs := atOnce(2, func(int) (bool, error) { // the job may run twice at the same time
			return true, r.Recheck(t.Context(), Recheck{})
		})
		for _, err := range errs {
			testkit.Must(t, err)
		}
		if n := r.count(t, `hostname_claims WHERE misses = 1`); n != each {
			t.Errorf("%d hostnames have missed a day", n)
		}
		if n := r.count(t, `hostname_claims WHERE misses = 0 AND fault IS NULL AND check_after > created_at`); n != (shops-1)*each {
			t.Errorf("%d hostnames are in order", n)
		}
	})
}

// TestClaimsEnd checks that claims that are not verified, and those of a deleted store,
// are deleted.
func TestClaimsEnd(t *testing.T) {
	t.Parallel()
	eachMaster(t, func(t *testing.T, r replica) {
		o, deleted := r.store(t, "bakery"), r.store(t, "deleted")
		r.claimVerified(t, o, "proven.example.com")
		r.claim(t, o, "new.example.com")
		r.claimVerified(t, deleted, "gone.example.com")
		old := func(host string) {
			t.Helper()
			r.claim(t, o, host)
			r.exec(t, `UPDATE hostname_claims SET expires_at = $1 WHERE hostname = $2`, time.Now().UTC().Add(-time.Second), host)
		}
		old("old.example.com")
		old("renewed.example.com")
		r.claim(t, o, "renewed.example.com")
		r.setStatus(t, deleted.ID, "deleting")
		_, _, err := r.Claim(t.Context(), deleted.Principal, deleted.ID, "late.example.com")
		wantCode(t, err, stoa.StoreSuspended)
		r.setStatus(t, deleted.ID, "deleted")
		testkit.Must(t, r.Recheck(t.Context(), Recheck{}))
		var left []string
		testkit.Must(t, r.db.Select(t.Context(), &left, `SELECT hostname FROM hostname_claims ORDER BY hostname`))
		if got := fmt.Sprint(left); got != "[new.example.com proven.example.com renewed.example.com]" {
			t.Error(got)
		}
		_, err = r.verify(t, o, "old.example.com")
		wantCode(t, err, stoa.NotFound)
		r.wantStore(t, "proven.example.com", &o)
	})
}
