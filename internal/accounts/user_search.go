package accounts

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/page"
)

// UserSummary is a user as operators see them in a list.
type UserSummary struct {
	User
	SuspendedAt      *time.Time // nil: not suspended
	SuspensionReason string
}

// summaryColumns are the columns of UserSummary of the table users u.
const summaryColumns = "u.id, u.email, u.first_name, u.last_name, u.role, u.email_verified, u.created_at, u.suspended_at, u.suspension_reason"

// The kinds of users that UserFilter selects.
const (
	OnlyOperators = "operators"
	OnlySuspended = "suspended"
)

// UserFilter selects users. A zero field selects all.
type UserFilter struct {
	// Search is an id or the beginning of an e-mail address. The result of a search
	// by address is sorted by address; all others are sorted newest first.
	Search string
	Only   string // OnlyOperators, OnlySuspended or ""; not combined with Search
	Limit  int    // 1 to page.MaxLimit; 0 is page.DefaultLimit
	Cursor string // NextCursor of the page before
}

// UserPage is a page of users.
type UserPage struct {
	Users      []UserSummary
	NextCursor *string // nil on the last page
}

const maxSearch = 254 // characters: those of an e-mail address

// SearchUsers lists users, for operators of the platform. It fails with forbidden and
// with invalid_request.
func (a *Accounts) SearchUsers(ctx context.Context, p authz.Principal, f UserFilter) (UserPage, error) {
	if err := authz.CheckOperator(ctx, a.db, p, "users:read"); err != nil {
		return UserPage{}, err
	}
	f.Search = strings.TrimSpace(f.Search)
	var faults stoa.Invalid
	if len(f.Search) > maxSearch || sanitize(f.Search, maxSearch) != f.Search {
		faults.Add("search", "must be an id, or the first characters of an e-mail address")
	}
	if f.Only != "" && f.Only != OnlyOperators && f.Only != OnlySuspended {
		faults.Add("only", "must be %s or %s", OnlyOperators, OnlySuspended)
	}
	id, err := stoa.ParseID[stoa.UserID](f.Search)
	switch {
	case f.Search == "":
		return a.listUsers(ctx, f, &faults)
	case err == nil:
		return a.findUserByID(ctx, id, &faults)
	}
	return a.findUsersByEmail(ctx, f, &faults)
}

// listUsers lists all users, or all of one kind, newest first.
func (a *Accounts) listUsers(ctx context.Context, f UserFilter, faults *stoa.Invalid) (UserPage, error) {
	bounds := page.ByID[stoa.UserID](f.Limit, f.Cursor, faults)
	if err := faults.Err(); err != nil {
		return UserPage{}, err
	}
	where := map[string]string{"": "", OnlyOperators: ` AND u.role = 'admin'`, OnlySuspended: ` AND u.suspended_at IS NOT NULL`}[f.Only]
	var rows []UserSummary
	err := a.db.Select(ctx, &rows, `SELECT `+summaryColumns+` FROM users u WHERE u.id < $1 AND u.deleted_at IS NULL`+where+` ORDER BY u.id DESC LIMIT $2`,
		bounds.Before, bounds.Rows())
	if err != nil {
		return UserPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(u UserSummary) string { return u.ID.String() })
	return UserPage{Users: rows, NextCursor: next}, nil
}

func (a *Accounts) findUserByID(ctx context.Context, id stoa.UserID, faults *stoa.Invalid) (UserPage, error) {
	if err := faults.Err(); err != nil {
		return UserPage{}, err
	}
	var rows []UserSummary
	err := a.db.Select(ctx, &rows, `SELECT `+summaryColumns+` FROM users u WHERE u.id = $1 AND u.deleted_at IS NULL`, id)
	return UserPage{Users: rows}, err
}

// findUsersByEmail finds users by the beginning of their address, on an index. The
// cursor is the last address.
func (a *Accounts) findUsersByEmail(ctx context.Context, f UserFilter, faults *stoa.Invalid) (UserPage, error) {
	bounds := page.ByID[stoa.UserID](f.Limit, "", faults)
	prefix := strings.ToLower(f.Search)
	after, err := base64.RawURLEncoding.Strict().DecodeString(f.Cursor)
	if err != nil || len(after) > maxSearch || sanitize(string(after), maxSearch) != string(after) {
		faults.Add("cursor", "is not the nextCursor of a page")
	}
	if err := faults.Err(); err != nil {
		return UserPage{}, err
	}
	email := "u.email"
	if a.db.Engine == masterdb.Postgres {
		email += ` COLLATE "C"` // the order of SQLite, and of the index
	}
	var rows []UserSummary
	err = a.db.Select(ctx, &rows, `SELECT `+summaryColumns+` FROM users u
		WHERE `+email+` >= $1 AND `+email+` < $2 AND `+email+` > $3 AND u.deleted_at IS NULL ORDER BY `+email+` LIMIT $4`,
		prefix, prefix+"\U0010FFFF", string(after), bounds.Rows())
	if err != nil {
		return UserPage{}, err
	}
	rows, next := page.Cut(rows, bounds.Limit, func(u UserSummary) string { return base64.RawURLEncoding.EncodeToString([]byte(u.Email)) })
	return UserPage{Users: rows, NextCursor: next}, nil
}

// UserDetails is a user as operators see them.
type UserDetails struct {
	UserSummary
	SuspendedBy  *string // the operator's address
	SecondFactor bool    // of an app, or a passkey
	Sessions     int     // that are open
	LastUsedAt   *time.Time
	Stores       []UserStore `db:"-"` // the newest ones, maxUserStores at most
}

// UserStore is a store of a user.
type UserStore struct {
	Slug, Name, Status string
	Role               authz.Role
	Since              time.Time
}

const maxUserStores = 100

// UserForOperator returns a user, for operators of the platform. It fails with forbidden
// and with not_found.
func (a *Accounts) UserForOperator(ctx context.Context, p authz.Principal, id stoa.UserID) (UserDetails, error) {
	if err := authz.CheckOperator(ctx, a.db, p, "users:read"); err != nil {
		return UserDetails{}, err
	}
	var u UserDetails
	err := a.db.Get(ctx, &u, `SELECT `+summaryColumns+`, (SELECT o.email FROM users o WHERE o.id = u.suspended_by) AS suspended_by,
			EXISTS (SELECT 1 FROM second_factors f WHERE f.user_id = u.id AND f.confirmed_at IS NOT NULL)
				OR EXISTS (SELECT 1 FROM passkeys k WHERE k.user_id = u.id) AS second_factor,
			(SELECT count(*) FROM sessions s WHERE s.user_id = u.id AND s.revoked_at IS NULL AND s.expires_at > $2 AND s.impersonator IS NULL) AS sessions
		FROM users u WHERE u.id = $1 AND u.deleted_at IS NULL`, id, a.db.Now())
	if errors.Is(err, masterdb.ErrNotFound) {
		return UserDetails{}, errNoUser()
	}
	if err != nil {
		return UserDetails{}, err
	}
	var last []struct{ LastUsedAt time.Time }
	err = a.db.Select(ctx, &last, `SELECT last_used_at FROM sessions WHERE user_id = $1 AND impersonator IS NULL ORDER BY last_used_at DESC LIMIT 1`, id)
	if err != nil {
		return UserDetails{}, err
	}
	if len(last) > 0 {
		u.LastUsedAt = &last[0].LastUsedAt
	}
	err = a.db.Select(ctx, &u.Stores, `
		SELECT s.slug, s.name, s.status, m.role, m.created_at AS since FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.user_id = $1 AND s.status <> 'deleted' ORDER BY m.store_id DESC LIMIT $2`, id, maxUserStores)
	return u, err
}
