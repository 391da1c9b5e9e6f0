// Package accounts manages users: it registers them, checks their passwords and
// second factors, opens and revokes their sessions, and invites them to stores. It
// owns the tables users, sessions, refresh_tokens, invitations, email_requests,
// one_time_tokens, email_changes, email_change_tokens, account_deletions,
// second_factors, recovery_codes, passkeys and passkey_challenges.
//
// A session is a row in the master database. Its caller has two tokens: a
// short-lived access token, sent with each request, and a refresh token that is
// exchanged for the next pair. A browser has a cookie instead. Revoking the session
// invalidates all of them, at once and on every replica.
package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/go-webauthn/webauthn/webauthn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/ratelimit"
	"github.com/stoahq/stoa/internal/stores"
)

// Accounts manages users and their sessions. It is safe for concurrent use.
type Accounts struct {
	db        *masterdb.DB
	stores    *stores.Registry
	passwords *hasher
	sessions  *masterdb.Lookup[stoa.SessionID, sessionState]
	keys      *apikeys.Authenticator
	tokens    *tokens
	opts      Options

	relyingParty *webauthn.WebAuthn // of passkeys; nil if there can be none
}

// DefaultRefreshTTL is how long a session lives after its last refresh.
const DefaultRefreshTTL = 30 * 24 * time.Hour

// Options configure Accounts.
type Options struct {
	// AccessTTL is how long an access token is valid. Default 15 m.
	AccessTTL time.Duration
	// RefreshTTL is how long a session lives after its last refresh.
	// Default DefaultRefreshTTL.
	RefreshTTL time.Duration
	// Issuer is the "iss" of access tokens; installations that share a
	// signing key need different ones. Default "stoa".
	Issuer string
	// Encryption encrypts the secrets of second factors.
	Encryption *keyring.Ring
	// Queue and Mail send mails, whose links lead to BaseURL.
	Queue   *jobs.Queue
	Mail    *mail.Sender
	BaseURL string
	// InvitationsPerHour limits the invitations of all users together. 0: no limit.
	InvitationsPerHour int
	// Limits counts sign-in attempts. Default: in memory.
	Limits *ratelimit.Limiter
	// Quotas limit the open invitations and the members of a store.
	Quotas quotas.Limits
}

// New returns Accounts on db. The first key of signing signs access tokens, the
// others still verify them.
func New(db *masterdb.DB, registry *stores.Registry, signing *keyring.Ring, opts Options) *Accounts {
	if opts.AccessTTL == 0 {
		opts.AccessTTL = 15 * time.Minute
	}
	if opts.RefreshTTL == 0 {
		opts.RefreshTTL = DefaultRefreshTTL
	}
	if opts.Issuer == "" {
		opts.Issuer = "stoa"
	}
	if opts.Limits == nil {
		opts.Limits = newMemoryLimiter()
	}
	return &Accounts{
		db:        db,
		stores:    registry,
		sessions:  newSessionLookup(db),
		keys:      apikeys.NewAuthenticator(db),
		passwords: newHasher(recommended),
		tokens:    newTokens(signing, opts.Issuer, opts.AccessTTL, db.Now),
		opts:      opts,

		relyingParty: newRelyingParty(opts.BaseURL),
	}
}

// User is a person with an account. Role is their role on the platform, "user"
// or "admin"; the role in a store is authz.Role.
type User struct {
	ID            stoa.UserID
	Email         string
	FirstName     string
	LastName      string
	Role          string
	EmailVerified bool
	CreatedAt     time.Time
}

// IsOperator reports whether the user is an operator of the platform.
func (u User) IsOperator() bool { return u.Role == "admin" }

// userColumns are the columns of User.
const userColumns = "id, email, first_name, last_name, role, email_verified, created_at"

// Session is the result of opening or refreshing a session. ExpiresIn is the
// lifetime of the access token or, for a browser, of the session.
type Session struct {
	User         User
	AccessToken  keyring.Secret
	RefreshToken keyring.Secret
	Cookie       keyring.Secret // of a browser, instead of the tokens
	ExpiresIn    time.Duration

	id stoa.SessionID
}

// Client describes the client of a session, by which its owner recognises it.
// UserAgent is truncated to 256 bytes.
type Client struct {
	Address   string
	UserAgent string
	RequestID string // for the audit log

	ClientRequestID string // for the audit log: see audit.Origin

	// Browser makes a new session one of a browser: it has a cookie instead of tokens.
	Browser bool
}

// as returns the user as a principal with the client as origin.
func (c Client) as(user stoa.UserID) authz.Principal {
	return authz.Principal{UserID: user, Origin: audit.Origin{
		Address: sanitize(c.Address, maxAddress), RequestID: c.RequestID, ClientRequestID: c.ClientRequestID,
	}}
}

// Register creates a user, their first store when StoreName is set, and a
// session, in one transaction. The store is nil when none was asked for.
//
// It fails with invalid_request, naming every fault, and with email_taken when
// the address belongs to another account, whatever its case.
func (a *Accounts) Register(ctx context.Context, r Registration) (Session, *stores.Store, error) {
	r, err := r.validate()
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
		by := r.Client.as(user.ID)
		if err := audit.Record(ctx, tx, by, audit.Event{Action: audit.Registered}); err != nil {
			return err
		}
		if store, err = a.createFirstStore(ctx, tx, by, r.StoreName); err != nil {
			return err
		}
		if session, err = a.openSession(ctx, tx, user, r.Client); err != nil {
			return err
		}
		return a.requestMail(ctx, tx, verifyEmail, user.Email)
	})
	if err != nil {
		return Session{}, nil, err
	}
	return session, store, nil
}

// insertUser inserts the user. It relies on the unique index: of concurrent calls with
// one address, one succeeds.
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
		return User{}, stoa.Errorf(stoa.EmailTaken, "There is an account with this e-mail address already. "+
			"Sign in, or use another address. If the address is yours and the account is not, set a new password with a link sent to it.")
	}
	return u, err
}

// createFirstStore creates the user's first store. It returns nil when no name was
// given.
func (a *Accounts) createFirstStore(ctx context.Context, tx *masterdb.Tx, owner authz.Principal, name *string) (*stores.Store, error) {
	if name == nil {
		return nil, nil
	}
	store, err := a.stores.CreateFirst(ctx, tx, owner, *name)
	if err != nil {
		return nil, err
	}
	return &store, nil
}

// Me returns the caller's own account. It fails with session_revoked when
// the account has been deleted, and with forbidden for an API key.
func (a *Accounts) Me(ctx context.Context, p authz.Principal) (User, error) {
	if err := p.SignedIn(); err != nil {
		return User{}, err
	}
	user, err := ReadUser(ctx, a.db, p.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, authz.ErrSessionRevoked()
	}
	return user, err
}

// MeWithStores is Me, with the first page of the caller's stores, which is as long as a page
// may be.
func (a *Accounts) MeWithStores(ctx context.Context, p authz.Principal) (User, stores.Page, error) {
	if err := p.SignedIn(); err != nil {
		return User{}, stores.Page{}, err
	}
	var user User
	found, err := a.stores.ListWith(ctx, p, page.MaxLimit, "", userQuery(&user, p.UserID))
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, stores.Page{}, authz.ErrSessionRevoked()
	}
	return user, found, err
}

// userQuery is the query of ReadUser.
func userQuery(user *User, id stoa.UserID) masterdb.Query {
	return masterdb.One(user, `SELECT `+userColumns+` FROM users WHERE id = $1 AND deleted_at IS NULL`, id)
}

// ReadUser returns a user. It fails with masterdb.ErrNotFound, also for one who has
// deleted their account.
func ReadUser(ctx context.Context, q masterdb.Querier, id stoa.UserID) (User, error) {
	var user User
	err := q.Batch(ctx, userQuery(&user, id))
	return user, err
}
