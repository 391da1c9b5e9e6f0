package verify_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// eventful creates a store with every kind of record of a ledger. Its transactions are 1
// purchase, 2 bonus (a lot), 3 spend of a service, 4 capture, 5 refund, 6 purchase of
// less than is owed, 7 repayment.
func eventful(t *testing.T, db *masterdb.DB) creditstest.Account {
	t.Helper()
	b := creditstest.New(t, db)
	later := time.Now().UTC().Add(time.Hour)
	grant := func(g credits.Grant) {
		g.IdempotencyKey = stoa.NewID[stoa.TransactionID]().String()
		_, err := b.Grant(t.Context(), g)
		testkit.Must(t, err)
	}
	grant(credits.Grant{Type: credits.TypePurchase, Amount: 10 * credits.Credit, Reference: "p"})
	grant(credits.Grant{Type: credits.TypeBonus, Amount: 5 * credits.Credit, ExpiresAt: &later})
	_, err := b.Spend(t.Context(), credits.SpendRequest{ServiceKey: "product_translation"})
	testkit.Must(t, err)
	for i := range 2 {
		held, err := b.Ledger.Hold(t.Context(), b.Owner, b.Store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: credits.Credit}})
		testkit.Must(t, err)
		if i == 0 {
			_, err = b.Ledger.Capture(t.Context(), b.Owner, b.Store, held.Hold.ID, credits.CaptureRequest{Amount: 5_000})
			testkit.Must(t, err)
		}
	}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := b.Ledger.Freeze(t.Context(), tx, b.Store, "d", 4*credits.Credit); err != nil {
			return err
		}
		_, err := b.Ledger.ClawBack(t.Context(), tx, b.Store, credits.Reversal{
			Type: credits.TypeRefund, Amount: 10 * credits.Credit, Reference: "p", IdempotencyKey: "refund:1"})
		return err
	}))
	grant(credits.Grant{Type: credits.TypePurchase, Amount: credits.Credit, Reference: "q"})
	return b
}

func TestVerifyFindsNothing(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		report, err := verify.Run(t.Context(), db, nil)
		testkit.Must(t, err)
		if report.Accounts != 0 || report.Transactions != 0 || report.Inconsistencies != nil {
			t.Errorf("an empty ledger: %+v", report)
		}
		a, b := eventful(t, db), creditstest.New(t, db)
		var seen []int64
		report, err = verify.Run(t.Context(), b.DB, func(r verify.Report) { seen = append(seen, r.Accounts) })
		testkit.Must(t, err)
		if report.Accounts != 2 || report.Transactions != int64(len(a.Rows(t))) || report.Inconsistencies != nil || len(seen) != 2 {
			t.Errorf("%+v after %v", report, seen)
		}
		if got := a.Balance(t); got.Debt == 0 || got.Reserved != 5*credits.Credit || len(a.Rows(t)) != 7 {
			t.Errorf("the store is not as eventful as it should be: %+v, %d rows", got, len(a.Rows(t)))
		}
	})
}

// TestVerifyNamesTheRow violates each rule in a separate store and checks that the report
// names the row.
func TestVerifyNamesTheRow(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		unlock(t, db)
		row := func(n string) string { return ` WHERE store_id = $1 AND seq = ` + n }
		for name, c := range map[string]struct{ change, row, message string }{
			"an amount":           {`UPDATE credit_transactions SET amount = amount + 1` + row("1"), "transaction 1 (", "balance_after is 10, but the one before plus the amount is 10.0001"},
			"a balance after":     {`UPDATE credit_transactions SET balance_after = balance_after + 1` + row("2"), "transaction 2 (", "balance_after"},
			"a gap":               {`UPDATE credit_transactions SET seq = 9` + row("7"), "transaction 9 (", "should be 7"},
			"a lost row":          {`DELETE FROM credit_transactions` + row("7"), "balance", "balance is 5, but its transactions add up to 6"},
			"a debt change":       {`UPDATE credit_transactions SET debt_change = debt_change + 1` + row("7"), "transaction 7 (", "a adjustment cannot be"},
			"the debt":            {`UPDATE credit_balances SET debt = debt + 1 WHERE store_id = $1`, "balance", "debt is 1.5001"},
			"a type":              {`UPDATE credit_transactions SET type = 'spend'` + row("1"), "transaction 1 (", "a spend cannot be of 10 credits"},
			"a price":             {`UPDATE credit_transactions SET quantity = 2` + row("3"), "transaction 3 (", "quantity times"},
			"a capture's hold":    {`UPDATE credit_transactions SET hold_id = NULL` + row("4"), "transaction 4 (", "has a hold"},
			"a spend with a hold": {`UPDATE credit_transactions SET hold_id = (SELECT id FROM credit_holds WHERE store_id = $1 AND state = 'open')` + row("3"), "transaction 3 (", "has a hold"},
			"a captured amount":   {`UPDATE credit_holds SET captured = captured + 1 WHERE store_id = $1 AND state = 'captured'`, "transaction 4 (", "its hold does not say"},
			"a hold reopened":     {`UPDATE credit_holds SET state = 'open' WHERE store_id = $1 AND state = 'captured'`, "transaction 4 (", "its hold does not say"},
			"a hold ended":        {`UPDATE credit_holds SET state = 'released' WHERE store_id = $1 AND state = 'open'`, "balance", "reserved is 5, but its open holds and freezes add up to 4"},
			"a hold forged":       {`UPDATE credit_holds SET state = 'captured', captured = amount WHERE store_id = $1 AND state = 'open'`, "hold ", "by 0 transactions"},
			"a freeze":            {`UPDATE credit_freezes SET resolved_at = created_at WHERE store_id = $1`, "balance", "reserved is 5"},
			"a lot's remainder":   {`UPDATE credit_lots SET remaining = remaining + 1 WHERE store_id = $1`, "the lot of transaction 2", "remain"},
			"a lot's amount":      {`UPDATE credit_lots SET amount = amount + 1, remaining = remaining + 1 WHERE store_id = $1`, "the lot of transaction 2", "granted"},
			"a lot's use":         {`UPDATE credit_lot_uses SET amount = amount + 1` + row("4"), "transaction 4 (", "out of lots"},
			"the balance":         {`UPDATE credit_balances SET balance = balance + 1, reserved = reserved + 1 WHERE store_id = $1`, "balance", "balance is 5.0001"},
			"the lotted part":     {`UPDATE credit_balances SET lotted = lotted + 1 WHERE store_id = $1`, "balance", "its lots hold"},
			"what was bought":     {`UPDATE credit_balances SET lifetime_purchased = 0 WHERE store_id = $1`, "balance", "lifetime_purchased is 0, but its purchases add up to 11"},
			"what was spent":      {`UPDATE credit_balances SET lifetime_spent = 0 WHERE store_id = $1`, "balance", "lifetime_spent"},
			"the sequence":        {`UPDATE credit_balances SET seq = seq + 1 WHERE store_id = $1`, "balance", "seq is 8, but there are 7"},
			"no balance":          {`DELETE FROM credit_balances WHERE store_id = $1`, "balance", "there is none"},
			"more than was paid":  {`UPDATE credit_transactions SET reference = 'q'` + row("5"), "payment q", "1 credits were granted and 10 of them taken back"},
		} {
			b := eventful(t, db)
			b.Exec(t, c.change, b.Store)
			report, err := verify.Run(t.Context(), b.DB, nil)
			testkit.Must(t, err)
			var found *verify.Inconsistency
			for _, f := range report.Inconsistencies {
				if f.StoreID == b.Store {
					found = &f
				}
			}
			if found == nil || !strings.HasPrefix(found.Row, c.row) || !strings.Contains(found.Message, c.message) {
				t.Errorf("%s: found %v, want %s: … %s", name, found, c.row, c.message)
			}
		}
	})
}

// TestVerifyFindsStrays checks that rows of stores that do not exist are found at any
// position, and are not reported for another store.
func TestVerifyFindsStrays(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := eventful(t, db)
		for _, id := range []string{"00000000-0000-7000-8000-000000000001", "ffffffff-ffff-7fff-8fff-ffffffffffff"} {
			for seq := range 2 {
				a.Exec(t, `
					INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
					VALUES ($1, $2, $3, 'bonus', 1, 1, $4)`, stoa.NewID[stoa.TransactionID](), id, seq+1, time.Now().UTC())
			}
		}
		report, err := verify.Run(t.Context(), a.DB, nil)
		testkit.Must(t, err)
		if len(report.Inconsistencies) != 2 || report.Accounts != 1 || report.Transactions != 7 {
			t.Fatalf("%+v", report)
		}
		for i, first := range []string{"0", "f"} {
			f := report.Inconsistencies[i]
			if !strings.HasPrefix(f.StoreID.String(), first) || !strings.HasPrefix(f.Row, "transaction 1 (") || f.Message != "there is no such store" {
				t.Error(f)
			}
		}
	})
}

// unlock disables the triggers that protect the ledger from changes.
func unlock(t *testing.T, db *masterdb.DB) {
	t.Helper()
	changes := []string{
		`ALTER TABLE credit_transactions DISABLE TRIGGER ALL`, `ALTER TABLE credit_lot_uses DISABLE TRIGGER ALL`,
		`ALTER TABLE credit_lots DISABLE TRIGGER ALL`,
	}
	if db.Engine == masterdb.SQLite {
		changes = []string{
			`DROP TRIGGER credit_transactions_no_update`, `DROP TRIGGER credit_transactions_no_delete`,
			`DROP TRIGGER credit_lot_uses_no_update`, `DROP TRIGGER credit_lot_uses_no_delete`,
		}
	}
	for _, change := range changes {
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), change)
			return err
		}))
	}
}
