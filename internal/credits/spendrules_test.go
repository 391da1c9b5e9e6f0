package credits_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestSpendFormsAgree compares the two forms of the rules of a spend. Random
// calls are made on random accounts by the spend statement (the SQL form), and
// on accounts in the same state under their locks (the Go form). What the
// statement carries out, the Go form carries out in the same way. What the
// statement leaves out, it has not changed, and there is a reason to leave it
// out: an error, a key that was used before, or lots.
func TestSpendFormsAgree(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		if db.Engine == masterdb.SQLite {
			t.Skip("SQLite has the Go form only: there is no spend statement")
		}
		people := newPeople(t, db)
		var answered, declined int
		rapid.Check(t, func(r *rapid.T) {
			var pairs []accountPair
			bySQL, byGo := map[stoa.StoreID][]credits.Call{}, map[stoa.StoreID][]credits.Call{}
			for range rapid.IntRange(1, 2).Draw(r, "accounts") {
				p := drawPair(r, t, db, people)
				bySQL[p.sql.Store], byGo[p.golang.Store] = p.calls, p.calls
				pairs = append(pairs, p)
			}
			statement := credits.SpendByStatement(r.Context(), pairs[0].sql.Ledger, bySQL)
			locked := credits.SpendUnderLock(r.Context(), pairs[0].sql.Ledger, byGo)
			for _, p := range pairs {
				if outcomes, ok := statement[p.sql.Store]; ok {
					answered++
					p.checkAnswered(r, t, outcomes, locked[p.golang.Store])
				} else {
					declined++
					p.checkDeclined(r, t, locked[p.golang.Store], slices.ContainsFunc(pairs, func(p accountPair) bool { return p.overflow }))
				}
			}
		})
		if answered == 0 || declined == 0 {
			t.Errorf("the statement answered for %d accounts and declined %d: one side was not compared", answered, declined)
		}
	})
}

// accountPair is two accounts in the same state and the calls made on each.
type accountPair struct {
	sql, golang creditstest.Account
	calls       []credits.Call
	lots        bool
	overflow    bool   // the total of the account's spends is almost the largest that fits
	before      string // the ledger's rows of the account sql
}

// newPeople creates users of all kinds, by name. The members have the role of that name
// in every store of drawPair.
func newPeople(t *testing.T, db *masterdb.DB) map[string]authz.Principal {
	t.Helper()
	people := map[string]authz.Principal{}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		for _, name := range []string{"owner", "admin", "member", "viewer", "stranger", "operator"} {
			people[name] = authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
			if err := creditstest.InsertUser(t.Context(), tx, people[name].UserID); err != nil {
				return err
			}
		}
		_, err := tx.Exec(t.Context(), `UPDATE users SET role = 'admin' WHERE id = $1`, people["operator"].UserID)
		return err
	}))
	people["nobody"] = authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	return people
}

// drawPair creates two accounts in the same random state and draws calls.
func drawPair(r *rapid.T, t *testing.T, db *masterdb.DB, people map[string]authz.Principal) accountPair {
	t.Helper()
	// A plain pair has nothing that makes the statement decline, so that every run of the
	// test compares some accounts for which the statement answers.
	plain := rapid.SampledFrom([]bool{false, false, true}).Draw(r, "plain")
	small := rapid.IntRange(0, 12)
	balance, debt := small.Draw(r, "balance"), rapid.SampledFrom([]int{0, 0, 0, 0, 0, 3}).Draw(r, "debt")
	reserved := min(balance, rapid.SampledFrom([]int{0, 0, 2, 12}).Draw(r, "reserved"))
	if plain {
		balance, reserved, debt = balance+3, 0, 0
	}
	if debt > 0 {
		reserved = balance // a constraint of the table requires it
	}
	p := accountPair{
		lots:     rapid.SampledFrom([]bool{false, false, false, true}).Draw(r, "lots") && balance > 0,
		overflow: rapid.SampledFrom([]bool{false, false, false, true}).Draw(r, "overflow"),
	}
	if plain {
		p.lots, p.overflow = false, false
	}
	spent := 0
	if p.overflow {
		spent = math.MaxInt64 - 2
	}
	status := rapid.SampledFrom([]string{"active", "active", "active", "active", "active", "suspended", "deleting", "deleted"}).Draw(r, "status")
	used := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b"}), 0, 2, rapid.ID).Draw(r, "used keys")
	if plain {
		status, used = "active", nil
	}
	prepare := func() creditstest.Account {
		b := creditstest.New(t, db)
		for _, role := range []authz.Role{authz.Owner, authz.Admin, authz.Member, authz.Viewer} {
			testkit.Must(t, db.Tx(r.Context(), func(tx *masterdb.Tx) error {
				return authz.Grant(r.Context(), tx, b.Store, people[string(role)].UserID, role)
			}))
		}
		b.Give(t, credits.Credit)
		for _, key := range used {
			_, err := b.Spend(r.Context(), credits.SpendRequest{Amount: 1, IdempotencyKey: key})
			testkit.Must(t, err)
		}
		lotted := 0
		if p.lots {
			_, err := b.Grant(r.Context(), credits.Grant{Type: credits.TypeBonus, Amount: 1, Priority: 1, IdempotencyKey: "lot"})
			testkit.Must(t, err)
			lotted = 1
		}
		b.Exec(t, `UPDATE credit_balances SET balance = $2, reserved = $3, debt = $4, lifetime_spent = $5, lotted = $6 WHERE store_id = $1`,
			b.Store, balance, reserved, debt, spent, lotted)
		b.Exec(t, `UPDATE stores SET status = $2 WHERE id = $1`, b.Store, status)
		return b
	}
	p.sql, p.golang = prepare(), prepare()
	p.before = p.sql.Dump(t)
	available := balance - reserved
	if plain {
		p.calls = rapid.SliceOfN(rapid.Just(credits.Call{User: people["owner"], Request: credits.SpendRequest{Amount: 1, Description: "d"}}), 1, 3).Draw(r, "calls")
		return p
	}
	p.calls = rapid.SliceOfN(rapid.Custom(func(r *rapid.T) credits.Call { return drawCall(r, people, available) }), 1, 3).Draw(r, "calls")
	return p
}

// drawCall draws a call. Its amount is often exactly the available amount, or one unit
// more.
func drawCall(r *rapid.T, people map[string]authz.Principal, available int) credits.Call {
	who := rapid.SampledFrom([]string{"owner", "owner", "owner", "admin", "member", "viewer", "stranger", "operator", "nobody"}).Draw(r, "caller")
	req := credits.SpendRequest{Description: "d", IdempotencyKey: rapid.SampledFrom([]string{"", "", "a", "b", "c"}).Draw(r, "key")}
	switch service := rapid.SampledFrom([]string{"", "", "", "product_translation", "no_such_service"}).Draw(r, "service"); service {
	case "":
		req.Amount = credits.Amount(rapid.SampledFrom([]int{1, 2, max(1, available), max(1, available), available + 1}).Draw(r, "amount"))
	default:
		req.ServiceKey = service
	}
	return credits.Call{User: people[who], Request: req}
}

// checkAnswered compares the outcomes of calls that the statement carried out.
func (p accountPair) checkAnswered(r *rapid.T, t *testing.T, statement, locked []credits.Outcome) {
	t.Helper()
	ignore := cmp.Options{
		cmpopts.IgnoreFields(credits.Transaction{}, "ID", "StoreID", "CreatedAt"),
		cmpopts.IgnoreFields(credits.Balance{}, "StoreID", "UpdatedAt"),
	}
	if p.lots {
		r.Fatalf("%s: the statement spent from an account with lots", p)
	}
	for i, s := range statement {
		if s.Err != nil || locked[i].Err != nil {
			r.Fatalf("%s: call %d: the statement gave the error %v, the locked form %v", p, i, s.Err, locked[i].Err)
		}
		if d := cmp.Diff(locked[i].Result, s.Result, ignore); d != "" {
			r.Fatalf("%s: call %d: the locked form and the statement differ (-locked +statement):\n%s", p, i, d)
		}
	}
	if d := cmp.Diff(p.read(r, t, p.golang), p.read(r, t, p.sql), ignore); d != "" {
		r.Fatalf("%s: the accounts differ afterwards (-locked +statement):\n%s", p, d)
	}
}

// checkDeclined requires a reason why the statement carried out nothing.
func (p accountPair) checkDeclined(r *rapid.T, t *testing.T, locked []credits.Outcome, overflow bool) {
	t.Helper()
	if after := p.sql.Dump(t); after != p.before {
		r.Fatalf("%s: the statement declined and changed\n%s\nto\n%s", p, p.before, after)
	}
	for i, out := range locked {
		if stoa.CodeOf(out.Err) == stoa.Internal {
			r.Fatalf("%s: call %d: the locked form failed: %v", p, i, out.Err)
		}
	}
	if p.lots || overflow { // an overflow in one account fails the statement for all
		return
	}
	keys := map[string]bool{}
	for i, out := range locked {
		key := p.calls[i].Request.IdempotencyKey
		if out.Err != nil || key != "" && keys[key] || out.Result.Transaction.Sequence <= int64(len(p.golang.Rows(t))-len(p.calls)) {
			return
		}
		keys[key] = true
	}
	r.Fatalf("%s: the statement declined what the locked form carried out", p)
}

func (p accountPair) read(r *rapid.T, t *testing.T, b creditstest.Account) credits.Balance {
	t.Helper()
	got, err := b.Ledger.ReadBalance(r.Context(), b.DB, b.Store)
	testkit.Must(t, err)
	return got
}

func (p accountPair) String() string { return fmt.Sprintf("calls %+v on\n%s", p.calls, p.before) }
