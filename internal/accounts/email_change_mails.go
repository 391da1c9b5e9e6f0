package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// MailNewAddress is the job that mails a link to the new address of a change or, when
// that has an account already, says so there.
type MailNewAddress struct {
	ChangeID changeID `json:"changeId"`
}

// Kind implements jobs.Args.
func (MailNewAddress) Kind() string { return "accounts.mail_new_address" }

// MailOldAddress is the job that mails a link to the old address of a change.
type MailOldAddress struct {
	ChangeID changeID `json:"changeId"`
}

// Kind implements jobs.Args.
func (MailOldAddress) Kind() string { return "accounts.mail_old_address" }

// MailEmailChanged is the job that tells the old address that the change is done.
type MailEmailChanged struct {
	ChangeID changeID `json:"changeId"`
}

// Kind implements jobs.Args.
func (MailEmailChanged) Kind() string { return "accounts.mail_email_changed" }

// mailedChange is a change with the name of its user.
type mailedChange struct {
	emailChange
	FirstName string
	LastName  string
	Taken     bool // the new address has an account
}

// user returns the recipient at one address of the change.
func (c mailedChange) user(email string) User {
	return User{ID: c.UserID, Email: email, FirstName: c.FirstName, LastName: c.LastName, EmailVerified: true}
}

const selectMailedChange = `
	SELECT c.id, c.user_id, c.old_email, c.new_email, c.old_confirmed_at, c.new_confirmed_at, c.created_at, c.expires_at, c.ended_at, c.applied,
		u.first_name, u.last_name, EXISTS (SELECT 1 FROM users o WHERE o.email = c.new_email) AS taken
	FROM email_changes c JOIN users u ON u.id = c.user_id WHERE c.id = $1`

func (a *Accounts) mailNewAddress(ctx context.Context, job MailNewAddress) error {
	c, err := a.openChange(ctx, job.ChangeID, "new")
	if err != nil || c == nil {
		return err
	}
	token, err := a.changeToken(ctx, *c, "new")
	if err != nil || token.IsZero() {
		return err
	}
	// Nobody has shown yet that the address is the person's: no name is used.
	to, id := User{Email: c.NewEmail}, "email-change-new-"+c.ID.String()
	if c.Taken {
		return a.send(ctx, to, id, takenAddressMail, a.opts.BaseURL, a.opts.BaseURL)
	}
	return a.send(ctx, to, id, newAddressMail, a.opts.BaseURL, a.link(changeEmail, token))
}

func (a *Accounts) mailOldAddress(ctx context.Context, job MailOldAddress) error {
	c, err := a.openChange(ctx, job.ChangeID, "old")
	if err != nil || c == nil {
		return err
	}
	token, err := a.changeToken(ctx, *c, "old")
	if err != nil || token.IsZero() {
		return err
	}
	return a.send(ctx, c.user(c.OldEmail), "email-change-old-"+c.ID.String(), oldAddressMail,
		a.opts.BaseURL, c.NewEmail, a.link(changeEmail, token), a.opts.BaseURL)
}

func (a *Accounts) mailEmailChanged(ctx context.Context, job MailEmailChanged) error {
	var c mailedChange
	err := a.db.Get(ctx, &c, selectMailedChange, job.ChangeID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return nil // the account is deleted
	}
	if err != nil {
		return err
	}
	if c.OldConfirmedAt != nil && c.OldConfirmedAt.Equal(c.CreatedAt) {
		return nil // the old address was never verified: it may be somebody else's
	}
	return a.send(ctx, c.user(c.OldEmail), "email-changed-"+c.ID.String(), emailChangedMail, a.opts.BaseURL, c.NewEmail)
}

// openChange returns a change that can be confirmed at an address, or nil.
func (a *Accounts) openChange(ctx context.Context, id changeID, address string) (*mailedChange, error) {
	var c mailedChange
	err := a.db.Get(ctx, &c, selectMailedChange, id)
	if errors.Is(err, masterdb.ErrNotFound) || err == nil && c.checkOpen(address, a.db.Now()) != nil {
		return nil, nil //nolint:nilnil // documented: none
	}
	return &c, err
}

// changeToken issues a token for one address of a change. It returns the zero Secret
// when the new address had many such mails.
func (a *Accounts) changeToken(ctx context.Context, c mailedChange, address string) (token keyring.Secret, err error) {
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		token = keyring.Secret{}
		var issued int
		err := tx.Get(ctx, &issued, `SELECT count(*) FROM email_change_tokens WHERE change_id = $1 AND address = $2`, c.ID, address)
		if err != nil {
			return err
		}
		if issued == 0 && address == "new" { // an earlier attempt at the same mail has been counted
			var wait time.Duration
			if wait, err = changesToAddress.Take(ctx, tx, c.NewEmail); err != nil || wait > 0 {
				return err
			}
		}
		token = newToken(changeEmail.prefix())
		_, err = tx.Exec(ctx, `INSERT INTO email_change_tokens (hash, change_id, address, created_at) VALUES ($1, $2, $3, $4)`,
			token.Hash(), c.ID, address, tx.Now)
		return err
	})
	return token, err
}

var (
	newAddressMail = mailTemplate{subject: "Confirm your new e-mail address", text: "somebody, probably you, wants to use this address for their account at %s. " +
		"Please confirm that it is yours, signed in to the account or with its password:\n\n%s\n\n" +
		"The link is good for a day and for one use. A link was sent to the account's present address too: the change takes effect when both are confirmed.\n\n" +
		"If you have asked for no change, do nothing: nothing changes."}
	takenAddressMail = mailTemplate{subject: "Your e-mail address has an account already", text: "somebody, probably you, wants to use this address for another account at %s. " +
		"It has an account already, so nothing was changed. Sign in to it, or set a new password if you have lost yours:\n\n%s/signin\n\n" +
		"If you have asked for no change, do nothing."}
	oldAddressMail = mailTemplate{subject: "Confirm the change of your e-mail address", text: "somebody, probably you, wants to change the address of your account at %s to %s. " +
		"Please confirm it, signed in to the account or with its password:\n\n%s\n\n" +
		"The link is good for a day and for one use. A link was sent to the new address too: the change takes effect when both are confirmed.\n\n" +
		"If you have asked for no change, do not confirm. Somebody knows your password then: change it at once, which ends the change and all other sessions:\n\n%s/account/password"}
	emailChangedMail = mailTemplate{subject: "Your e-mail address has changed", text: "the address of your account at %s is now %s, as it was confirmed at both addresses. " +
		"You sign in with the new one; nothing is sent to this address any more.\n\n" +
		"If this was not you, write to the operator of the platform at once."}
)
