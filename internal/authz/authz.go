// Package authz decides who may do what to which store. Every domain method
// that acts on a store calls Check first, so that the API, the console and the
// CLI apply the same rules. It owns the table store_members.
package authz

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Check returns the caller's role in the store. It fails with store_not_found when the
// caller is not a member, exactly as for a store that does not exist, and with
// forbidden when the role or, for an API key, its scopes do not allow the action. It
// fails with account_suspended for a suspended user.
//
// An operator of the platform has the role Operator where their membership does not
// suffice. Check records that access in the audit log, so that no domain method can
// omit it. It writes through h: if h is a transaction, in that transaction.
func Check(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, a Action) (Role, error) {
	return CheckWith(ctx, h, p, store, a)
}

// CheckWith is Check, and sends the queries in the same round trip. What they have found
// must not be used when it fails. If the caller has the right and a query has found no row,
// it returns the role and masterdb.ErrNotFound.
func CheckWith(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, a Action, queries ...masterdb.Query) (Role, error) {
	if err := p.Within(store, a); err != nil {
		return "", err
	}
	var rows []access
	missing := h.Batch(ctx, append([]masterdb.Query{masterdb.All(&rows, `SELECT `+accessColumns+`
		FROM stores s JOIN users u ON u.id = $2 LEFT JOIN store_members m ON m.store_id = s.id AND m.user_id = u.id
		WHERE s.id = $1 AND s.status <> 'deleted'`, store, p.UserID)}, queries...)...)
	if missing != nil && !errors.Is(missing, masterdb.ErrNotFound) {
		return "", missing
	}
	var found access // zero when the store or the user does not exist
	if len(rows) > 0 {
		found = rows[0]
	}
	role, err := found.check(ctx, h, p, store, a)
	if err != nil {
		return "", err
	}
	return role, missing
}

// access is what a user is to a store.
type access struct {
	Role      Role
	Operator  bool
	Suspended bool
}

// accessColumns are the columns of an access: of the user u, whose membership of the store is m.
const accessColumns = `coalesce(m.role, '') AS role, u.role = 'admin' AS operator, u.suspended_at IS NOT NULL AS suspended`

func (found access) check(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, a Action) (Role, error) {
	operator := found.Operator && p.InPerson() == nil
	switch {
	case found.Suspended:
		return "", ErrAccountSuspended()
	case found.Role.Can(a):
		return found.Role, nil
	case operator && Operator.Can(a):
		return Operator, h.Within(ctx, func(tx *masterdb.Tx) error {
			return audit.RecordOperator(ctx, tx, p, store, string(a), `true`)
		})
	case found.Role == "" && !operator:
		return "", ErrStoreNotFound()
	case found.Role == "":
		return "", stoa.Errorf(stoa.Forbidden, "Operators of the platform may not do this to a store that is not theirs.")
	}
	return "", stoa.Errorf(stoa.Forbidden, "Your role in this store (%s) does not allow this. Ask an owner.", found.Role)
}

// CheckOperator fails with forbidden unless the caller is an operator of the
// platform, in person. It records the access in the audit log.
func CheckOperator(ctx context.Context, h masterdb.Handle, p Principal, a Action) error {
	return CheckOperatorWith(ctx, h, p, a)
}

// CheckOperatorWith is CheckOperator, and sends the queries, each an All, in the same round
// trip. What they have found must not be used when it fails.
func CheckOperatorWith(ctx context.Context, h masterdb.Handle, p Principal, a Action, queries ...masterdb.Query) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	const isOperator = `role = 'admin' AND suspended_at IS NULL`
	var operators []int
	err := h.Within(ctx, func(tx *masterdb.Tx) error {
		operators = nil
		if err := audit.RecordOperator(ctx, tx, p, stoa.StoreID{}, string(a), `EXISTS (SELECT 1 FROM users WHERE id = $2 AND `+isOperator+`)`); err != nil {
			return err
		}
		who := masterdb.All(&operators, `SELECT 1 FROM users WHERE id = $1 AND `+isOperator, p.UserID)
		return tx.ReadLater(ctx, append([]masterdb.Query{who}, queries...)...)
	})
	if err == nil && len(operators) == 0 {
		err = stoa.Errorf(stoa.Forbidden, "Only operators of the platform may do this.")
	}
	return err
}

// CheckVerified fails with email_unverified unless the caller's address is
// verified, and with session_revoked when their session has ended since the
// request began. It locks the user's row until tx ends, so that a concurrent
// verification is ordered before or after tx.
func CheckVerified(ctx context.Context, tx *masterdb.Tx, p Principal) error {
	var user struct{ Verified, Suspended bool }
	err := tx.Get(ctx, &user, `UPDATE users SET updated_at = updated_at WHERE id = $1 AND deleted_at IS NULL
		RETURNING email_verified AS verified, suspended_at IS NOT NULL AS suspended`, p.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return ErrSessionRevoked()
	}
	if err != nil {
		return err
	}
	if user.Suspended {
		return ErrAccountSuspended()
	}
	if !user.Verified {
		return stoa.Errorf(stoa.EmailUnverified, "Confirm your e-mail address first, with the link that was sent to it. Ask for another mail if it is lost.")
	}
	var open int
	err = tx.Get(ctx, &open, `SELECT count(*) FROM sessions WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL`, p.SessionID, p.UserID)
	if err == nil && open == 0 {
		return ErrSessionRevoked()
	}
	return err
}

// MaySQL returns Check as an SQL condition, for a statement that cannot afford
// a query before it; store and user are expressions of the statement. The
// condition covers members only: the caller applies Within to an API key and
// Check to an operator.
func MaySQL(a Action, store, user string) string {
	var roles []string
	for _, role := range Roles {
		if slices.Contains(ruleOf(a).Roles, role) {
			roles = append(roles, "'"+string(role)+"'")
		}
	}
	return `EXISTS (SELECT 1 FROM store_members m JOIN stores s ON s.id = m.store_id WHERE m.store_id = ` + store +
		` AND m.user_id = ` + user + ` AND m.role IN (` + strings.Join(roles, ", ") + `) AND s.status <> 'deleted')`
}

// ErrStoreNotFound returns the error for a store that does not exist and for
// one that is not the caller's: a caller cannot tell them apart.
func ErrStoreNotFound() error { return stoa.Errorf(stoa.StoreNotFound, "There is no such store.") }

// ErrAccountSuspended returns the error for a user whom an operator has suspended.
func ErrAccountSuspended() error {
	return stoa.Errorf(stoa.AccountSuspended, "This account is suspended. The reason was sent to its e-mail address; write to the operator of the platform.")
}

// ErrSessionRevoked returns the error for a session that has ended.
func ErrSessionRevoked() error {
	return stoa.Errorf(stoa.SessionRevoked, "This session has ended. Sign in again.")
}
