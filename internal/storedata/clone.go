package storedata

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Without says what a clone leaves out. Orders name customers, so that a clone without
// customers has no orders either.
type Without struct{ Customers, Orders bool }

// BecomeClone makes a copy of another store's rows those of the store p, of which it uses
// id, name and slug. It deletes the copies of the other store's credits and the accounts of
// its people. It can be repeated.
func BecomeClone(ctx context.Context, db *tenantdb.DB, p Profile, without Without) error {
	if err := (ProfilePatch{Name: &p.Name, Slug: &p.Slug}).Validate(); err != nil {
		return err
	}
	statements := []string{`DELETE FROM credit_spending_log`, `DELETE FROM credit_balance_cache`, `DELETE FROM credit_copies`}
	if without.Orders || without.Customers {
		statements = append(statements, `DELETE FROM order_items`, `DELETE FROM orders`)
	}
	if without.Customers {
		statements = append(statements, `DELETE FROM addresses`, `DELETE FROM customers`, `DELETE FROM users`)
	} else {
		statements = append(statements, `DELETE FROM users WHERE role <> 'customer'`)
	}
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		for _, statement := range statements {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		n, err := tx.Exec(ctx, `UPDATE stores SET id = ?, name = ?, slug = ?, updated_at = ?`, p.ID, p.Name, p.Slug, now())
		if err == nil && n != 1 {
			err = stoa.Errorf(stoa.DatabaseContentInvalid, "The archive has %d profiles instead of one.", n)
		}
		return err
	})
}
