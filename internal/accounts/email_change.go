package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// The address of an account changes when it was confirmed at both addresses: the new
// one proves that it is the person's, the old one that nobody else asked. An old
// address that was never verified need not confirm: it may be mistyped.
//
// Both confirmations need the account's session or its password besides the link.
// Otherwise somebody could name another person's address as their new one and wait
// until that person follows the link.

type changeKind struct{}

// changeID identifies a change of an address.
type changeID = stoa.ID[changeKind]

// EmailChange is a change of the caller's address that waits for confirmations.
type EmailChange struct {
	NewEmail       string
	OldConfirmedAt *time.Time
	NewConfirmedAt *time.Time
	CreatedAt      time.Time
	ExpiresAt      time.Time
}

// Complete reports whether both addresses were confirmed: the change has taken effect.
func (c EmailChange) Complete() bool { return c.OldConfirmedAt != nil && c.NewConfirmedAt != nil }

// emailChange is a row of email_changes.
type emailChange struct {
	EmailChange
	ID       changeID
	UserID   stoa.UserID
	OldEmail string
	EndedAt  *time.Time
	Applied  bool
}

const selectEmailChange = `SELECT id, user_id, old_email, new_email, old_confirmed_at, new_confirmed_at, created_at, expires_at, ended_at, applied
	FROM email_changes`

// The limits of the mails that a change sends.
var (
	changesByUser = mail.Allowance{Name: "email-change-user", Burst: 5, Every: 6 * time.Hour}
	// changesToAddress limits the mails to one new address. Reaching it is not
	// reported, because it depends on what others requested.
	changesToAddress = mail.Allowance{Name: "email-change-address", Burst: 5, Every: 6 * time.Hour}
)

// RequestEmailChange starts a change of the caller's address, in place of one that
// waits. It mails a link to the new address and one to the old, if that is verified.
// The answer is the same whether or not the new address has an account already.
//
// The caller proves who they are by their password or, in a browser, by having given
// it or a second factor in the last minutes (reauthentication_required). It fails with
// invalid_credentials, with invalid_request for a malformed address and for the
// present one, and with rate_limited after several requests.
func (a *Accounts) RequestEmailChange(ctx context.Context, p authz.Principal, email string, password keyring.Secret) (EmailChange, error) {
	var faults stoa.Invalid
	email, fault := canonicalEmail(email)
	if fault != "" {
		faults.Add("email", "%s", fault)
		return EmailChange{}, faults.Err()
	}
	if err := a.confirmCaller(ctx, p, password, audit.EmailChangeAsked); err != nil {
		return EmailChange{}, err
	}
	change := emailChange{ID: stoa.NewID[changeID](), EmailChange: EmailChange{NewEmail: email}}
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		user, err := lockCaller(ctx, tx, p)
		if err != nil {
			return err
		}
		if user.Email == email {
			var faults stoa.Invalid
			faults.Add("email", "is the address of your account already")
			return faults.Err()
		}
		wait, err := changesByUser.Take(ctx, tx, user.ID.String())
		if err != nil {
			return err
		}
		if wait > 0 {
			return errRateLimited(wait, "You have asked for many changes of your address. Try again later.")
		}
		return a.startEmailChange(ctx, tx, p, user, &change)
	})
	return change.EmailChange, err
}

// startEmailChange stores the change and enqueues its mails.
func (a *Accounts) startEmailChange(ctx context.Context, tx *masterdb.Tx, p authz.Principal, user User, c *emailChange) error {
	if _, err := endEmailChange(ctx, tx, user.ID); err != nil {
		return err
	}
	c.CreatedAt, c.ExpiresAt, c.OldConfirmedAt = tx.Now, tx.Now.Add(lifetimes[changeEmail]), nil
	if !user.EmailVerified {
		c.OldConfirmedAt = &tx.Now
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO email_changes (id, user_id, old_email, new_email, old_confirmed_at, created_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`, c.ID, user.ID, user.Email, c.NewEmail, c.OldConfirmedAt, c.CreatedAt, c.ExpiresAt)
	if err != nil {
		return err
	}
	if err := a.opts.Queue.Enqueue(ctx, tx, MailNewAddress{ChangeID: c.ID}); err != nil {
		return err
	}
	if user.EmailVerified {
		if err := a.opts.Queue.Enqueue(ctx, tx, MailOldAddress{ChangeID: c.ID}); err != nil {
			return err
		}
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.EmailChangeAsked, Details: map[string]string{"email": c.NewEmail}})
}

// endEmailChange ends the user's open change, if there is one. It reports whether
// there was one that had not expired.
func endEmailChange(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) (bool, error) {
	var ended []struct{ ExpiresAt time.Time }
	err := tx.Select(ctx, &ended, `UPDATE email_changes SET ended_at = $1 WHERE user_id = $2 AND ended_at IS NULL RETURNING expires_at`, tx.Now, user)
	return len(ended) > 0 && tx.Now.Before(ended[0].ExpiresAt), err
}

// PendingEmailChange returns the caller's change that waits for confirmations, or nil.
func (a *Accounts) PendingEmailChange(ctx context.Context, p authz.Principal) (*EmailChange, error) {
	if err := p.SignedIn(); err != nil {
		return nil, err
	}
	var c emailChange
	err := a.db.Get(ctx, &c, selectEmailChange+` WHERE user_id = $1 AND ended_at IS NULL AND expires_at > $2`, p.UserID, a.db.Now())
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil, nil //nolint:nilnil // documented: none
	}
	return &c.EmailChange, err
}

// WithdrawEmailChange ends the caller's change that waits for confirmations: its links
// stop working. It fails with not_found when there is none.
func (a *Accounts) WithdrawEmailChange(ctx context.Context, p authz.Principal) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockCaller(ctx, tx, p); err != nil {
			return err
		}
		open, err := endEmailChange(ctx, tx, p.UserID)
		if err != nil {
			return err
		}
		if !open {
			return stoa.Errorf(stoa.NotFound, "No change of your address is waiting.")
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.EmailChangeDropped})
	})
}

// ConfirmEmailChange confirms a change at the address that the link was mailed to. p
// is a session of the account or, for the zero principal, password is its password.
// When both addresses are confirmed, the change takes effect: the account has the new
// address, which counts as verified, its other one-time tokens end, its sessions stay,
// and the old address is told.
//
// It fails with token_invalid and token_expired; with invalid_request without session
// and password, with invalid_credentials for a wrong password, and with forbidden for
// a session of another account, which leave the link unused; with rate_limited after
// many wrong passwords; and with email_taken when the new address has an account by
// now.
func (a *Accounts) ConfirmEmailChange(ctx context.Context, p authz.Principal, token, password keyring.Secret, c Client) (EmailChange, error) {
	link, err := a.readChangeLink(ctx, token)
	if err != nil {
		return EmailChange{}, err
	}
	var hash string
	if p.UserID.IsZero() {
		p = c.as(link.UserID)
		if hash, err = a.confirmByPassword(ctx, link.UserID, password); err != nil {
			return EmailChange{}, err
		}
	} else if err := checkMayVerify(p, link.UserID); err != nil {
		return EmailChange{}, err
	}
	var change emailChange
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := lockCaller(ctx, tx, p); err != nil {
			return err
		}
		if hash != "" {
			if err := replaceHash(ctx, tx, link.UserID, hash, hash); err != nil {
				return err
			}
		}
		change, err = a.confirmAddress(ctx, tx, p, link)
		return err
	})
	if errors.Is(err, errHashChanged) {
		err = errWrongPassword() // a concurrent change came first
	}
	return change.EmailChange, err
}

// confirmByPassword checks the password of a person without a session.
func (a *Accounts) confirmByPassword(ctx context.Context, user stoa.UserID, password keyring.Secret) (hash string, err error) {
	if password.IsZero() {
		var faults stoa.Invalid
		faults.Add("password", "is needed unless you are signed in: the one of the account whose address is to change")
		return "", faults.Err()
	}
	hash, match, err := a.matchPassword(ctx, user, password)
	if err == nil && !match {
		return "", stoa.Errorf(stoa.InvalidCredentials, "That is not the password of the account whose address is to change. If you have asked for no change, do not confirm.")
	}
	return hash, err
}

// changeLink is a token of a change with the address that it was mailed to.
type changeLink struct {
	ChangeID changeID
	UserID   stoa.UserID
	Address  string // old or new
}

// readChangeLink finds the change of a token that can still be confirmed with it.
func (a *Accounts) readChangeLink(ctx context.Context, token keyring.Secret) (changeLink, error) {
	if !hasTokenForm(token, changeEmail.prefix()) {
		return changeLink{}, errLinkInvalid()
	}
	var row struct {
		changeLink
		emailChange
	}
	err := a.db.Get(ctx, &row.changeLink, `
		SELECT t.change_id, c.user_id, t.address FROM email_change_tokens t JOIN email_changes c ON c.id = t.change_id WHERE t.hash = $1`, token.Hash())
	if errors.Is(err, masterdb.ErrNotFound) {
		return changeLink{}, errLinkInvalid()
	}
	if err != nil {
		return changeLink{}, err
	}
	if err := a.db.Get(ctx, &row.emailChange, selectEmailChange+` WHERE id = $1`, row.ChangeID); err != nil {
		return changeLink{}, err
	}
	return row.changeLink, row.checkOpen(row.Address, a.db.Now())
}

// checkOpen fails unless the change can be confirmed at an address.
func (c emailChange) checkOpen(address string, now time.Time) error {
	confirmed := c.NewConfirmedAt
	if address == "old" {
		confirmed = c.OldConfirmedAt
	}
	switch {
	case c.EndedAt != nil || confirmed != nil:
		return errLinkUsed()
	case !now.Before(c.ExpiresAt):
		return errLinkExpired()
	}
	return nil
}

// confirmAddress confirms one address in the transaction that has locked the user.
func (a *Accounts) confirmAddress(ctx context.Context, tx *masterdb.Tx, p authz.Principal, link changeLink) (emailChange, error) {
	var c emailChange
	if err := tx.Get(ctx, &c, selectEmailChange+` WHERE id = $1`+tx.ForUpdate(), link.ChangeID); err != nil {
		return c, err
	}
	if err := c.checkOpen(link.Address, tx.Now); err != nil {
		return c, err
	}
	column := &c.NewConfirmedAt
	if link.Address == "old" {
		column = &c.OldConfirmedAt
	}
	*column = &tx.Now
	_, err := tx.Exec(ctx, `UPDATE email_changes SET old_confirmed_at = $1, new_confirmed_at = $2 WHERE id = $3`, c.OldConfirmedAt, c.NewConfirmedAt, c.ID)
	if err != nil {
		return c, err
	}
	err = audit.Record(ctx, tx, p, audit.Event{Action: audit.EmailConfirmed, Details: map[string]string{"at": link.Address + " address"}})
	if err != nil || !c.Complete() {
		return c, err
	}
	return c, a.applyEmailChange(ctx, tx, p, c)
}

// applyEmailChange gives the account its new address.
func (a *Accounts) applyEmailChange(ctx context.Context, tx *masterdb.Tx, p authz.Principal, c emailChange) error {
	_, err := tx.Exec(ctx, `UPDATE users SET email = $1, email_verified = $2, updated_at = $3 WHERE id = $4`, c.NewEmail, true, tx.Now, c.UserID)
	if masterdb.IsUnique(err) {
		return stoa.Errorf(stoa.EmailTaken, "There is an account with this e-mail address by now. Sign in to that one, or change to another address.")
	}
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE email_changes SET ended_at = $1, applied = $2 WHERE id = $3`, tx.Now, true, c.ID); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1 WHERE user_id = $2 AND spent_at IS NULL`, tx.Now, c.UserID); err != nil {
		return err
	}
	if err := a.opts.Queue.Enqueue(ctx, tx, MailEmailChanged{ChangeID: c.ID}); err != nil {
		return err
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.EmailChanged, Details: map[string]string{"from": c.OldEmail, "to": c.NewEmail}})
}

// confirmCaller fails unless the caller proves now who they are: with the password or,
// in a browser, by having given it or a second factor in the last minutes. It records a
// wrong password as a failure of the action.
func (a *Accounts) confirmCaller(ctx context.Context, p authz.Principal, password keyring.Secret, action string) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	switch {
	case !password.IsZero():
		_, _, err := a.reauthenticate(ctx, p, password, action)
		return err
	case p.Browser && p.RecentlyAuthenticated:
		return nil
	case p.Browser:
		return authz.ErrReauthenticate()
	}
	var faults stoa.Invalid
	faults.Add("password", "is required: the one of your account")
	return faults.Err()
}
