// Package access decides who may do what to which store. Every domain method
// that acts on a store calls Check first, so that the API, the console and
// the CLI cannot differ. It owns the store_members table.
package access

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Principal is who is asking, as proven by their access token.
type Principal struct {
	UserID    stoa.UserID
	SessionID stoa.SessionID
}

// Role is what a member is to a store.
type Role string

// The roles, from most to least powerful.
const (
	Owner  Role = "owner"
	Admin  Role = "admin"
	Member Role = "member"
	Viewer Role = "viewer"
)

// Action is something that can be done to a store.
type Action string

// The actions that are checked.
const (
	ReadStore         Action = "store:read"
	UpdateStore       Action = "store:update"
	ManageHostnames   Action = "hostnames:manage"
	ConnectDatabase   Action = "database:connect"
	TestDatabase      Action = "database:test"
	RotateCredentials Action = "database:rotate"
	SuspendStore      Action = "store:suspend" // and resume it
	DeleteStore       Action = "store:delete"  // and restore it
	ReadCredits       Action = "credits:read"
	SpendCredits      Action = "credits:spend"
	PurchaseCredits   Action = "credits:purchase"
)

// allowed is the one table of who may do what.
var allowed = map[Action][]Role{
	ReadStore:         {Owner, Admin, Member, Viewer},
	UpdateStore:       {Owner, Admin, Member},
	ManageHostnames:   {Owner, Admin},
	ConnectDatabase:   {Owner, Admin},
	TestDatabase:      {Owner, Admin}, // it makes the platform connect to an address of the caller's choice
	RotateCredentials: {Owner, Admin},
	SuspendStore:      {Owner, Admin},
	DeleteStore:       {Owner},
	ReadCredits:       {Owner, Admin, Member, Viewer},
	SpendCredits:      {Owner, Admin, Member},
	PurchaseCredits:   {Owner, Admin},
}

// Can reports whether a role may do an action.
func (r Role) Can(a Action) bool { return slices.Contains(allowed[a], r) }

// Check returns the caller's role in the store. It fails with store_not_found
// when the caller is not a member, exactly as for a store that does not
// exist, and with forbidden when the role does not allow the action.
func Check(ctx context.Context, q masterdb.Querier, p Principal, store stoa.StoreID, a Action) (Role, error) {
	var role Role
	err := q.Get(ctx, &role, `
		SELECT m.role FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.store_id = $1 AND m.user_id = $2 AND s.status <> 'deleted'`, store, p.UserID)
	if errors.Is(err, masterdb.ErrNotFound) {
		return "", ErrStoreNotFound()
	}
	if err != nil {
		return "", err
	}
	if !role.Can(a) {
		return "", stoa.Errorf(stoa.Forbidden, "Your role in this store (%s) does not allow this. Ask an owner.", role)
	}
	return role, nil
}

// MaySQL is Check as a condition of SQL, for a statement that has no time for
// a question before it: store and user are expressions of the statement.
func MaySQL(a Action, store, user string) string {
	roles := make([]string, len(allowed[a]))
	for i, role := range allowed[a] {
		roles[i] = "'" + string(role) + "'"
	}
	return `EXISTS (SELECT 1 FROM store_members m JOIN stores s ON s.id = m.store_id WHERE m.store_id = ` + store +
		` AND m.user_id = ` + user + ` AND m.role IN (` + strings.Join(roles, ", ") + `) AND s.status <> 'deleted')`
}

// ErrStoreNotFound is the one answer for a store that does not exist and for
// a store that is not the caller's.
func ErrStoreNotFound() error { return stoa.Errorf(stoa.StoreNotFound, "There is no such store.") }

// Grant makes the user a member of the store, in the transaction that
// creates the store or accepts the invitation.
func Grant(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, user stoa.UserID, role Role) error {
	_, err := tx.Exec(ctx, `INSERT INTO store_members (store_id, user_id, role, created_at) VALUES ($1, $2, $3, $4)`,
		store, user, string(role), tx.Now)
	return err
}

// Membership is one store of a user.
type Membership struct {
	StoreID stoa.StoreID
	Role    Role
	Since   time.Time `db:"created_at"`
}

// Memberships lists the user's stores, newest first, deleted ones left out.
func Memberships(ctx context.Context, q masterdb.Querier, user stoa.UserID) ([]Membership, error) {
	var out []Membership
	err := q.Select(ctx, &out, `
		SELECT m.store_id, m.role, m.created_at FROM store_members m JOIN stores s ON s.id = m.store_id
		WHERE m.user_id = $1 AND s.status <> 'deleted' ORDER BY m.store_id DESC`, user)
	return out, err
}

// OwnerOf returns the store's owner; of several, the first.
func OwnerOf(ctx context.Context, q masterdb.Querier, store stoa.StoreID) (stoa.UserID, error) {
	var id stoa.UserID
	err := q.Get(ctx, &id, `SELECT user_id FROM store_members WHERE store_id = $1 AND role = 'owner'
		ORDER BY created_at, user_id LIMIT 1`, store)
	return id, err
}

// Person is a member whom the platform writes to.
type Person struct {
	UserID    stoa.UserID
	Email     string
	FirstName string
	LastName  string
}

const selectPerson = `
	SELECT u.id AS user_id, u.email, u.first_name, u.last_name
	FROM store_members m JOIN users u ON u.id = m.user_id JOIN stores s ON s.id = m.store_id
	WHERE m.store_id = $1 AND m.role = 'owner' AND s.status <> 'deleted'`

// Owners lists the store's owners, the first one first.
func Owners(ctx context.Context, q masterdb.Querier, store stoa.StoreID) ([]Person, error) {
	var out []Person
	err := q.Select(ctx, &out, selectPerson+` ORDER BY m.created_at, m.user_id`, store)
	return out, err
}

// OwnerByID returns the user, who owns the store. For anybody who does not, or
// not any more, it fails with masterdb.ErrNotFound.
func OwnerByID(ctx context.Context, q masterdb.Querier, store stoa.StoreID, user stoa.UserID) (Person, error) {
	var p Person
	err := q.Get(ctx, &p, selectPerson+` AND m.user_id = $2`, store, user)
	return p, err
}
