package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Device is an open session as its user sees it.
type Device struct {
	ID           stoa.SessionID
	UserAgent    string // at the last use
	Address      string // at the last use
	CreatedAt    time.Time
	LastUsedAt   time.Time // the last refresh: up to the life of an access token ago
	ExpiresAt    time.Time
	Current      bool // the caller's own
	Impersonated bool // an operator acts as the user
}

// maxDevices limits the list; the oldest sessions are omitted.
const maxDevices = 100

// Sessions lists the caller's open sessions, the last used first, at most 100.
func (a *Accounts) Sessions(ctx context.Context, p authz.Principal) ([]Device, error) {
	if err := p.SignedIn(); err != nil {
		return nil, err
	}
	var out []Device
	err := a.db.Select(ctx, &out, `
		SELECT id, user_agent, address, created_at, last_used_at, expires_at, id = $2 AS current, impersonator IS NOT NULL AS impersonated
		FROM sessions WHERE user_id = $1 AND revoked_at IS NULL AND expires_at > $3
		ORDER BY last_used_at DESC, id DESC LIMIT $4`, p.UserID, p.SessionID, a.db.Now(), maxDevices)
	return out, err
}

// EndSession revokes one of the caller's sessions, which may be the current one.
// It fails with not_found for any other.
func (a *Accounts) EndSession(ctx context.Context, p authz.Principal, id stoa.SessionID) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE id = $2 AND user_id = $3 AND revoked_at IS NULL`, tx.Now, id, p.UserID)
		if err != nil {
			return err
		}
		if n == 0 {
			return stoa.Errorf(stoa.NotFound, "There is no such session, or it has ended already.")
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.SessionRevoked, Details: map[string]string{"session": id.String()}})
	})
}

// EndOtherSessions revokes the caller's sessions but the current one.
func (a *Accounts) EndOtherSessions(ctx context.Context, p authz.Principal) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := revokeOtherSessions(ctx, tx, p.UserID, p.SessionID); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.SessionRevoked, Details: map[string]string{"session": "all others"}})
	})
}

// revokeOtherSessions revokes the user's sessions except one; the zero id excepts
// none.
func revokeOtherSessions(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, except stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE user_id = $2 AND id <> $3 AND revoked_at IS NULL`, tx.Now, user, except)
	return err
}

// Purge is the job with which earlier releases deleted expired rows. Jobs that
// they enqueued still run.
type Purge struct{}

// Kind implements jobs.Args.
func (Purge) Kind() string { return "accounts.purge" }

// PurgeTimeout limits one run.
const PurgeTimeout = 10 * time.Minute

// tokenRetention is how long expired tokens and sessions still get an error of
// their own, recordRetention how long ended invitations are kept.
const (
	tokenRetention  = 7 * 24 * time.Hour
	recordRetention = 90 * 24 * time.Hour
)

// PurgeExpired runs the job.
func (a *Accounts) PurgeExpired(ctx context.Context, _ Purge) error {
	_, err := a.db.DeleteExpired(ctx, append(Expiries(a.opts.RefreshTTL), apikeys.Expiries()...))
	return errors.Join(err, mail.PurgeAllowances(ctx, a.db))
}

// Expiries returns the rules that delete rows of this package's tables, given how
// long a session lives after its last refresh. Used refresh tokens of an open
// session are deleted after that time: reusing one then fails with token_invalid.
// A session is deleted after its used tokens, so that no batch cascades to
// thousands of rows.
func Expiries(refreshTTL time.Duration) []masterdb.Expiry {
	id, hash := []string{"id"}, []string{"hash"}
	return []masterdb.Expiry{
		{Table: "refresh_tokens", Key: hash, Age: "spent_at", Keep: refreshTTL},
		{Table: "sessions", Key: id, Age: "expires_at", Keep: tokenRetention,
			Only: "NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.session_id = t.id AND r.spent_at IS NOT NULL)"},
		{Table: "one_time_tokens", Key: hash, Age: "expires_at", Keep: tokenRetention},
		{Table: "passkey_challenges", Key: hash, Age: "expires_at", Keep: passkeyLifetime},
		{Table: "email_changes", Key: id, Age: "expires_at", Keep: tokenRetention},
		{Table: "account_deletions", Key: id, Age: "created_at", Keep: tokenRetention},
		{Table: "email_requests", Key: id, Age: "created_at", Keep: tokenRetention},
		{Table: "second_factors", Key: []string{"user_id"}, Age: "created_at", Only: "t.confirmed_at IS NULL", Keep: tokenRetention},
		{Table: "invitations", Key: id, Age: "expires_at", Keep: recordRetention},
	}
}
