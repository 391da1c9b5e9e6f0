package credits_test

import (
	"context"
	"sync"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// setThreshold sets the threshold below which the owners get mails.
func setThreshold(t testing.TB, b creditstest.Account, amount credits.Amount) {
	t.Helper()
	testkit.Must(t, b.Ledger.SetSettings(t.Context(), b.Owner, b.Store, credits.Settings{LowBalance: &amount}, nil))
}

// crossings returns how often the available amount fell below the threshold.
func crossings(t testing.TB, b creditstest.Account) (n int) {
	t.Helper()
	testkit.Must(t, b.DB.Get(t.Context(), &n, `SELECT count(*) FROM credit_crossings WHERE store_id = $1`, b.Store))
	return n
}

// TestLowBalanceIsCrossed checks that each fall is recorded once, whichever operation
// caused it.
func TestLowBalanceIsCrossed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		ctx := t.Context()
		spend := func(amount credits.Amount) {
			t.Helper()
			_, err := b.Spend(ctx, credits.SpendRequest{Amount: amount})
			testkit.Must(t, err)
		}
		expect := func(what string, want int) {
			t.Helper()
			if got := crossings(t, b); got != want {
				t.Fatalf("%s: %d crossings, want %d", what, got, want)
			}
		}
		b.Give(t, 100)
		spend(99)
		expect("no threshold", 0)
		setThreshold(t, b, 50)
		expect("set above what is available", 0)
		spend(1)
		expect("lower still", 0)
		b.Give(t, 50)
		spend(1)
		expect("back at it, and one less", 1)
		spend(10)
		expect("lower still", 1)
		b.Give(t, 10)
		spend(1)
		expect("never back at it", 1)
		b.Give(t, 100)
		held, err := b.Ledger.Hold(ctx, b.Owner, b.Store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 99}})
		testkit.Must(t, err)
		expect("held", 2)
		_, err = b.Ledger.Capture(ctx, b.Owner, b.Store, held.Hold.ID, credits.CaptureRequest{Amount: 99})
		testkit.Must(t, err)
		expect("captured, which changes nothing", 2)
		b.Give(t, 1000)
		testkit.Must(t, db.Tx(ctx, func(tx *masterdb.Tx) error {
			_, err := b.Ledger.ClawBack(ctx, tx, b.Store, credits.Reversal{Type: credits.TypeRefund, Amount: 5000, IdempotencyKey: "r"})
			return err
		}))
		expect("clawed back into debt", 3)
		b.Give(t, 10_000)
		setThreshold(t, b, 10_000)
		testkit.Must(t, b.Ledger.SetSettings(ctx, b.Owner, b.Store, credits.Settings{}, nil))
		spend(1000)
		expect("turned off", 3)
	})
}

// TestLowBalanceUnderLoad checks that exactly one of two hundred concurrent spends is
// recorded as a fall, in a batch or alone.
func TestLowBalanceUnderLoad(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 200)
		setThreshold(t, b, 100)
		other := credits.New(db) // another replica
		var wg sync.WaitGroup
		for i := range 200 {
			ledger := []*credits.Ledger{b.Ledger, other}[i%2]
			wg.Go(func() {
				if _, err := ledger.Spend(context.WithoutCancel(t.Context()), b.Owner, b.Store, credits.SpendRequest{Amount: 1}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := crossings(t, b); got != 1 {
			t.Errorf("%d crossings, want 1", got)
		}
	})
}

// TestSettings checks who may read and change the settings.
func TestSettings(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		ctx := t.Context()
		set := func(p authz.Principal, amount credits.Amount) error {
			return b.Ledger.SetSettings(ctx, p, b.Store, credits.Settings{LowBalance: &amount}, nil)
		}
		for role, code := range map[authz.Role]stoa.Code{authz.Admin: "", authz.Member: stoa.Forbidden, authz.Viewer: stoa.Forbidden} {
			p := b.Member(t, role)
			wantCode(t, set(p, 5), code)
			_, err := b.Ledger.Settings(ctx, p, b.Store)
			testkit.Must(t, err)
		}
		stranger := creditstest.New(t, db).Owner
		wantCode(t, set(stranger, 7), stoa.StoreNotFound)
		_, err := b.Ledger.Settings(ctx, stranger, b.Store)
		wantCode(t, err, stoa.StoreNotFound)
		wantCode(t, set(b.Owner, 0), stoa.InvalidRequest)
		wantCode(t, set(b.Owner, -1), stoa.InvalidRequest)
		testkit.Must(t, set(b.Owner, 1<<63-1))
		s, err := b.Ledger.Settings(ctx, b.Owner, b.Store)
		testkit.Must(t, err)
		if s.LowBalance == nil || *s.LowBalance != 1<<63-1 {
			t.Errorf("%v", s.LowBalance)
		}
	})
}
