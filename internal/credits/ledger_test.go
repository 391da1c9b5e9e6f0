package credits_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestOpenAndReadBalance(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		got, err := b.Ledger.ReadBalance(t.Context(), db, b.Store)
		testkit.Must(t, err)
		if d := cmp.Diff(credits.Balance{StoreID: b.Store, UpdatedAt: got.UpdatedAt}, got); d != "" || got.UpdatedAt.IsZero() {
			t.Error(d, got.UpdatedAt)
		}
		_, err = b.Ledger.ReadBalance(t.Context(), db, stoa.NewID[stoa.StoreID]())
		wantCode(t, err, stoa.StoreNotFound)
	})
}

func TestGrant(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		g := credits.Grant{
			Type: credits.TypePurchase, Amount: 5 * credits.Credit, Description: "Five", Reference: "r",
			IdempotencyKey: "grant:pi_1", UserID: &b.Owner.UserID,
		}
		first, err := b.Grant(t.Context(), g)
		testkit.Must(t, err)
		want := credits.Transaction{
			ID: first.ID, StoreID: b.Store, Sequence: 1, Type: credits.TypePurchase, Amount: 5 * credits.Credit,
			BalanceAfter: 5 * credits.Credit, Description: "Five", Reference: ptr("r"), UserID: &b.Owner.UserID, CreatedAt: first.CreatedAt,
		}
		if d := cmp.Diff(want, first); d != "" {
			t.Error(d)
		}
		again, err := b.Grant(t.Context(), g)
		testkit.Must(t, err)
		if d := cmp.Diff(first, again); d != "" {
			t.Error("a replay differs:", d)
		}
		for name, change := range map[string]func(*credits.Grant){
			"amount":    func(g *credits.Grant) { g.Amount++ },
			"type":      func(g *credits.Grant) { g.Type = credits.TypeBonus },
			"reference": func(g *credits.Grant) { g.Reference = "s" },
		} {
			changed := g
			change(&changed)
			if _, err := b.Grant(t.Context(), changed); stoa.CodeOf(err) != stoa.IdempotencyConflict {
				t.Errorf("another %s: %v", name, err)
			}
		}
		b.Give(t, credits.Credit)
		if got := b.Balance(t); got.Balance != 6*credits.Credit || got.LifetimePurchased != 5*credits.Credit {
			t.Errorf("%+v", got)
		}
		b.CheckInvariants(t)
	})
}

func TestGrantRefusesFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		good := credits.Grant{Type: credits.TypePurchase, Amount: math.MaxInt64 - 1, IdempotencyKey: "k"}
		_, err := b.Grant(t.Context(), good)
		testkit.Must(t, err)
		for name, c := range map[string]struct {
			change func(*credits.Grant)
			field  string
		}{
			"amount 0":      {func(g *credits.Grant) { g.Amount = 0 }, "amount"},
			"negative":      {func(g *credits.Grant) { g.Amount = -1 }, "amount"},
			"overflow":      {func(g *credits.Grant) { g.Amount = 2 }, "amount"},
			"type":          {func(g *credits.Grant) { g.Type = credits.TypeSpend }, "type"},
			"no key":        {func(g *credits.Grant) { g.IdempotencyKey = "" }, "idempotencyKey"},
			"a spend's key": {func(g *credits.Grant) { g.IdempotencyKey = "spend:k" }, "idempotencyKey"},
			"zero byte":     {func(g *credits.Grant) { g.Reference = "\x00" }, "reference"},
		} {
			g := good
			g.IdempotencyKey = "other"
			c.change(&g)
			_, err := b.Grant(t.Context(), g)
			if stoa.CodeOf(err) != stoa.InvalidRequest || !slices.Equal(fields(err), []string{c.field}) {
				t.Errorf("%s: %v, fields %v", name, err, fields(err))
			}
		}
		b.Store = stoa.NewID[stoa.StoreID]()
		_, err = b.Grant(t.Context(), good)
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// TestSpendCannotBlockAGrant checks that a spend cannot use the key of a payment that has
// not been applied yet.
func TestSpendCannotBlockAGrant(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, credits.Credit)
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 1, IdempotencyKey: "grant:pi_1"})
		testkit.Must(t, err)
		_, err = b.Grant(t.Context(), credits.Grant{Type: credits.TypePurchase, Amount: 1, IdempotencyKey: "grant:pi_1"})
		testkit.Must(t, err)
	})
}

func TestConcurrentGrants(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		const rounds = 5 // in the first round few connections are open
		for round := range rounds {
			errs := concurrently(20, func(int) error {
				_, err := b.Grant(t.Context(), credits.Grant{
					Type: credits.TypePurchase, Amount: credits.Credit, IdempotencyKey: fmt.Sprint("grant:", round),
				})
				return err
			})
			testkit.Must(t, errors.Join(errs...))
		}
		if got := b.Balance(t); got.Balance != rounds*credits.Credit || got.LifetimePurchased != rounds*credits.Credit {
			t.Errorf("%+v", got)
		}
		b.CheckInvariants(t)
	})
}

func TestGrantFollowsItsTransaction(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		g := credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, IdempotencyKey: "k"}
		boom := fmt.Errorf("the caller changed its mind")
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if _, err := b.Ledger.Grant(t.Context(), tx, b.Store, g); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) || b.Balance(t).Balance != 0 || len(b.Rows(t)) != 0 {
			t.Errorf("%v: %+v", err, b.Balance(t))
		}
		_, err = b.Grant(t.Context(), g)
		testkit.Must(t, err)
	})
}

// TestExpiryTakesTheOldestLotFirst checks that expired lots expire in the order in which
// they were granted, as far as their credits are not reserved, wherever the database
// stores their rows.
func TestExpiryTakesTheOldestLotFirst(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		soon := time.Now().UTC().Add(time.Hour)
		for _, amount := range []credits.Amount{500, 70} {
			_, err := b.Grant(t.Context(), credits.Grant{Type: credits.TypeBonus, Amount: amount, ExpiresAt: &soon, IdempotencyKey: amount.String()})
			testkit.Must(t, err)
		}
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 100}) // it takes from the first lot, whose row PostgreSQL then stores after the second's
		testkit.Must(t, err)
		testkit.Must(t, b.DB.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.Ledger.Freeze(t.Context(), tx, b.Store, "p", 90) }))
		b.Exec(t, `UPDATE credit_lots SET expires_at = $2 WHERE store_id = $1 AND remaining = 70`, b.Store, soon.Add(-2*time.Hour))
		b.Exec(t, `UPDATE credit_lots SET expires_at = $2 WHERE store_id = $1 AND remaining = 400`, b.Store, soon.Add(-2*time.Hour))
		testkit.Must(t, b.Ledger.Sweep(t.Context(), credits.Sweep{}))
		var left []credits.Amount
		testkit.Must(t, b.DB.Select(t.Context(), &left, `SELECT remaining FROM credit_lots WHERE store_id = $1 ORDER BY seq`, b.Store))
		if !slices.Equal(left, []credits.Amount{20, 70}) {
			t.Errorf("%v are left", left)
		}
	})
}
