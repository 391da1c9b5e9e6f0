package accounts

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
	"github.com/stoahq/stoa/internal/quotas"
)

// The functions of this file without a receiver are for the command line, whose user
// has access to the master database. They check no permission.

// ListUsers lists up to limit users, newest first, whose id is less than before;
// the zero id starts with the newest. A role of "" selects all.
func ListUsers(ctx context.Context, q masterdb.Querier, role string, before stoa.UserID, limit int) ([]User, error) {
	if before.IsZero() {
		before = page.LastID[stoa.UserID]()
	}
	var out []User
	err := q.Select(ctx, &out, `SELECT `+userColumns+` FROM users WHERE id < $1 AND deleted_at IS NULL AND ($2 = '' OR role = $2) ORDER BY id DESC LIMIT $3`, before, role, limit)
	return out, err
}

// SetPlatformRole makes the user with that address or id an operator of the
// platform ("admin") or an ordinary user ("user"). Removing the operator's role
// revokes their impersonations. It fails with not_found, and with email_unverified
// for an operator whose address is not verified. Setting the same role again
// changes nothing.
func SetPlatformRole(ctx context.Context, db *masterdb.DB, by authz.Principal, name, role string) (User, error) {
	var user User
	err := db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if user, err = lockUserByName(ctx, tx, name); err != nil || user.Role == role {
			return err
		}
		if role == "admin" && !user.EmailVerified {
			// The address may have been registered by another person.
			return stoa.Errorf(stoa.EmailUnverified, "%s has not been confirmed as the address of who registered it. Have it confirmed first.", user.Email)
		}
		if role == "admin" {
			if err := checkNotSuspended(ctx, tx, user.ID); err != nil {
				return err
			}
		}
		user.Role = role
		if _, err := tx.Exec(ctx, `UPDATE users SET role = $1, updated_at = $2 WHERE id = $3`, role, tx.Now, user.ID); err != nil {
			return err
		}
		action := audit.OperatorPromoted
		if role != "admin" {
			action = audit.OperatorDemoted
			_, err := tx.Exec(ctx, `UPDATE sessions SET revoked_at = $1 WHERE impersonator = $2 AND revoked_at IS NULL`, tx.Now, user.ID)
			if err != nil {
				return err
			}
		}
		return audit.Record(ctx, tx, by, audit.Event{Action: action, Details: map[string]string{"user": user.ID.String()}})
	})
	return user, err
}

// UserQuotas are the limits of one user, in place of the platform's: nil is the
// platform's limit, 0 is no limit.
type UserQuotas struct {
	Stores           *int
	ManagedDatabases *int
}

// SetQuotas sets the limits of the user with that address or id. What the user
// has already is kept. It fails with not_found.
func SetQuotas(ctx context.Context, db *masterdb.DB, by authz.Principal, name string, q UserQuotas) (User, error) {
	var user User
	err := db.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		if user, err = lockUserByName(ctx, tx, name); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `UPDATE users SET quota_stores = $1, quota_managed_databases = $2, updated_at = $3 WHERE id = $4`,
			q.Stores, q.ManagedDatabases, tx.Now, user.ID)
		if err != nil {
			return err
		}
		return audit.Record(ctx, tx, by, audit.Event{Action: audit.QuotasSet, Details: map[string]string{
			"user": user.ID.String(), quotas.Stores: limitText(q.Stores), quotas.ManagedDatabases: limitText(q.ManagedDatabases)}})
	})
	return user, err
}

// limitText returns a limit as the audit log shows it.
func limitText(limit *int) string {
	switch {
	case limit == nil:
		return "default"
	case *limit == 0:
		return "none"
	}
	return strconv.Itoa(*limit)
}

// lockUserByName reads a user by address or id and locks their row. It fails with
// not_found.
func lockUserByName(ctx context.Context, tx *masterdb.Tx, name string) (User, error) {
	id, _ := stoa.ParseID[stoa.UserID](name) // the zero id, which no user has, unless name is an id
	email, _ := storedEmail(name)
	var user User
	err := tx.Get(ctx, &user, `SELECT `+userColumns+` FROM users WHERE (email = $1 OR id = $2) AND deleted_at IS NULL`+tx.ForUpdate(), email, id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return User{}, stoa.Errorf(stoa.NotFound, "No user has the address or id %.100q.", name)
	}
	return user, err
}

// impersonation is the lifetime of an impersonation.
const impersonation = 15 * time.Minute

const maxReason = 500 // characters

// Impersonate opens a session in which an operator acts as another user. It
// expires after 15 minutes, cannot be refreshed, has the user's permissions and
// not the operator's, and cannot change the user's credentials. The reason is
// recorded in the audit log. It fails with forbidden unless the caller is an
// operator, and for a user who is one, and with email_unverified for a user whose
// address is not verified, and with account_suspended for a suspended user.
func (a *Accounts) Impersonate(ctx context.Context, p authz.Principal, user stoa.UserID, reason string, c Client) (Session, error) {
	if err := authz.CheckOperator(ctx, a.db, p, "impersonate"); err != nil {
		return Session{}, err
	}
	reason, err := checkReason(reason)
	if err != nil {
		return Session{}, err
	}
	var session Session
	err = a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		to, err := ReadUser(ctx, tx, user)
		if errors.Is(err, masterdb.ErrNotFound) {
			return stoa.Errorf(stoa.NotFound, "There is no such user.")
		}
		if err != nil {
			return err
		}
		if to.IsOperator() {
			return stoa.Errorf(stoa.Forbidden, "Nobody can act as an operator of the platform.")
		}
		if err := checkNotSuspended(ctx, tx, user); err != nil {
			return err
		}
		if !to.EmailVerified {
			return stoa.Errorf(stoa.EmailUnverified, "This user's address is not confirmed: nobody knows as whom you would act.")
		}
		if session, err = a.openImpersonation(ctx, tx, p, to, c); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.Impersonated,
			Details: map[string]string{"user": user.String(), "session": session.id.String(), "reason": reason}})
	})
	if err != nil {
		return Session{}, err
	}
	return session, nil
}

// checkReason returns the reason that an operator gives, without surrounding space.
func checkReason(reason string) (string, error) {
	reason = strings.TrimSpace(reason)
	var faults stoa.Invalid
	if n := utf8.RuneCountInString(reason); n < 10 || n > maxReason || sanitize(reason, 4*maxReason) != reason {
		faults.Add("reason", "must be 10 to %d characters on one line: others will read it", maxReason)
	}
	return reason, faults.Err()
}

func (a *Accounts) openImpersonation(ctx context.Context, tx *masterdb.Tx, p authz.Principal, to User, c Client) (Session, error) {
	id := stoa.NewID[stoa.SessionID]()
	_, err := tx.Exec(ctx, `
		INSERT INTO sessions (id, user_id, impersonator, user_agent, address, created_at, last_used_at, expires_at)
		VALUES ($1, $2, $3, $4, $5, $6, $6, $7)`,
		id, to.ID, p.UserID, sanitize(c.UserAgent, maxUserAgent), sanitize(c.Address, maxAddress), tx.Now, tx.Now.Add(impersonation))
	if err != nil {
		return Session{}, err
	}
	if c.Browser {
		return issueCookie(ctx, tx, id, to, impersonation, nil)
	}
	signed, err := a.tokens.sign(authz.Principal{UserID: to.ID, SessionID: id}, tx.Now)
	if err != nil {
		return Session{}, err
	}
	return Session{User: to, AccessToken: signed, ExpiresIn: min(impersonation, a.opts.AccessTTL), id: id}, nil
}
