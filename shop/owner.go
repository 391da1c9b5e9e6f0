package shop

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/tenantdb"
)

// Owner is the platform's user who owns the store.
type Owner struct {
	ID        stoa.UserID
	Email     string
	FirstName string
	LastName  string
}

// CreateOwner writes the owner's row of users unless a user of this id is
// there; an existing row is never changed. It fails with email_taken when the
// address is another user's: to make that user the owner would hand the shop
// to whoever signed up with the address first.
func CreateOwner(ctx context.Context, db *tenantdb.DB, o Owner) error {
	if present, err := holdsUser(ctx, db, o.ID); present || err != nil {
		return err
	}
	at := now()
	_, err := db.Exec(ctx, `
		INSERT INTO users (id, email, first_name, last_name, role, created_at, updated_at)
		VALUES (?, ?, ?, ?, 'owner', ?, ?)`, o.ID, o.Email, o.FirstName, o.LastName, at, at)
	if !tenantdb.IsUnique(err) {
		return err
	}
	if present, err := holdsUser(ctx, db, o.ID); present || err != nil { // someone was faster
		return err
	}
	return stoa.Errorf(stoa.EmailTaken,
		"This database already has another user with the owner's e-mail address. Remove or change that user, then retry.").WithCause(err)
}

func holdsUser(ctx context.Context, db *tenantdb.DB, id stoa.UserID) (bool, error) {
	var n int
	err := db.Get(ctx, &n, `SELECT count(*) FROM users WHERE id = ?`, id)
	return n > 0, err
}
