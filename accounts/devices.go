package accounts

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/mail"
	"github.com/stoahq/stoa/masterdb"
)

// Device is an open session as its owner sees it.
type Device struct {
	ID           stoa.SessionID
	UserAgent    string // as it was at the last use
	Address      string // likewise
	CreatedAt    time.Time
	LastUsedAt   time.Time // the last refresh: up to the life of an access token ago
	ExpiresAt    time.Time
	Current      bool // the one that asks
	Impersonated bool // an operator acts as the user
}

// maxDevices bounds the list; the oldest are left out.
const maxDevices = 100

// Sessions lists the caller's open sessions, those used last first, at most
// 100.
func (a *Accounts) Sessions(ctx context.Context, p access.Principal) ([]Device, error) {
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

// EndSession ends one of the caller's sessions, which may be the one that
// asks. It fails with not_found for any other.
func (a *Accounts) EndSession(ctx context.Context, p access.Principal, id stoa.SessionID) error {
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
		return access.Record(ctx, tx, p, access.Event{Action: access.SessionRevoked, Details: map[string]string{"session": id.String()}})
	})
}

// EndOtherSessions ends all of the caller's sessions but the one that asks.
func (a *Accounts) EndOtherSessions(ctx context.Context, p access.Principal) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := revokeOthers(ctx, tx, p.UserID, p.SessionID); err != nil {
			return err
		}
		return access.Record(ctx, tx, p, access.Event{Action: access.SessionRevoked, Details: map[string]string{"session": "all others"}})
	})
}

// revokeOthers ends the user's sessions, but the kept one: the zero id keeps
// none.
func revokeOthers(ctx context.Context, tx *masterdb.Tx, user stoa.UserID, kept stoa.SessionID) error {
	_, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE user_id = $2 AND id <> $3 AND revoked_at IS NULL`, tx.Now, user, kept)
	return err
}

// Purge is the job by which earlier releases removed what has run out. What
// they have enqueued is still carried out.
type Purge struct{}

// Kind implements jobs.Args.
func (Purge) Kind() string { return "accounts.purge" }

// PurgeTimeout bounds one run.
const PurgeTimeout = 10 * time.Minute

// kept is how long what has run out still gets an answer of its own, keptRecords
// how long invitations and API keys that have ended are kept.
const (
	kept        = 7 * 24 * time.Hour
	keptRecords = 90 * 24 * time.Hour
)

// PurgeExpired runs the job.
func (a *Accounts) PurgeExpired(ctx context.Context, _ Purge) error {
	_, err := a.db.DeleteExpired(ctx, Expiries(a.opts.RefreshTTL))
	return errors.Join(err, mail.PurgeAllowances(ctx, a.db))
}

// Expiries are the rules by which rows of this package's tables are deleted,
// given how long a session lives after its last refresh. Of a session that goes
// on, tokens go that were spent so long ago that the session would not have
// outlived them: a thief of one gets token_invalid. A session waits until its
// spent tokens are gone: no batch is to take thousands with it.
func Expiries(refreshTTL time.Duration) []masterdb.Expiry {
	id, hash := []string{"id"}, []string{"hash"}
	return []masterdb.Expiry{
		{Table: "refresh_tokens", Key: hash, Age: "spent_at", Keep: refreshTTL},
		{Table: "sessions", Key: id, Age: "expires_at", Keep: kept,
			Only: "NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.session_id = t.id AND r.spent_at IS NOT NULL)"},
		{Table: "one_time_tokens", Key: hash, Age: "expires_at", Keep: kept},
		{Table: "email_requests", Key: id, Age: "created_at", Keep: kept},
		{Table: "second_factors", Key: []string{"user_id"}, Age: "created_at", Only: "t.confirmed_at IS NULL", Keep: kept},
		{Table: "invitations", Key: id, Age: "expires_at", Keep: keptRecords},
		{Table: "api_keys", Key: id, Age: "revoked_at", Keep: keptRecords},
		{Table: "api_keys", Key: id, Age: "expires_at", Keep: keptRecords},
	}
}
