package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

const (
	// cookiePrefix lets secret scanners recognise a leaked cookie.
	cookiePrefix = "stoa_bs_"

	// cookieExtension is how old the last recorded use of a browser's session must
	// be before another use is recorded and extends the session: a page view
	// usually writes nothing.
	cookieExtension = time.Hour

	// recentAuthentication is how long a password or code counts for the actions
	// that need a recent one.
	recentAuthentication = 10 * time.Minute
)

// BrowserSession is the session of a cookie with its user.
type BrowserSession struct {
	Principal authz.Principal
	User      User
	ExpiresAt time.Time
}

// AuthenticateCookie returns the session of a browser's cookie. It reads the master
// database each time, so that a logout or revocation on another replica takes effect
// at once. A use extends the session, which is recorded at most once an hour.
//
// It fails with token_invalid, token_expired, session_revoked or account_suspended.
func (a *Accounts) AuthenticateCookie(ctx context.Context, cookie keyring.Secret, c Client) (BrowserSession, error) {
	if !hasTokenForm(cookie, cookiePrefix) {
		return BrowserSession{}, errCookieInvalid()
	}
	var row struct {
		User
		SessionID       stoa.SessionID
		ExpiresAt       time.Time
		LastUsedAt      time.Time
		RevokedAt       *time.Time
		AuthenticatedAt *time.Time
		Impersonator    *stoa.UserID
		Suspended       bool
	}
	err := a.db.Get(ctx, &row, `
		SELECT u.id, u.email, u.first_name, u.last_name, u.role, u.email_verified, u.created_at,
			s.id AS session_id, s.expires_at, s.last_used_at, s.revoked_at, s.authenticated_at, s.impersonator,
			u.suspended_at IS NOT NULL AS suspended
		FROM sessions s JOIN users u ON u.id = s.user_id WHERE s.cookie_hash = $1`, cookie.Hash())
	now := a.db.Now()
	switch {
	case errors.Is(err, masterdb.ErrNotFound):
		return BrowserSession{}, errCookieInvalid()
	case err != nil:
		return BrowserSession{}, err
	case row.Suspended:
		return BrowserSession{}, authz.ErrAccountSuspended()
	case row.RevokedAt != nil:
		return BrowserSession{}, authz.ErrSessionRevoked()
	case !now.Before(row.ExpiresAt):
		return BrowserSession{}, errTokenExpired()
	}
	p := c.as(row.ID)
	p.SessionID, p.Browser = row.SessionID, true
	p.RecentlyAuthenticated = row.AuthenticatedAt != nil && now.Sub(*row.AuthenticatedAt) < recentAuthentication
	if row.Impersonator != nil {
		p.Impersonator = *row.Impersonator
	} else if now.Sub(row.LastUsedAt) > cookieExtension {
		row.ExpiresAt = now.Add(a.opts.RefreshTTL)
		if err := a.extendCookie(ctx, p, row.ExpiresAt, c); err != nil {
			return BrowserSession{}, err
		}
	}
	return BrowserSession{Principal: p, User: row.User, ExpiresAt: row.ExpiresAt}, nil
}

// extendCookie records a use of a browser's session.
func (a *Accounts) extendCookie(ctx context.Context, p authz.Principal, until time.Time, c Client) error {
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tx.ExecLater(ctx, `
			UPDATE sessions SET last_used_at = $1, expires_at = $2, user_agent = $3, address = $4 WHERE id = $5 AND revoked_at IS NULL`,
			tx.Now, until, sanitize(c.UserAgent, maxUserAgent), sanitize(c.Address, maxAddress), p.SessionID)
	})
}

// issueCookie makes a session that was just inserted a browser's. authenticated is
// when its user gave their password; nil for an impersonation.
func issueCookie(ctx context.Context, tx *masterdb.Tx, id stoa.SessionID, user User, lifetime time.Duration, authenticated *time.Time) (Session, error) {
	cookie := newToken(cookiePrefix)
	err := tx.ExecLater(ctx, `UPDATE sessions SET cookie_hash = $1, authenticated_at = $2 WHERE id = $3`, cookie.Hash(), authenticated, id)
	return Session{User: user, Cookie: cookie, ExpiresIn: lifetime, id: id}, err
}

// Reauthenticate records that the caller has just given their password or, with an
// empty password, a code of their second factor. For 10 minutes this browser's session
// may then do what needs a recent authentication. It fails with invalid_credentials,
// with rate_limited after many wrong attempts, and with forbidden for an operator who
// acts as the user.
func (a *Accounts) Reauthenticate(ctx context.Context, p authz.Principal, password keyring.Secret, code string) error {
	if password.IsZero() && code != "" {
		return a.reauthenticateByCode(ctx, p, code)
	}
	if _, _, err := a.reauthenticate(ctx, p, password, audit.Reauthenticated); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return recordAuthentication(ctx, tx, p, "password")
	})
}

// reauthenticateByCode checks a code of the app. A recovery code is for those who have
// lost the app, and is not accepted.
func (a *Accounts) reauthenticateByCode(ctx context.Context, p authz.Principal, code string) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	var refused error
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		refused = nil
		f, err := lockFactor(ctx, tx, p.UserID)
		if err != nil {
			return err
		}
		if f == nil || f.ConfirmedAt == nil {
			return stoa.Errorf(stoa.InvalidCredentials, "Your account has no second factor. Enter your password.")
		}
		if refused, err = a.verifyCode(ctx, tx, *f, code); err != nil {
			return err
		}
		if refused != nil {
			return audit.Record(ctx, tx, p, audit.Event{Action: audit.Reauthenticated, Outcome: audit.Failed})
		}
		return recordAuthentication(ctx, tx, p, "second factor")
	})
	return eitherError(err, refused)
}

func recordAuthentication(ctx context.Context, tx *masterdb.Tx, p authz.Principal, by string) error {
	n, err := tx.Exec(ctx, `UPDATE sessions SET authenticated_at = $1 WHERE id = $2 AND user_id = $3 AND revoked_at IS NULL`, tx.Now, p.SessionID, p.UserID)
	if err != nil {
		return err
	}
	if n == 0 {
		return authz.ErrSessionRevoked()
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.Reauthenticated, Details: map[string]string{"by": by}})
}

func errCookieInvalid() *stoa.Error {
	return stoa.Errorf(stoa.TokenInvalid, "You are not signed in. Sign in first.")
}
