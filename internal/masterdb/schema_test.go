package masterdb_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestErrorClasses(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, user := newStore(t, db)
		const price = `INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description)
			VALUES ('new', '2026-01-01 00:00:00+00:00', `
		testkit.Must(t, exec(t, db, price+`1, 'call', '')`))
		for _, c := range []struct {
			name          string
			err           error
			unique, check bool
		}{
			{"primary key of two columns", exec(t, db, price+`2, 'call', '')`), true, false},
			{"primary key", exec(t, db, `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				SELECT id, 'other', name, status, created_by, created_at, updated_at FROM stores`), true, false},
			{"unique column", exec(t, db, `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
				SELECT $1, slug, name, status, created_by, created_at, updated_at FROM stores`, stoa.NewID[stoa.StoreID]()), true, false},
			{"check", exec(t, db, `UPDATE stores SET status = 'nonsense' WHERE id = $1`, store), false, true},
			{"not null", exec(t, db, `UPDATE stores SET name = NULL WHERE id = $1`, store), false, false},
			{"foreign key", exec(t, db, `DELETE FROM users WHERE id = $1`, user), false, false},
			{"no such table", exec(t, db, `DELETE FROM nonsense`), false, false},
		} {
			if c.err == nil {
				t.Errorf("%s: no error", c.name)
			}
			for _, err := range []error{c.err, fmt.Errorf("outer: %w", c.err)} {
				if masterdb.IsUnique(err) != c.unique || masterdb.IsCheck(err) != c.check {
					t.Errorf("%s: IsUnique = %t, IsCheck = %t for %v", c.name, masterdb.IsUnique(err), masterdb.IsCheck(err), err)
				}
			}
		}
		for _, err := range []error{nil, errors.New("UNIQUE constraint failed"), masterdb.ErrNotFound} {
			if masterdb.IsUnique(err) || masterdb.IsCheck(err) {
				t.Errorf("%v counts as a constraint", err)
			}
		}
	})
}

// TestRecordsAreAppendOnly checks that no statement can change or delete a row of an
// append-only table.
func TestRecordsAreAppendOnly(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, user := newStore(t, db)
		now := `(SELECT created_at FROM stores)`
		testkit.Must(t, exec(t, db, `
			INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
			VALUES ($1, $2, 1, 'bonus', 10, 10, `+now+`)`, stoa.NewID[stoa.TransactionID](), store))
		testkit.Must(t, exec(t, db, `
			INSERT INTO billing_transactions (id, store_id, type, amount_minor, currency, provider, provider_ref, created_at)
			VALUES ($1, $2, 'payment', 100, 'EUR', 'sandbox', 'x', `+now+`)`, stoa.NewID[stoa.TransactionID](), store))
		testkit.Must(t, exec(t, db, `
			INSERT INTO audit_events (id, user_id, store_id, action, outcome, created_at)
			VALUES ($1, $2, $3, 'login', 'success', `+now+`)`, stoa.NewID[stoa.TransactionID](), user, store))

		lot := stoa.NewID[stoa.TransactionID]()
		testkit.Must(t, exec(t, db, `
			INSERT INTO credit_lots (id, store_id, seq, priority, amount, remaining) VALUES ($1, $2, 1, 1, 10, 5)`, lot, store))
		testkit.Must(t, exec(t, db, `INSERT INTO credit_lot_uses (lot_id, store_id, seq, amount) VALUES ($1, $2, 1, 5)`, lot, store))
		for _, change := range []string{`UPDATE credit_lot_uses SET amount = 1`, `DELETE FROM credit_lot_uses`} {
			if err := exec(t, db, change); err == nil || !strings.Contains(err.Error(), "append-only") {
				t.Errorf("%s: %v, want that it is refused", change, err)
			}
		}

		for table, column := range map[string]string{
			"credit_transactions": "description", "billing_transactions": "provider_ref", "audit_events": "details",
		} {
			changes := []string{
				`UPDATE %s SET %s = 'forged'`,
				`DELETE FROM %s WHERE %s <> 'forged'`,
				`INSERT INTO %[1]s SELECT * FROM %[1]s WHERE true ON CONFLICT (id) DO UPDATE SET %[2]s = 'forged'`,
			}
			if db.Engine == masterdb.SQLite {
				changes = append(changes, `REPLACE INTO %[1]s SELECT * FROM %[1]s WHERE '%[2]s' <> ''`)
			} else {
				changes = append(changes, `TRUNCATE %s CASCADE -- %s`)
			}
			for _, change := range changes {
				change = fmt.Sprintf(change, table, column)
				if err := exec(t, db, change); err == nil || !strings.Contains(err.Error(), "append-only") {
					t.Errorf("%s: %v, want that it is refused", change, err)
				}
			}
			var value string
			testkit.Must(t, db.Get(t.Context(), &value, fmt.Sprintf(`SELECT %s FROM %s`, column, table)))
			if value == "forged" {
				t.Errorf("the row of %s was changed", table)
			}
		}
	})
}

func TestEmailIsUniqueInAnyCase(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		_, err := insertUser(t, db, "olive@example.com")
		testkit.Must(t, err)
		for _, email := range []string{"olive@example.com", "Olive@Example.com", "OLIVE@EXAMPLE.COM"} {
			if _, err := insertUser(t, db, email); !masterdb.IsUnique(err) {
				t.Errorf("%s beside olive@example.com: %v, want a unique violation", email, err)
			}
		}
		_, err = insertUser(t, db, "oliver@example.com")
		testkit.Must(t, err)
	})
}

func TestOneOpenProvisioningRun(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, _ := newStore(t, db)
		other, _ := newStore(t, db)
		begin := func(store stoa.StoreID, state string) error {
			return exec(t, db, `
				INSERT INTO provisioning_runs (id, store_id, state, attempt, created_at)
				SELECT $1, $2, $3, 1, created_at FROM stores WHERE id = $2`, stoa.NewID[stoa.RunID](), store, state)
		}
		testkit.Must(t, begin(store, "failed"))
		testkit.Must(t, begin(store, "queued"))
		for _, state := range []string{"queued", "running"} {
			if err := begin(store, state); !masterdb.IsUnique(err) {
				t.Errorf("a second run, %s: %v, want a unique violation", state, err)
			}
		}
		testkit.Must(t, begin(other, "running"))
		testkit.Must(t, begin(store, "succeeded"))
		testkit.Must(t, exec(t, db, `UPDATE provisioning_runs SET state = 'succeeded' WHERE store_id = $1`, store))
		testkit.Must(t, begin(store, "running"))
	})
}

func TestBalancesCannotGoWrong(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, _ := newStore(t, db)
		testkit.Must(t, exec(t, db, `INSERT INTO credit_balances (store_id, balance, reserved, updated_at)
			SELECT id, 10, 4, created_at FROM stores`))
		for _, change := range []string{
			"balance = -1", "balance = 3", "reserved = -1", "reserved = 11", "debt = -1", "seq = -1",
			"lifetime_purchased = -1", "lifetime_spent = -1", "debt = 1", "version = -1", "lotted = -1", "lotted = 11",
		} {
			if err := exec(t, db, `UPDATE credit_balances SET `+change+` WHERE store_id = $1`, store); !masterdb.IsCheck(err) {
				t.Errorf("%s: %v, want a check violation", change, err)
			}
		}
		for _, change := range []string{"balance = 4", "reserved = 0", "balance = 9223372036854775807", "debt = 1, reserved = balance"} {
			testkit.Must(t, exec(t, db, `UPDATE credit_balances SET `+change+` WHERE store_id = $1`, store))
		}
		insert := func(seq, amount, after int) error {
			return exec(t, db, `
				INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, created_at)
				SELECT $1, id, $2, 'bonus', $3, $4, created_at FROM stores`,
				stoa.NewID[stoa.TransactionID](), seq, amount, after)
		}
		testkit.Must(t, insert(1, 5, 5))
		for name, err := range map[string]error{"amount 0": insert(2, 0, 5), "balance below 0": insert(2, -6, -1), "seq 0": insert(0, 1, 6)} {
			if !masterdb.IsCheck(err) {
				t.Errorf("a transaction with %s: %v, want a check violation", name, err)
			}
		}
		if err := insert(1, 5, 10); !masterdb.IsUnique(err) {
			t.Errorf("a second transaction with one seq: %v, want a unique violation", err)
		}
	})
}
