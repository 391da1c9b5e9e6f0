package authz

import (
	"context"
	"errors"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Grant makes the user a member of the store, in the transaction that
// creates the store or accepts the invitation.
func Grant(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID, role Role) error {
	return tx.ExecLater(ctx, `INSERT INTO store_members (store_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)`,
		store, user, string(role), tx.Now)
}

// LockOwners returns the store's owners and locks their rows until tx ends, so
// that concurrent changes of members run one after the other.
func LockOwners(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) ([]stoa.UserID, error) {
	var owners []stoa.UserID
	err := tx.Select(ctx, &owners, `
		SELECT user_id FROM store_members WHERE store_id = $1 AND role = 'owner' ORDER BY user_id`+tx.ForUpdate(), store)
	return owners, err
}

// SetRole changes a member's role. It reports whether the member exists.
func SetRole(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID, role Role) (bool, error) {
	n, err := tx.Exec(ctx, `UPDATE store_members SET role = $3 WHERE store_id = $1 AND user_id = $2`, store, user, string(role))
	return n > 0, err
}

// Withdraw ends a membership. It reports whether there was one.
func Withdraw(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM store_members WHERE store_id = $1 AND user_id = $2`, store, user)
	return n > 0, err
}

// Withdrawn is a membership that has ended.
type Withdrawn struct {
	StoreID stoa.StoreID
	UserID  stoa.UserID
	Role    Role
}

// WithdrawOthers ends the memberships of all others in the stores that the user
// owns.
func WithdrawOthers(ctx context.Context, tx *masterdb.Tx, owner stoa.UserID) ([]Withdrawn, error) {
	var out []Withdrawn
	err := tx.Select(ctx, &out, `
		DELETE FROM store_members WHERE user_id <> $1
			AND store_id IN (SELECT store_id FROM store_members WHERE user_id = $1 AND role = 'owner')
		RETURNING store_id, user_id, role`, owner)
	return out, err
}

// LockMemberships locks the user's memberships, and those of the owners of the same
// stores, until tx ends.
func LockMemberships(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) error {
	var locked []stoa.UserID
	return tx.Select(ctx, &locked, `
		SELECT user_id FROM store_members WHERE (user_id = $1 OR role = 'owner')
			AND store_id IN (SELECT store_id FROM store_members WHERE user_id = $1) ORDER BY store_id, user_id`+tx.ForUpdate(), user)
}

// WithdrawAll ends all memberships of a user.
func WithdrawAll(ctx context.Context, tx *masterdb.Tx, user stoa.UserID) ([]Withdrawn, error) {
	var out []Withdrawn
	err := tx.Select(ctx, &out, `DELETE FROM store_members WHERE user_id = $1 RETURNING store_id, user_id, role`, user)
	return out, err
}

// RoleOf returns the user's role in the store, "" if they are not a member.
func RoleOf(ctx context.Context, q masterdb.Querier, store stoa.StoreID, user stoa.UserID) (Role, error) {
	var role Role
	err := q.Get(ctx, &role, `SELECT role FROM store_members WHERE store_id = $1 AND user_id = $2`, store, user)
	if errors.Is(err, masterdb.ErrNotFound) {
		return "", nil
	}
	return role, err
}

// StoreMember is a member as other members see them.
type StoreMember struct {
	Person
	Role  Role
	Since time.Time `db:"created_at"`
}

// Members lists the store's members, the oldest membership first. It fails as
// Check does.
func Members(ctx context.Context, q masterdb.Handle, p Principal, store stoa.StoreID) ([]StoreMember, error) {
	if _, err := Check(ctx, q, p, store, ReadMembers); err != nil {
		return nil, err
	}
	var out []StoreMember
	err := q.Select(ctx, &out, `
		SELECT u.id AS user_id, u.email, u.first_name, u.last_name, m.role, m.created_at
		FROM store_members m JOIN users u ON u.id = m.user_id WHERE m.store_id = $1 ORDER BY m.created_at, m.user_id`, store)
	return out, err
}

// Membership is one store of a user.
type Membership struct {
	StoreID stoa.StoreID
	Role    Role
	Since   time.Time `db:"created_at"`
}

// Memberships lists the user's stores, newest first, without deleted ones.
func Memberships(ctx context.Context, q masterdb.Querier, user stoa.UserID) ([]Membership, error) {
	var out []Membership
	err := q.Select(ctx, &out, `
		SELECT m.store_id, m.role, m.created_at FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.user_id = $1 AND s.status <> 'deleted' ORDER BY m.store_id DESC`, user)
	return out, err
}

// Person is a user by name and address.
type Person struct {
	UserID    stoa.UserID
	Email     string
	FirstName string
	LastName  string
}

// OwnerOf returns the store's owner, the first of several. The address may not be verified.
func OwnerOf(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (Person, error) {
	var p Person
	err := q.Get(ctx, &p, `SELECT u.id AS user_id, u.email, u.first_name, u.last_name FROM store_members m JOIN users u ON u.id = m.user_id
		WHERE m.store_id = $1 AND m.role = 'owner' ORDER BY m.created_at, m.user_id LIMIT 1`, store)
	return p, err
}

const selectPerson = `
	SELECT u.id AS user_id, u.email, u.first_name, u.last_name
	FROM store_members m JOIN users u ON u.id = m.user_id JOIN stores s ON s.id = m.store_id
	WHERE m.store_id = $1 AND m.role = 'owner' AND s.status <> 'deleted' AND u.email_verified`

// Owners lists the store's owners with a verified address, the oldest
// membership first. An address that is not verified may be somebody else's.
func Owners(ctx context.Context, q masterdb.Querier, store stoa.StoreID) ([]Person, error) {
	var out []Person
	err := q.Select(ctx, &out, selectPerson+` ORDER BY m.created_at, m.user_id`, store)
	return out, err
}

// OwnerByID returns the user if they are an owner of the store with a verified
// address. Otherwise it fails with masterdb.ErrNotFound.
func OwnerByID(ctx context.Context, q masterdb.Querier, store stoa.StoreID, user stoa.UserID) (Person, error) {
	var p Person
	err := q.Get(ctx, &p, selectPerson+` AND m.user_id = $2`, store, user)
	return p, err
}
