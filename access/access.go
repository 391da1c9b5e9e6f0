// Package access decides who may do what to which store, and keeps the log of
// who did. Every domain method that acts on a store calls Check first, so that
// the API, the console and the CLI cannot differ. It owns the tables
// store_members and audit_events.
package access

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Check returns the caller's role in the store. It fails with store_not_found
// when the caller is not a member, exactly as for a store that does not
// exist, and with forbidden when the role does not allow the action or, for an
// API key, its scopes do not.
//
// An operator of the platform has the role Operator where being a member does
// not suffice. That is written to the audit log here, so that no domain method
// can forget it. h is what it is written through: inside a transaction that
// transaction, outside the database.
func Check(ctx context.Context, h masterdb.Handle, p Principal, store stoa.StoreID, a Action) (Role, error) {
	if err := p.Within(store, a); err != nil {
		return "", err
	}
	var found struct {
		Role     Role
		Operator bool
	}
	err := h.Get(ctx, &found, `
		SELECT coalesce(m.role, '') AS role, u.role = 'admin' AS operator
		FROM stores s JOIN users u ON u.id = $2 LEFT JOIN store_members m ON m.store_id = s.id AND m.user_id = u.id
		WHERE s.id = $1 AND s.status <> 'deleted'`, store, p.UserID)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return "", err
	}
	operator := found.Operator && p.InPerson() == nil
	switch {
	case found.Role.Can(a):
		return found.Role, nil
	case operator && Operator.Can(a):
		return Operator, recordOperator(ctx, h, p, store, a)
	case found.Role == "" && !operator:
		return "", ErrStoreNotFound()
	case found.Role == "":
		return "", stoa.Errorf(stoa.Forbidden, "Operators of the platform may not do this to a store that is not theirs.")
	}
	return "", stoa.Errorf(stoa.Forbidden, "Your role in this store (%s) does not allow this. Ask an owner.", found.Role)
}

// CheckOperator fails with forbidden unless the caller is an operator of the
// platform, in person. What they look at is written to the audit log.
func CheckOperator(ctx context.Context, h masterdb.Handle, p Principal, what Action) error {
	if err := p.InPerson(); err != nil {
		return err
	}
	var role string
	err := h.Get(ctx, &role, `SELECT role FROM users WHERE id = $1`, p.UserID)
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return err
	}
	if role != "admin" {
		return stoa.Errorf(stoa.Forbidden, "Only operators of the platform may do this.")
	}
	return recordOperator(ctx, h, p, stoa.StoreID{}, what)
}

// MaySQL is Check as a condition of SQL, for a statement that has no time for
// a question before it: store and user are expressions of the statement. It
// knows members only: an API key must be Within first, and an operator is to
// be asked about by Check.
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

// ErrStoreNotFound is the one answer for a store that does not exist and for
// a store that is not the caller's.
func ErrStoreNotFound() error { return stoa.Errorf(stoa.StoreNotFound, "There is no such store.") }
