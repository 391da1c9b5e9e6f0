package accounts

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Login opens a session. It fails with invalid_credentials for a wrong password
// and for an unknown address; neither the response nor its time distinguishes
// them. For a user with a second factor it fails with a *SecondFactorRequired,
// whose challenge is passed to LoginSecondFactor. After many wrong passwords it
// fails with rate_limited for some time, without hashing or writing anything.
func (a *Accounts) Login(ctx context.Context, email string, password keyring.Secret, c Client) (Session, error) {
	for {
		session, err := a.login(ctx, email, password, c)
		if !errors.Is(err, errHashChanged) {
			return session, err
		}
	}
}

// errHashChanged reports that the stored hash was replaced while the password was
// being checked.
var errHashChanged = errors.New("accounts: the password's hash has changed")

func (a *Accounts) login(ctx context.Context, email string, password keyring.Secret, c Client) (Session, error) {
	user, stored, resetAttempts, err := a.admitLogin(ctx, email, c)
	if err != nil {
		return Session{}, err
	}
	match, outdated, err := a.passwords.verify(ctx, stored, password)
	if err != nil {
		return Session{}, err
	}
	if !match || user.ID.IsZero() { // a decoy's password opens nothing
		return Session{}, a.refuseLogin(ctx, c.as(user.ID), "password")
	}
	resetAttempts()
	fresh := stored
	if outdated {
		if fresh, err = a.passwords.hash(ctx, password); err != nil {
			return Session{}, err
		}
	}
	var session Session
	var required *SecondFactorRequired
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := replaceHash(ctx, tx, user.ID, stored, fresh); err != nil {
			return err
		}
		if err := checkNotSuspended(ctx, tx, user.ID); err != nil {
			return err
		}
		var err error
		if required, err = a.challenge(ctx, tx, user.ID); err != nil || required != nil {
			return err
		}
		session, err = a.signIn(ctx, tx, user, c, "password")
		return err
	})
	switch {
	case err != nil:
		return Session{}, err
	case required != nil:
		return Session{}, required
	}
	return session, nil
}

// signIn opens a session, records it, and notifies the user of an unknown device.
func (a *Accounts) signIn(ctx context.Context, tx *masterdb.Tx, user User, c Client, by string) (Session, error) {
	known, err := a.isKnownDevice(ctx, tx, user.ID, c)
	if err != nil {
		return Session{}, err
	}
	if err := checkNotSuspended(ctx, tx, user.ID); err != nil {
		return Session{}, err
	}
	session, err := a.openSession(ctx, tx, user, c)
	if err != nil {
		return Session{}, err
	}
	if !known && user.EmailVerified {
		if err := a.notifySignIn(ctx, tx, user, session.id); err != nil {
			return Session{}, err
		}
	}
	return session, audit.Record(ctx, tx, c.as(user.ID), audit.Event{Action: audit.SignedIn, Details: map[string]string{"by": by}})
}

// notifySignIn enqueues a mail about a sign-in, unless the user has had many such
// mails.
func (a *Accounts) notifySignIn(ctx context.Context, tx *masterdb.Tx, user User, session stoa.SessionID) error {
	wait, err := signInNotices.Take(ctx, tx, user.Email)
	if err != nil || wait > 0 {
		return err
	}
	return a.opts.Queue.Enqueue(ctx, tx, MailSignIn{SessionID: session})
}

// isKnownDevice reports whether the user has had a session of this client.
func (a *Accounts) isKnownDevice(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, c Client) (bool, error) {
	var n int
	err := tx.Get(ctx, &n, `SELECT count(*) FROM sessions WHERE user_id = $1 AND user_agent = $2 AND address = $3 AND impersonator IS NULL`,
		user, sanitize(c.UserAgent, maxUserAgent), sanitize(c.Address, maxAddress))
	return n > 0, err
}

// refuseLogin records the failed attempt, whether or not the user exists, and
// returns the error for it.
func (a *Accounts) refuseLogin(ctx context.Context, p authz.Principal, by string) error {
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.SignedIn, Outcome: audit.Failed, Details: map[string]string{"by": by}})
	})
	if err != nil {
		return err
	}
	return stoa.Errorf(stoa.InvalidCredentials, "The e-mail address or the password is not correct.")
}

// userByEmail returns the user and their password hash. For an address
// without an account it returns no user and a decoy's hash.
func (a *Accounts) userByEmail(ctx context.Context, email string) (User, string, error) {
	// A malformed address cannot be registered, and may contain bytes that
	// PostgreSQL rejects.
	email, ok := storedEmail(email)
	if !ok {
		return User{}, a.passwords.unmatchable, nil
	}
	var row struct {
		User
		PasswordHash string
	}
	decoy, err := a.decoyHash(ctx, email) // also for a user, for whom it takes the same time
	if err != nil {
		return User{}, "", err
	}
	err = a.db.Get(ctx, &row, `SELECT `+userColumns+`, password_hash FROM users WHERE email = $1`, email)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, decoy, nil
	}
	return row.User, row.PasswordHash, err
}

// replaceHash locks the user until tx ends and stores fresh, which equals old
// when there is nothing to replace. It fails with errHashChanged when the stored
// hash is not old: the password was changed or hashed again.
func replaceHash(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, old, fresh string) error {
	n, err := tx.Exec(ctx, `
		UPDATE users SET password_hash = $1, updated_at = CASE WHEN password_hash = $1 THEN updated_at ELSE $4 END
		WHERE id = $2 AND password_hash = $3`, fresh, user, old, tx.Now)
	if err == nil && n == 0 {
		return errHashChanged
	}
	return err
}
