package accounts

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

// Login opens a session. It fails with invalid_credentials, and says no more
// than that: neither the answer nor the work tells a wrong password from an
// address that has no account. Of a user with a second factor it asks for that
// too: it fails with a *SecondFactorRequired, whose challenge goes to
// LoginSecondFactor. After many wrong passwords it fails with rate_limited for a
// while, and then neither hashes nor writes anything.
func (a *Accounts) Login(ctx context.Context, email string, password keyring.Secret, c Client) (Session, error) {
	for {
		session, err := a.login(ctx, email, password, c)
		if !errors.Is(err, errHashChanged) {
			return session, err
		}
	}
}

// errHashChanged means that the password was changed, or hashed anew, while it
// was being checked.
var errHashChanged = errors.New("accounts: the password's hash has changed")

func (a *Accounts) login(ctx context.Context, email string, password keyring.Secret, c Client) (Session, error) {
	user, stored, proven, err := a.admit(ctx, email, c)
	if err != nil {
		return Session{}, err
	}
	match, outdated, err := a.passwords.verify(ctx, stored, password)
	if err != nil {
		return Session{}, err
	}
	if !match {
		return Session{}, a.refuseLogin(ctx, c.as(user.ID), "password")
	}
	proven()
	fresh := stored
	if outdated {
		if fresh, err = a.passwords.hash(ctx, password); err != nil {
			return Session{}, err
		}
	}
	var session Session
	var challenge keyring.Secret
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := replaceHash(ctx, tx, user.ID, stored, fresh); err != nil {
			return err
		}
		var err error
		if challenge, err = a.challenge(ctx, tx, user.ID); err != nil || !challenge.IsZero() {
			return err
		}
		session, err = a.signIn(ctx, tx, user, c, "password")
		return err
	})
	switch {
	case err != nil:
		return Session{}, err
	case !challenge.IsZero():
		return Session{}, &SecondFactorRequired{Challenge: challenge}
	}
	return session, nil
}

// signIn opens a session and tells of it.
func (a *Accounts) signIn(ctx context.Context, tx *masterdb.Tx, user User, c Client, by string) (Session, error) {
	known, err := a.knows(ctx, tx, user.ID, c)
	if err != nil {
		return Session{}, err
	}
	session, err := a.openSession(ctx, tx, user, c)
	if err != nil {
		return Session{}, err
	}
	if !known && user.EmailVerified {
		if err := a.noticeSignIn(ctx, tx, user, session.id); err != nil {
			return Session{}, err
		}
	}
	return session, access.Record(ctx, tx, c.as(user.ID), access.Event{Action: access.SignedIn, Details: map[string]string{"by": by}})
}

// noticeSignIn has the user told of a sign-in, unless they had many such mails.
func (a *Accounts) noticeSignIn(ctx context.Context, tx *masterdb.Tx, user User, session stoa.SessionID) error {
	wait, err := signInNotices.Take(ctx, tx, user.Email)
	if err != nil || wait > 0 {
		return err
	}
	return a.opts.Queue.Enqueue(ctx, tx, MailSignIn{SessionID: session})
}

// knows reports whether the user has had a session from there.
func (a *Accounts) knows(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, c Client) (bool, error) {
	var n int
	err := tx.Get(ctx, &n, `SELECT count(*) FROM sessions WHERE user_id = $1 AND user_agent = $2 AND address = $3 AND impersonator IS NULL`,
		user, cleaned(c.UserAgent, maxUserAgent), cleaned(c.Address, maxAddress))
	return n > 0, err
}

// refuseLogin writes the attempt down, whether or not there is such a user,
// and returns the answer to it.
func (a *Accounts) refuseLogin(ctx context.Context, p access.Principal, by string) error {
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return access.Record(ctx, tx, p, access.Event{Action: access.SignedIn, Outcome: access.Failed, Details: map[string]string{"by": by}})
	})
	if err != nil {
		return err
	}
	return stoa.Errorf(stoa.InvalidCredentials, "The e-mail address or the password is not correct.")
}

// userByEmail returns the user and their password hash. For an address
// without an account it returns a hash that no password matches.
func (a *Accounts) userByEmail(ctx context.Context, email string) (User, string, error) {
	// Nobody could have registered an address that is not one, and
	// PostgreSQL refuses some bytes that it may hold.
	email, ok := storedEmail(email)
	if !ok {
		return User{}, a.passwords.unmatchable, nil
	}
	var row struct {
		User
		PasswordHash string
	}
	err := a.db.Get(ctx, &row, `SELECT `+userColumns+`, password_hash FROM users WHERE email = $1`, email)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, a.passwords.unmatchable, nil
	}
	return row.User, row.PasswordHash, err
}

// replaceHash holds the user until tx ends and stores a hash made at today's
// cost; fresh is old when there is nothing to replace. It fails with
// errHashChanged when the hash is not the one that was read: it belongs to a
// newer password or to another login's replacement.
func replaceHash(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, old, fresh string) error {
	n, err := tx.Exec(ctx, `
		UPDATE users SET password_hash = $1, updated_at = CASE WHEN password_hash = $1 THEN updated_at ELSE $4 END
		WHERE id = $2 AND password_hash = $3`, fresh, user, old, tx.Now)
	if err == nil && n == 0 {
		return errHashChanged
	}
	return err
}
