package storedata

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Owner is the user of the platform who owns the store.
type Owner struct {
	ID        stoa.UserID
	Email     string
	FirstName string
	LastName  string
}

// CreateOwner inserts the owner's row of users unless a user with this id exists. It
// never changes an existing row. It fails with email_taken when the address is another
// user's: to make that user the owner would give the store to whoever signed up with the
// address first.
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
	if present, err := holdsUser(ctx, db, o.ID); present || err != nil { // a concurrent call has inserted it
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
