package credits_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// TestBalancesSideBySide reads balances for members of one store and of another at the same
// time, so that their calls share statements. Each must get the balance of the store that it
// names, and nobody one of a store that is not theirs.
func TestBalancesSideBySide(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		accounts := []creditstest.Account{creditstest.New(t, db), creditstest.New(t, db), creditstest.New(t, db)}
		soon := time.Now().UTC().Add(time.Hour)
		ledger := accounts[0].Ledger
		for i, a := range accounts {
			a.Give(t, credits.Amount(i+1)*credits.Credit)
			if i == 1 {
				_, err := a.Grant(t.Context(), credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, ExpiresAt: &soon, IdempotencyKey: "soon"})
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		want := []credits.Amount{1 * credits.Credit, 3 * credits.Credit, 3 * credits.Credit}
		var running sync.WaitGroup
		for i, a := range accounts {
			for _, p := range []authz.Principal{a.Owner, a.Member(t, authz.Viewer)} {
				for j, of := range accounts {
					running.Go(func() {
						for range 25 {
							b, err := ledger.Balance(t.Context(), p, of.Store)
							switch {
							case i != j && (stoa.CodeOf(err) != stoa.StoreNotFound || b != (credits.Balance{})):
								t.Errorf("of another's store: %+v, %v", b, err)
							case i == j && (err != nil || b.StoreID != of.Store || b.Balance != want[i] || (b.ExpiresSoon != nil) != (i == 1)):
								t.Errorf("of the store %d: %+v, %v", i, b, err)
							}
						}
					})
				}
			}
		}
		running.Wait()
	})
}
