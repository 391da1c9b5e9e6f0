package accounts

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/version"
)

// NameChange is a change of the caller's name. A nil field stays as it is.
type NameChange struct {
	FirstName *string
	LastName  *string
	Match     version.Match // against User.Version
}

// Version identifies the state of an account, for NameChange.
func (u User) Version() string { return version.Of(u) }

// ChangeName changes the caller's name and returns the account. It fails with
// invalid_request, naming every fault, and with forbidden for an operator who acts as
// the user, and with edit_conflict. The same name again changes nothing.
func (a *Accounts) ChangeName(ctx context.Context, p authz.Principal, change NameChange) (User, error) {
	if err := p.InPerson(); err != nil {
		return User{}, err
	}
	change, err := change.validate()
	if err != nil {
		return User{}, err
	}
	var user User
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		if user, err = lockCaller(ctx, tx, p); err != nil {
			return err
		}
		if err := change.Match.Check(user.Version()); err != nil {
			return err
		}
		before := user
		if change.FirstName != nil {
			user.FirstName = *change.FirstName
		}
		if change.LastName != nil {
			user.LastName = *change.LastName
		}
		if user == before {
			return nil
		}
		_, err = tx.Exec(ctx, `UPDATE users SET first_name = $1, last_name = $2, updated_at = $3 WHERE id = $4`,
			user.FirstName, user.LastName, tx.Now, user.ID)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.NameChanged})
	})
	return user, err
}

// validate returns the change as it is stored.
func (n NameChange) validate() (NameChange, error) {
	var faults stoa.Invalid
	clean := func(field string, name *string) *string {
		if name == nil {
			return nil
		}
		normal, fault := personName(*name)
		if fault != "" {
			faults.Add(field, "%s", fault)
		}
		return &normal
	}
	n.FirstName, n.LastName = clean("firstName", n.FirstName), clean("lastName", n.LastName)
	return n, faults.Err()
}

// lockCaller reads the caller's own account and locks its row until tx ends, so that
// it is ordered before or after the deletion of the account. It fails with
// session_revoked when the account or the session has ended since the request began.
func lockCaller(ctx context.Context, tx *masterdb.Tx, p authz.Principal) (User, error) {
	user, err := lockUser(ctx, tx, p.UserID)
	if err != nil || p.SessionID.IsZero() {
		return user, err
	}
	var open int
	err = tx.Get(ctx, &open, `SELECT count(*) FROM sessions WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL`, p.SessionID, p.UserID)
	if err == nil && open == 0 {
		return User{}, authz.ErrSessionRevoked()
	}
	return user, err
}

// lockUser reads a user and locks their row until tx ends. It fails with
// session_revoked when the account has been deleted.
func lockUser(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) (User, error) {
	var user User
	err := tx.Get(ctx, &user, `SELECT `+userColumns+` FROM users WHERE id = $1 AND deleted_at IS NULL`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, authz.ErrSessionRevoked()
	}
	return user, err
}
