package accounts

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/passwordhash"
)

// ImportedUser is an account of another system, for ImportUser.
type ImportedUser struct {
	Email string
	// Name is the whole name; its first word is the first name. It may be empty.
	Name string
	// PasswordHash is a hash that passwordhash reads. Without one the user sets a password
	// with a mailed link.
	PasswordHash keyring.Secret
	// Verified: the operator vouches that the address is the user's.
	Verified bool
}

// Normalize returns the user with the address in the form in which it is stored. It fails
// with invalid_request, naming every fault. No fault contains the hash.
func (u ImportedUser) Normalize() (ImportedUser, error) {
	var faults stoa.Invalid
	email, fault := canonicalEmail(u.Email)
	if u.Email == "" {
		fault = "is required"
	}
	if fault != "" {
		faults.Add("email", "%s", fault)
	}
	u.Email = email
	first, last := splitName(u.Name)
	for _, part := range []string{first, last} {
		if _, fault := personName(part); fault != "" && part != "" {
			faults.Add("name", "%s", fault)
			break
		}
	}
	if !u.PasswordHash.IsZero() {
		if _, err := passwordhash.Parse(u.PasswordHash.Reveal()); err != nil {
			faults.Add("passwordHash", "%s", err)
		}
	}
	return u, faults.Err()
}

// splitName returns the first word of a name, and what follows it.
func splitName(name string) (first, last string) {
	first, last, _ = strings.Cut(strings.TrimSpace(name), " ")
	return first, strings.TrimSpace(last)
}

// ImportUser creates the account of a user of another system, for an operator with access
// to the master database. It checks no permission and sends no mail. An account that has
// the address already is returned unchanged. It fails as Normalize does.
func (a *Accounts) ImportUser(ctx context.Context, by authz.Principal, u ImportedUser) (id stoa.UserID, created bool, err error) {
	if u, err = u.Normalize(); err != nil {
		return stoa.UserID{}, false, err
	}
	find := func() (stoa.UserID, error) {
		known, err := UsersByEmail(ctx, a.db, []string{u.Email})
		return known[u.Email].ID, err
	}
	if id, err = find(); err != nil || !id.IsZero() {
		return id, false, err
	}
	hash := u.PasswordHash.Reveal()
	if hash == "" {
		hash = a.passwords.newUnmatchable()
	}
	first, last := splitName(u.Name)
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		user, err := insertUser(ctx, tx, Registration{Email: u.Email, FirstName: first, LastName: last}, hash)
		if err != nil {
			return err
		}
		id = user.ID
		return recordImport(ctx, tx, by, id, u.Verified)
	})
	var taken *stoa.Error
	if errors.As(err, &taken) && taken.Code == stoa.EmailTaken { // a concurrent call has created it
		if earlier, lookup := find(); lookup != nil || !earlier.IsZero() {
			return earlier, false, lookup
		}
	}
	return id, err == nil, err
}

// recordImport writes the new account to the audit log, and verifies its address.
func recordImport(ctx context.Context, tx *masterdb.Tx, by authz.Principal, id stoa.UserID, verified bool) error {
	err := audit.Record(ctx, tx, by, audit.Event{Action: audit.Registered, Details: map[string]string{"user": id.String(), "by": "import"}})
	if err != nil || !verified {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE users SET email_verified = $1 WHERE id = $2`, true, id); err != nil {
		return err
	}
	return audit.Record(ctx, tx, by, audit.Event{Action: audit.EmailVerified, Details: map[string]string{"user": id.String(), "by": "operator"}})
}

// KnownUser is an account as UsersByEmail returns it.
type KnownUser struct {
	ID        stoa.UserID
	Email     string
	Suspended bool
}

// UsersByEmail returns the accounts that have the addresses, by address. The addresses are
// in the form that Normalize returns; there may be some hundreds. It checks no permission:
// its callers have access to the master database.
func UsersByEmail(ctx context.Context, q masterdb.Querier, emails []string) (map[string]KnownUser, error) {
	known := map[string]KnownUser{}
	if len(emails) == 0 {
		return known, nil
	}
	args, marks := make([]any, len(emails)), make([]string, len(emails))
	for i, email := range emails {
		args[i], marks[i] = email, "$"+strconv.Itoa(i+1)
	}
	var rows []KnownUser
	err := q.Select(ctx, &rows, `SELECT id, email, suspended_at IS NOT NULL AS suspended FROM users
		WHERE deleted_at IS NULL AND email IN (`+strings.Join(marks, ", ")+`)`, args...)
	for _, row := range rows {
		known[row.Email] = row
	}
	return known, err
}
