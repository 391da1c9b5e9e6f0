// Package accounts knows the people: it registers them, checks their
// passwords, and opens and ends their sessions. It owns the tables users,
// sessions and refresh_tokens.
//
// A session is a row in the master database. What a caller holds are two
// tokens for it: a short-lived access token, sent with each request, and a
// refresh token that buys the next pair. Ending the session ends both, at
// once and on every replica.
package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/stores"
)

// Accounts is the register of people. It is safe for concurrent use.
type Accounts struct {
	db        *masterdb.DB
	stores    *stores.Registry
	passwords *hasher
	tokens    *tokens
	opts      Options
}

// Options tune Accounts.
type Options struct {
	// AccessTTL is how long an access token is valid. Default 15 m.
	AccessTTL time.Duration
	// RefreshTTL is how long a session lives after its last refresh.
	// Default 30 days.
	RefreshTTL time.Duration
	// Issuer is the "iss" of access tokens; installations that share a
	// signing key need different ones. Default "stoa".
	Issuer string
}

// New returns the register on db. The first key of signing signs access
// tokens, the others still verify them.
func New(db *masterdb.DB, registry *stores.Registry, signing *keyring.Ring, opts Options) *Accounts {
	if opts.AccessTTL == 0 {
		opts.AccessTTL = 15 * time.Minute
	}
	if opts.RefreshTTL == 0 {
		opts.RefreshTTL = 30 * 24 * time.Hour
	}
	if opts.Issuer == "" {
		opts.Issuer = "stoa"
	}
	return &Accounts{
		db:        db,
		stores:    registry,
		passwords: newHasher(recommended),
		tokens:    newTokens(signing, opts.Issuer, opts.AccessTTL),
		opts:      opts,
	}
}

// User is one person. Role is what they are to the platform, "user" or
// "admin"; what they are to a store is access.Role.
type User struct {
	ID            stoa.UserID
	Email         string
	FirstName     string
	LastName      string
	Role          string
	EmailVerified bool
	CreatedAt     time.Time
}

// userColumns are the fields of User.
const userColumns = "id, email, first_name, last_name, role, email_verified, created_at"

// Session is what a caller receives when a session is opened or refreshed.
// ExpiresIn is the lifetime of the access token.
type Session struct {
	User         User
	AccessToken  keyring.Secret
	RefreshToken keyring.Secret
	ExpiresIn    time.Duration
}

// Client is where a session is used from, kept so that its owner can
// recognise it. UserAgent is cut to 256 bytes.
type Client struct {
	Address   string
	UserAgent string
}

// Register creates a user, their first store when StoreName is set, and a
// session, in one transaction. The store is nil when none was asked for.
//
// It fails with invalid_request, naming every fault it can see, and with
// email_taken when the address belongs to another account in any case.
func (a *Accounts) Register(ctx context.Context, r Registration) (Session, *stores.Store, error) {
	r, err := r.checked()
	if err != nil {
		return Session{}, nil, err
	}
	hash, err := a.passwords.hash(ctx, r.Password)
	if err != nil {
		return Session{}, nil, err
	}
	var session Session
	var store *stores.Store
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		user, err := insertUser(ctx, tx, r, hash)
		if err != nil {
			return err
		}
		if store, err = a.createFirstStore(ctx, tx, user.ID, r.StoreName); err != nil {
			return err
		}
		session, err = a.openSession(ctx, tx, user, r.Client)
		return err
	})
	if err != nil {
		return Session{}, nil, err
	}
	return session, store, nil
}

// insertUser relies on the unique index: of several callers with one
// address, the database lets one through.
func insertUser(ctx context.Context, tx *masterdb.Tx, r Registration, hash string) (User, error) {
	u := User{
		ID: stoa.NewID[stoa.UserID](), Email: r.Email, FirstName: r.FirstName, LastName: r.LastName,
		Role: "user", CreatedAt: tx.Now,
	}
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, password_hash, first_name, last_name, role, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $7)`,
		u.ID, u.Email, hash, u.FirstName, u.LastName, u.Role, tx.Now)
	if masterdb.IsUnique(err) {
		return User{}, stoa.Errorf(stoa.EmailTaken, "There is an account with this e-mail address already. Sign in, or use another address.")
	}
	return u, err
}

// createFirstStore returns nil when no name was given.
func (a *Accounts) createFirstStore(ctx context.Context, tx *masterdb.Tx, owner stoa.UserID, name *string) (*stores.Store, error) {
	if name == nil {
		return nil, nil
	}
	store, err := a.stores.CreateFirst(ctx, tx, owner, *name)
	if err != nil {
		return nil, err
	}
	return &store, nil
}

// Login opens a session. It fails with invalid_credentials, and says no more
// than that: neither the answer nor the work tells a wrong password from an
// address that has no account.
func (a *Accounts) Login(ctx context.Context, email string, password keyring.Secret, c Client) (Session, error) {
	user, stored, err := a.userByEmail(ctx, email)
	if err != nil {
		return Session{}, err
	}
	match, outdated, err := a.passwords.verify(ctx, stored, password)
	if err != nil {
		return Session{}, err
	}
	if !match {
		return Session{}, stoa.Errorf(stoa.InvalidCredentials, "The e-mail address or the password is not correct.")
	}
	var fresh string
	if outdated {
		if fresh, err = a.passwords.hash(ctx, password); err != nil {
			return Session{}, err
		}
	}
	var session Session
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := replaceHash(ctx, tx, user.ID, stored, fresh); err != nil {
			return err
		}
		session, err = a.openSession(ctx, tx, user, c)
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return session, nil
}

// userByEmail returns the user and their password hash. For an address
// without an account it returns a hash that no password matches.
func (a *Accounts) userByEmail(ctx context.Context, email string) (User, string, error) {
	// Nobody could have registered an address that is not one, and
	// PostgreSQL refuses some bytes that it may hold.
	email, fault := normalEmail(email)
	if fault != "" {
		return User{}, a.passwords.unmatchable, nil
	}
	var row struct {
		User
		PasswordHash string
	}
	err := a.db.Get(ctx, &row, `SELECT `+userColumns+`, password_hash FROM users WHERE lower(email) = lower($1)`, email)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, a.passwords.unmatchable, nil
	}
	return row.User, row.PasswordHash, err
}

// replaceHash stores a hash made at today's cost; fresh is empty when there
// is nothing to replace. A hash that has changed since it was read stays:
// it belongs to a newer password or to another login's replacement.
func replaceHash(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, old, fresh string) error {
	if fresh == "" {
		return nil
	}
	_, err := tx.Exec(ctx, `UPDATE users SET password_hash = $1, updated_at = $2 WHERE id = $3 AND password_hash = $4`,
		fresh, tx.Now, user, old)
	return err
}

// Me returns the caller's own account. It fails with session_revoked when
// the account has been deleted.
func (a *Accounts) Me(ctx context.Context, p access.Principal) (User, error) {
	user, err := ReadUser(ctx, a.db, p.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, errSessionRevoked()
	}
	return user, err
}

// ReadUser returns a user to other domains, or masterdb.ErrNotFound.
func ReadUser(ctx context.Context, q masterdb.Querier, id stoa.UserID) (User, error) {
	var user User
	err := q.Get(ctx, &user, `SELECT `+userColumns+` FROM users WHERE id = $1`, id)
	return user, err
}
