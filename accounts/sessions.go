package accounts

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/masterdb"
)

const (
	// refreshPrefix lets secret scanners recognise a leaked token.
	refreshPrefix = "stoa_rt_"
	refreshSize   = 32 // bytes of randomness

	// refreshGrace is how long after its use a spent token is not yet taken for
	// a stolen one.
	refreshGrace = 10 * time.Second

	maxUserAgent = 256 // bytes
	maxAddress   = 64  // bytes: an IPv6 address with a zone
)

// openSession starts a session for a user whose password was checked.
func (a *Accounts) openSession(ctx context.Context, tx *masterdb.Tx, user User, c Client) (Session, error) {
	if err := trimSessions(ctx, tx, user.ID); err != nil {
		return Session{}, err
	}
	id := stoa.NewID[stoa.SessionID]()
	_, err := tx.Exec(ctx, `
		INSERT INTO sessions (id, user_id, user_agent, address, created_at, last_used_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $5, $6)`,
		id, user.ID, cleaned(c.UserAgent, maxUserAgent), cleaned(c.Address, maxAddress), tx.Now, tx.Now.Add(a.opts.RefreshTTL))
	if err != nil {
		return Session{}, err
	}
	return a.issue(ctx, tx, id, user)
}

// maxSessions is how many sessions of one user are kept, ended ones included.
// It is not less than maxNetworks: what the user signs in from is told by them.
const maxSessions = maxNetworks

// trimSessions makes room for another session: it deletes those that ended
// first, then those that were used least recently.
func trimSessions(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) error {
	_, err := tx.Exec(ctx, `DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user_id = $1 AND impersonator IS NULL
		ORDER BY revoked_at IS NOT NULL, last_used_at DESC, id DESC LIMIT 1000 OFFSET $2)`, user, maxSessions-1)
	return err
}

// issue makes the next pair of tokens of a session.
func (a *Accounts) issue(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, user User) (Session, error) {
	refresh := newRefreshToken()
	_, err := tx.Exec(ctx, `INSERT INTO refresh_tokens (hash, session_id, created_at) VALUES ($1, $2, $3)`,
		tokenHash(refresh), id, tx.Now)
	if err != nil {
		return Session{}, err
	}
	signed, err := a.tokens.sign(access.Principal{UserID: user.ID, SessionID: id}, tx.Now)
	if err != nil {
		return Session{}, err
	}
	return Session{User: user, AccessToken: signed, RefreshToken: refresh, ExpiresIn: a.opts.AccessTTL, id: id}, nil
}

// Refresh exchanges a refresh token for a new pair and lets the session live
// for another RefreshTTL. The old refresh token is spent; access tokens
// already issued stay valid until they expire.
//
// It fails with token_invalid for a token Stoa never issued, with
// token_expired when the session was left unused too long, and with
// session_revoked. A spent token that is used again was copied, by whom
// cannot be known: the session is revoked, for thief and owner alike. Only
// within refreshGrace of its first use it buys another pair: of two tabs that
// refresh at once both go on, and so does who never got the answer.
func (a *Accounts) Refresh(ctx context.Context, token keyring.Secret, c Client) (Session, error) {
	if !looksLikeRefreshToken(token) {
		return Session{}, errRefreshInvalid()
	}
	var session Session
	var refused error
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		var err error
		session, refused, err = a.rotate(ctx, tx, token, c)
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return session, refused
}

// rotate does the work of Refresh. What it refuses it returns apart from its
// own failure: the revocation that comes with a refusal must be committed.
func (a *Accounts) rotate(ctx context.Context, tx *masterdb.Tx, token keyring.Secret, c Client) (s Session, refused, err error) {
	hash := tokenHash(token)
	held, err := heldSession(ctx, tx, hash)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return Session{}, errRefreshInvalid(), nil
	case err != nil:
		return Session{}, nil, err
	case held.RevokedAt != nil:
		return Session{}, errSessionRevoked(), nil
	case held.SpentAt != nil && tx.Now.Sub(*held.SpentAt) > refreshGrace:
		return Session{}, errSessionRevoked(), a.reused(ctx, tx, held, c)
	case !tx.Now.Before(held.ExpiresAt):
		return Session{}, errTokenExpired(), nil
	}
	if err := a.prolong(ctx, tx, held.SessionID, hash, c); err != nil {
		return Session{}, nil, err
	}
	user, err := ReadUser(ctx, tx, held.UserID)
	if err != nil {
		return Session{}, nil, err
	}
	s, err = a.issue(ctx, tx, held.SessionID, user)
	return s, nil, err
}

// reused ends a session whose spent token was used again.
func (a *Accounts) reused(ctx context.Context, tx *masterdb.Tx, held tokenRow, c Client) error {
	if err := revoke(ctx, tx, held.SessionID); err != nil {
		return err
	}
	return access.Record(ctx, tx, c.as(held.UserID), access.Event{Action: access.TokenReused, Outcome: access.Denied,
		Details: map[string]string{"session": held.SessionID.String()}})
}

// tokenRow is a refresh token with the session it belongs to.
type tokenRow struct {
	SessionID stoa.SessionID
	UserID    stoa.UserID
	SpentAt   *time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time
}

// heldSession finds a refresh token and locks it with its session, so that
// calls with one token, and a logout, go one after the other and each sees
// what the one before it did.
func heldSession(ctx context.Context, tx *masterdb.Tx, hash string) (tokenRow, error) {
	var row tokenRow
	err := tx.Get(ctx, &row, `
		SELECT t.session_id, s.user_id, t.spent_at, s.expires_at, s.revoked_at
		FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
		WHERE t.hash = $1`+tx.ForUpdate(), hash)
	return row, err
}

// prolong spends the token and moves the end of the session. The time of the
// first use stays.
func (a *Accounts) prolong(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, hash string, c Client) error {
	if _, err := tx.Exec(ctx, `UPDATE refresh_tokens SET spent_at = $1 WHERE hash = $2 AND spent_at IS NULL`, tx.Now, hash); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `
		UPDATE sessions SET last_used_at = $1, expires_at = $2, user_agent = $3, address = $4 WHERE id = $5`,
		tx.Now, tx.Now.Add(a.opts.RefreshTTL), cleaned(c.UserAgent, maxUserAgent), cleaned(c.Address, maxAddress), id)
	return err
}

// Logout ends the caller's session: its access and refresh tokens stop
// working at once, on every replica. Ending it twice is no error.
func (a *Accounts) Logout(ctx context.Context, p access.Principal) error {
	if err := p.SignedIn(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := revoke(ctx, tx, p.SessionID); err != nil {
			return err
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.SignedOut})
	})
}

// revoke keeps the time of the first revocation.
func revoke(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL`, tx.Now, id)
	return err
}

// Authenticate returns who holds an access token or an API key. It asks the
// master database each time, by a key of the table: a logout or a revocation
// anywhere counts here at once.
//
// It fails with token_invalid, token_expired or session_revoked.
func (a *Accounts) Authenticate(ctx context.Context, token string) (access.Principal, error) {
	if strings.HasPrefix(token, keyPrefix) {
		return a.authenticateKey(ctx, token)
	}
	p, err := a.tokens.verify(token)
	if err != nil {
		return access.Principal{}, err
	}
	var session struct {
		UserID       stoa.UserID
		ExpiresAt    time.Time
		RevokedAt    *time.Time
		Impersonator *stoa.UserID
	}
	err = a.db.Get(ctx, &session, `SELECT user_id, expires_at, revoked_at, impersonator FROM sessions WHERE id = $1`, p.SessionID)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		// The signature is good, so there was a session; its row went with its user.
		return access.Principal{}, errSessionRevoked()
	case err != nil:
		return access.Principal{}, err
	case session.UserID != p.UserID:
		return access.Principal{}, errAccessInvalid()
	case session.RevokedAt != nil:
		return access.Principal{}, errSessionRevoked()
	case !a.db.Now().Before(session.ExpiresAt):
		return access.Principal{}, errTokenExpired()
	}
	if session.Impersonator != nil {
		p.Impersonator = *session.Impersonator
	}
	return p, nil
}

func newRefreshToken() keyring.Secret {
	return newToken(refreshPrefix)
}

// newToken is as hard to guess as a key.
func newToken(prefix string) keyring.Secret {
	return keyring.NewSecret(prefix + base64.RawURLEncoding.EncodeToString(random(refreshSize)))
}

func looksLikeRefreshToken(t keyring.Secret) bool { return looksLike(t, refreshPrefix) }

func looksLike(t keyring.Secret, prefix string) bool {
	rest, ok := strings.CutPrefix(t.Reveal(), prefix)
	return ok && len(rest) == base64.RawURLEncoding.EncodedLen(refreshSize)
}

// tokenHash is the form in which a token is stored. The token is random,
// so a plain hash is enough: there is nothing to guess.
func tokenHash(t keyring.Secret) string {
	sum := sha256.Sum256([]byte(t.Reveal()))
	return hex.EncodeToString(sum[:])
}

func errRefreshInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "The refresh token is not valid. Sign in again.")
}

func errTokenExpired() *stoa.Error {
	return stoa.Errorf(stoa.TokenExpired, "The session has expired. Sign in again.")
}

func errSessionRevoked() *stoa.Error {
	return stoa.Errorf(stoa.SessionRevoked, "This session has ended. Sign in again.")
}
