package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// refreshPrefix lets secret scanners recognise a leaked token.
	refreshPrefix = "stoa_rt_"
	refreshSize   = 32 // bytes of randomness

	// refreshGrace is how long a used token may be used again without being
	// treated as stolen.
	refreshGrace = 10 * time.Second

	maxUserAgent = 256 // bytes
	maxAddress   = 64  // bytes: an IPv6 address with a zone
)

// openSession opens a session for a user who has been authenticated. It fails with
// account_suspended.
func (a *Accounts) openSession(ctx context.Context, tx *masterdb.Tx, user User, c Client) (Session, error) {
	if err := trimSessions(ctx, tx, user.ID); err != nil {
		return Session{}, err
	}
	id := stoa.NewID[stoa.SessionID]()
	err := tx.ExecLater(ctx, `
		INSERT INTO sessions (id, user_id, user_agent, address, created_at, last_used_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $5, $6)`,
		id, user.ID, sanitize(c.UserAgent, maxUserAgent), sanitize(c.Address, maxAddress), tx.Now, tx.Now.Add(a.opts.RefreshTTL))
	if err != nil {
		return Session{}, err
	}
	if c.Browser {
		return issueCookie(ctx, tx, id, user, a.opts.RefreshTTL, &tx.Now)
	}
	refresh := newRefreshToken()
	if err := storeRefreshToken(ctx, tx, id, refresh); err != nil {
		return Session{}, err
	}
	return a.withAccessToken(tx, id, user, refresh)
}

// maxSessions is how many sessions of one user are stored, revoked ones included.
// It is at least maxNetworks, since known networks are read from sessions.
const maxSessions = maxNetworks

// trimSessions makes room for another session. It deletes revoked sessions
// first, then the least recently used.
func trimSessions(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) error {
	return tx.ExecLater(ctx, `DELETE FROM sessions WHERE id IN (SELECT id FROM sessions WHERE user_id = $1 AND impersonator IS NULL
		ORDER BY revoked_at IS NOT NULL, last_used_at DESC, id DESC LIMIT 1000 OFFSET $2)`, user, maxSessions-1)
}

// withAccessToken returns the pair of a session's refresh token and a new access token.
func (a *Accounts) withAccessToken(tx *masterdb.Tx, id stoa.SessionID, user User, refresh keyring.Secret) (Session, error) {
	signed, err := a.tokens.sign(authz.Principal{UserID: user.ID, SessionID: id}, tx.Now)
	if err != nil {
		return Session{}, err
	}
	return Session{User: user, AccessToken: signed, RefreshToken: refresh, ExpiresIn: a.opts.AccessTTL, id: id}, nil
}

// Refresh exchanges a refresh token for a new pair and lets the session live
// for another RefreshTTL. The old refresh token is used up; access tokens
// already issued stay valid until they expire.
//
// It fails with token_invalid for a token Stoa never issued, with
// token_expired when the session was left unused too long, and with
// session_revoked. A token that is used a second time has been copied, so the
// session is revoked, for the owner and the thief. Within refreshGrace of its
// first use a token is accepted again, since two tabs may refresh at the same time
// and a client may have lost the response. The refresh token of the answer is then
// the one that the first use gave or, if that is spent as well, the newest: see
// nextRefreshToken.
func (a *Accounts) Refresh(ctx context.Context, token keyring.Secret, c Client) (Session, error) {
	if !isRefreshToken(token) {
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

// rotate runs in the transaction of Refresh. It returns a refusal separately from an
// error, because the revocation that belongs to a refusal must be committed.
func (a *Accounts) rotate(ctx context.Context, tx *masterdb.Tx, token keyring.Secret, c Client) (s Session, refused, err error) {
	hash := token.Hash()
	found, err := lockRefreshToken(ctx, tx, hash)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return Session{}, errRefreshInvalid(), nil
	case err != nil:
		return Session{}, nil, err
	case found.Suspended:
		return Session{}, authz.ErrAccountSuspended(), nil
	case found.RevokedAt != nil:
		return Session{}, authz.ErrSessionRevoked(), nil
	case found.SpentAt != nil && tx.Now.Sub(*found.SpentAt) > refreshGrace:
		return Session{}, authz.ErrSessionRevoked(), a.revokeReused(ctx, tx, found, c)
	case !tx.Now.Before(found.ExpiresAt):
		return Session{}, errTokenExpired(), nil
	}
	if err := a.extendSession(ctx, tx, found.SessionID, hash, c); err != nil {
		return Session{}, nil, err
	}
	user, err := ReadUser(ctx, tx, found.UserID)
	if err != nil {
		return Session{}, nil, err
	}
	next, err := a.nextRefreshToken(ctx, tx, found, token)
	if err != nil {
		return Session{}, nil, err
	}
	s, err = a.withAccessToken(tx, found.SessionID, user, next)
	return s, nil, err
}

// revokeReused revokes a session whose used token was used again.
func (a *Accounts) revokeReused(ctx context.Context, tx *masterdb.Tx, found tokenRow, c Client) error {
	if err := revoke(ctx, tx, found.SessionID); err != nil {
		return err
	}
	return audit.Record(ctx, tx, c.as(found.UserID), audit.Event{Action: audit.TokenReused, Outcome: audit.Denied,
		Details: map[string]string{"session": found.SessionID.String()}})
}

// tokenRow is a refresh token with the session it belongs to.
type tokenRow struct {
	SessionID stoa.SessionID
	UserID    stoa.UserID
	SpentAt   *time.Time
	ExpiresAt time.Time
	RevokedAt *time.Time
	Suspended bool // the user
}

// lockRefreshToken reads a refresh token and locks it with its session, so that
// concurrent refreshes and logouts run one after the other.
func lockRefreshToken(ctx context.Context, tx *masterdb.Tx, hash string) (tokenRow, error) {
	var row tokenRow
	err := tx.Get(ctx, &row, `
		SELECT t.session_id, s.user_id, t.spent_at, s.expires_at, s.revoked_at,
			EXISTS (SELECT 1 FROM users u WHERE u.id = s.user_id AND u.suspended_at IS NOT NULL) AS suspended
		FROM refresh_tokens t JOIN sessions s ON s.id = t.session_id
		WHERE t.hash = $1`+tx.ForUpdate(), hash)
	return row, err
}

// extendSession marks the token as used and extends the session. The time of the
// first use is kept.
func (a *Accounts) extendSession(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, hash string, c Client) error {
	if err := tx.ExecLater(ctx, `UPDATE refresh_tokens SET spent_at = $1 WHERE hash = $2 AND spent_at IS NULL`, tx.Now, hash); err != nil {
		return err
	}
	return tx.ExecLater(ctx, `
		UPDATE sessions SET last_used_at = $1, expires_at = $2, user_agent = $3, address = $4 WHERE id = $5`,
		tx.Now, tx.Now.Add(a.opts.RefreshTTL), sanitize(c.UserAgent, maxUserAgent), sanitize(c.Address, maxAddress), id)
}

// Logout revokes the caller's session: its access and refresh tokens stop
// working at once, on every replica. Revoking it twice is not an error.
func (a *Accounts) Logout(ctx context.Context, p authz.Principal) error {
	if err := p.SignedIn(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := revoke(ctx, tx, p.SessionID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.SignedOut})
	})
}

// revoke revokes a session. It keeps the time of the first revocation.
func revoke(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL`, tx.Now, id)
	return err
}

// Authenticate returns the principal of an access token or an API key. It reads
// the master database each time, by primary key, so that a logout or revocation
// on another replica takes effect at once.
//
// It fails with token_invalid, token_expired, session_revoked or account_suspended.
func (a *Accounts) Authenticate(ctx context.Context, token string) (authz.Principal, error) {
	if apikeys.IsKey(token) {
		return a.keys.Authenticate(ctx, token)
	}
	p, err := a.tokens.verify(token)
	if err != nil {
		return authz.Principal{}, err
	}
	session, err := a.sessions.Get(ctx, p.SessionID)
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		// The signature is valid, so the session existed; its row was deleted.
		return authz.Principal{}, authz.ErrSessionRevoked()
	case err != nil:
		return authz.Principal{}, err
	case session.UserID != p.UserID:
		return authz.Principal{}, errAccessInvalid()
	case session.Suspended:
		return authz.Principal{}, authz.ErrAccountSuspended()
	case session.RevokedAt != nil:
		return authz.Principal{}, authz.ErrSessionRevoked()
	case !a.db.Now().Before(session.ExpiresAt):
		return authz.Principal{}, errTokenExpired()
	}
	if session.Impersonator != nil {
		p.Impersonator = *session.Impersonator
	}
	return p, nil
}

// sessionState is what decides whether a session may still be used.
type sessionState struct {
	ID           stoa.SessionID
	UserID       stoa.UserID
	ExpiresAt    time.Time
	RevokedAt    *time.Time
	Impersonator *stoa.UserID
	Suspended    bool
}

func newSessionLookup(db *masterdb.DB) *masterdb.Lookup[stoa.SessionID, sessionState] {
	return masterdb.NewLookup(db, `
		SELECT s.id, s.user_id, s.expires_at, s.revoked_at, s.impersonator, u.suspended_at IS NOT NULL AS suspended
		FROM sessions s JOIN users u ON u.id = s.user_id`, `s.id`, func(s sessionState) stoa.SessionID { return s.ID })
}

func newRefreshToken() keyring.Secret {
	return newToken(refreshPrefix)
}

// newToken returns a random token with 256 bits of entropy.
func newToken(prefix string) keyring.Secret {
	return keyring.NewSecret(prefix + base64.RawURLEncoding.EncodeToString(random(refreshSize)))
}

func isRefreshToken(t keyring.Secret) bool { return hasTokenForm(t, refreshPrefix) }

func hasTokenForm(t keyring.Secret, prefix string) bool {
	rest, ok := strings.CutPrefix(t.Reveal(), prefix)
	return ok && len(rest) == base64.RawURLEncoding.EncodedLen(refreshSize)
}

func errRefreshInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "The refresh token is not valid. Sign in again.")
}

func errTokenExpired() *stoa.Error {
	return stoa.Errorf(stoa.TokenExpired, "The session has expired. Sign in again.")
}

// EndAll ends every session, and voids the links and challenges that could still be used,
// after the master database was restored from a backup: what was signed out, spent or
// changed since the backup would otherwise be valid again. Everybody signs in anew. It
// returns how many sessions it has ended.
func EndAll(ctx context.Context, tx *masterdb.Tx) (int64, error) {
	ended, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE revoked_at IS NULL`, tx.Now)
	if err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `UPDATE email_changes SET ended_at = $1 WHERE ended_at IS NULL`, tx.Now); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM one_time_tokens WHERE purpose IN ('reset_password', 'second_factor')`); err != nil {
		return 0, err
	}
	_, err = tx.Exec(ctx, `DELETE FROM passkey_challenges`)
	return ended, err
}
