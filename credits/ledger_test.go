package credits_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/masterdb/masterdbtest"
)

func TestOpenAndReadBalance(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		got, err := b.ledger.ReadBalance(t.Context(), db, b.store)
		must(t, err)
		if d := cmp.Diff(credits.Balance{StoreID: b.store, UpdatedAt: got.UpdatedAt}, got); d != "" || got.UpdatedAt.IsZero() {
			t.Error(d, got.UpdatedAt)
		}
		_, err = b.ledger.ReadBalance(t.Context(), db, stoa.NewID[stoa.StoreID]())
		wantCode(t, err, stoa.StoreNotFound)
	})
}

func TestGrant(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		g := credits.Grant{
			Type: credits.TypePurchase, Amount: 5 * credits.Credit, Description: "Five", Reference: "r",
			IdempotencyKey: "grant:pi_1", UserID: &b.owner.UserID,
		}
		first, err := b.grant(t.Context(), g)
		must(t, err)
		want := credits.Transaction{
			ID: first.ID, StoreID: b.store, Sequence: 1, Type: credits.TypePurchase, Amount: 5 * credits.Credit,
			BalanceAfter: 5 * credits.Credit, Description: "Five", Reference: ptr("r"), UserID: &b.owner.UserID, CreatedAt: first.CreatedAt,
		}
		if d := cmp.Diff(want, first); d != "" {
			t.Error(d)
		}
		again, err := b.grant(t.Context(), g)
		must(t, err)
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
			if _, err := b.grant(t.Context(), changed); stoa.CodeOf(err) != stoa.IdempotencyConflict {
				t.Errorf("another %s: %v", name, err)
			}
		}
		b.give(t, credits.Credit)
		if got := b.balance(t); got.Balance != 6*credits.Credit || got.LifetimePurchased != 5*credits.Credit {
			t.Errorf("%+v", got)
		}
		b.checkInvariants(t)
	})
}

func TestGrantRefusesFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		good := credits.Grant{Type: credits.TypePurchase, Amount: math.MaxInt64 - 1, IdempotencyKey: "k"}
		_, err := b.grant(t.Context(), good)
		must(t, err)
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
			_, err := b.grant(t.Context(), g)
			if stoa.CodeOf(err) != stoa.InvalidRequest || !slices.Equal(fields(err), []string{c.field}) {
				t.Errorf("%s: %v, fields %v", name, err, fields(err))
			}
		}
		b.store = stoa.NewID[stoa.StoreID]()
		_, err = b.grant(t.Context(), good)
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// A spend cannot take the key of a payment that is on its way.
func TestSpendCannotBlockAGrant(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.give(t, credits.Credit)
		_, err := b.spend(t.Context(), credits.SpendRequest{Amount: 1, IdempotencyKey: "grant:pi_1"})
		must(t, err)
		_, err = b.grant(t.Context(), credits.Grant{Type: credits.TypePurchase, Amount: 1, IdempotencyKey: "grant:pi_1"})
		must(t, err)
	})
}

func TestConcurrentGrants(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		const rounds = 5 // in the first, few connections are open yet
		for round := range rounds {
			errs := concurrently(20, func(int) error {
				_, err := b.grant(t.Context(), credits.Grant{
					Type: credits.TypePurchase, Amount: credits.Credit, IdempotencyKey: fmt.Sprint("grant:", round),
				})
				return err
			})
			must(t, errors.Join(errs...))
		}
		if got := b.balance(t); got.Balance != rounds*credits.Credit || got.LifetimePurchased != rounds*credits.Credit {
			t.Errorf("%+v", got)
		}
		b.checkInvariants(t)
	})
}

func TestGrantFollowsItsTransaction(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		g := credits.Grant{Type: credits.TypeBonus, Amount: credits.Credit, IdempotencyKey: "k"}
		boom := fmt.Errorf("the caller changed its mind")
		err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			if _, err := b.ledger.Grant(t.Context(), tx, b.store, g); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) || b.balance(t).Balance != 0 || len(b.rows(t)) != 0 {
			t.Errorf("%v: %+v", err, b.balance(t))
		}
		_, err = b.grant(t.Context(), g)
		must(t, err)
	})
}

// TestLedgerModel runs random grants and spends, some under keys used
// before, against a ledger of three variables.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		rapid.Check(t, func(r *rapid.T) {
			m := &model{bench: setup(t, db), used: map[string]request{}}
			// Not rapid's Repeat: its 30 steps a run are half a minute of commits.
			for range rapid.IntRange(1, 15).Draw(r, "steps") {
				rapid.SampledFrom([]func(*rapid.T){m.doGrant, m.doSpend}).Draw(r, "step")(r)
			}
			m.checkInvariants(t)
			got := m.balance(t)
			if got.Balance != m.sum || got.LifetimePurchased != m.bought || got.LifetimeSpent != m.spent {
				r.Fatalf("got %+v, want balance %s, bought %s, spent %s", got, m.sum, m.bought, m.spent)
			}
		})
	})
}

type model struct {
	bench
	sum, bought, spent credits.Amount
	used               map[string]request
}

// request is what a key was used for, and what came of it.
type request struct {
	typ    credits.Type
	amount credits.Amount
	id     stoa.TransactionID
}

var (
	amounts = rapid.Map(rapid.Int64Range(1, 50_000), func(n int64) credits.Amount { return credits.Amount(n) })
	keys    = rapid.SampledFrom([]string{"a", "b", "c"})
)

func (m *model) doGrant(r *rapid.T) {
	typ := rapid.SampledFrom([]credits.Type{credits.TypePurchase, credits.TypeBonus, credits.TypeAdjustment}).Draw(r, "type")
	req := request{typ: typ, amount: amounts.Draw(r, "amount")}
	key := "grant:" + keys.Draw(r, "key")
	got, err := m.grant(r.Context(), credits.Grant{Type: req.typ, Amount: req.amount, IdempotencyKey: key})
	if !m.expect(r, key, req, true, got, err) {
		return
	}
	m.sum += req.amount
	if typ == credits.TypePurchase {
		m.bought += req.amount
	}
}

func (m *model) doSpend(r *rapid.T) {
	req := request{typ: credits.TypeSpend, amount: amounts.Draw(r, "amount")}
	key := rapid.OneOf(keys, rapid.Just("")).Draw(r, "key")
	got, err := m.spend(r.Context(), credits.SpendRequest{Amount: req.amount, IdempotencyKey: key})
	if m.expect(r, key, req, req.amount <= m.sum, got.Transaction, err) {
		m.sum -= req.amount
		m.spent += req.amount
	}
}

// expect checks the outcome of one call and reports whether credits moved.
func (m *model) expect(r *rapid.T, key string, req request, enough bool, got credits.Transaction, err error) (moved bool) {
	first, used := m.used[key]
	code := stoa.CodeOf(err)
	switch {
	case used && (first.typ != req.typ || first.amount != req.amount):
		if code != stoa.IdempotencyConflict {
			r.Fatalf("key %q used for another request: %v", key, err)
		}
	case used:
		if err != nil || got.ID != first.id {
			r.Fatalf("replay of %q: %v, transaction %s, want %s", key, err, got.ID, first.id)
		}
	case !enough:
		if code != stoa.InsufficientCredits {
			r.Fatalf("spent more than there is: %v", err)
		}
	case err != nil:
		r.Fatal(err)
	default:
		req.id = got.ID
		if key != "" {
			m.used[key] = req
		}
		return true
	}
	return false
}
