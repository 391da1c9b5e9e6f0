// Package quotas limits how many things one user, or one store, may have on
// the platform. It holds the names and the limits. Each domain counts its own
// rows in the transaction that adds one, under the lock of LockUser or LockStore,
// so that a quota is exact under concurrent calls.
package quotas

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// These are the names of the quotas. They are part of the public API.
const (
	Stores           = "stores"            // of the user who created them
	StoresPerHour    = "stores_per_hour"   // created by one user, deleted ones included
	ManagedDatabases = "managed_databases" // in stores that one user created
	Hostnames        = "hostnames"         // custom ones of a store, verified or not
	APIKeys          = "api_keys"          // of a store
	Invitations      = "invitations"       // open ones of a store
	Members          = "members"           // of a store, with its open invitations
	ReleasedSlugs    = "released_slugs"    // former slugs that are reserved for a store
	PendingPurchases = "pending_purchases" // of a store
	Webhooks         = "webhooks"          // endpoints of a store
)

// Limits are the operator's settings. 0 is no limit.
type Limits struct {
	Stores           PerUser
	ManagedDatabases PerUser
	StoresPerHour    int
	Hostnames        int
	APIKeys          int
	Invitations      int
	Members          int
	Webhooks         int
}

// PerUser limits what one user may have before and after they have verified
// their e-mail address.
type PerUser struct{ Unverified, Verified int }

// User is a user with quotas.
type User struct {
	ID               stoa.UserID
	Verified         bool // whether the e-mail address is verified
	Operator         bool // an operator of the platform; no quota of a user applies
	Stores           *int // the limit set for this user alone; nil: the platform's limit
	ManagedDatabases *int // as Stores
}

// LockUser reads the user and locks their row until tx ends, so that concurrent
// calls that create something for one user run one after the other. Call it before
// a store's row is locked. It fails with session_revoked when the user does not
// exist. The queries are sent in the same round trip; they see what was committed before the
// lock was given.
func LockUser(ctx context.Context, tx *masterdb.Tx, id stoa.UserID, queries ...masterdb.Query) (User, error) {
	u, err := lockUser(ctx, tx, `id = $1 AND deleted_at IS NULL`, id, queries)
	if errors.Is(err, masterdb.ErrNotFound) {
		return u, stoa.Errorf(stoa.SessionRevoked, "This account does not exist any more.")
	}
	return u, err
}

// LockCreator is LockUser for the user who created the store, who may have deleted their
// account. It fails with store_not_found.
func LockCreator(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, queries ...masterdb.Query) (User, error) {
	u, err := lockUser(ctx, tx, `id = (SELECT created_by FROM stores WHERE id = $1)`, store, queries)
	if errors.Is(err, masterdb.ErrNotFound) {
		return u, errNoStore()
	}
	return u, err
}

func lockUser(ctx context.Context, tx *masterdb.Tx, condition string, arg any, queries []masterdb.Query) (User, error) {
	var u User
	err := tx.Batch(ctx, append([]masterdb.Query{masterdb.One(&u, `SELECT id, email_verified AS verified, role = 'admin' AS operator, quota_stores AS stores,
		quota_managed_databases AS managed_databases FROM users WHERE `+condition+tx.ForUpdate(), arg)}, queries...)...)
	return u, err
}

// LockStore locks the store's row until tx ends, for quotas of a store. It fails
// with store_not_found.
func LockStore(ctx context.Context, tx *masterdb.Tx, id stoa.StoreID) error {
	var locked stoa.StoreID
	err := tx.Get(ctx, &locked, `SELECT id FROM stores WHERE id = $1`+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return errNoStore()
	}
	return err
}

func errNoStore() error { return stoa.Errorf(stoa.StoreNotFound, "There is no such store.") }

// StoreLimit returns how many stores the user may have; 0 is no limit.
func (l Limits) StoreLimit(u User) int { return l.Stores.limit(u, u.Stores) }

// ManagedDatabaseLimit returns how many managed databases the user's stores
// may have; 0 is no limit.
func (l Limits) ManagedDatabaseLimit(u User) int {
	return l.ManagedDatabases.limit(u, u.ManagedDatabases)
}

// HourlyStoreLimit returns how many stores the user may create in an hour; 0
// is no limit.
func (l Limits) HourlyStoreLimit(u User) int {
	if u.Operator {
		return 0
	}
	return l.StoresPerHour
}

func (p PerUser) limit(u User, own *int) int {
	switch {
	case u.Operator:
		return 0
	case own != nil:
		return *own
	case u.Verified:
		return p.Verified
	}
	return p.Unverified
}

// Verification returns a sentence for the error that says what verifying the
// e-mail address would do for a user who has reached the limit, or "".
func (p PerUser) Verification(u User, own *int) string {
	switch {
	case u.Verified || own != nil || p.Verified == p.Unverified:
		return ""
	case p.Verified == 0:
		return "Verify the account's e-mail address to have more. "
	}
	return fmt.Sprintf("Verify the account's e-mail address to have up to %d. ", p.Verified)
}

// Exceeded reports whether one more than used is more than the limit allows.
func Exceeded(limit, used int) bool { return limit > 0 && used >= limit }

// Error returns quota_exceeded with the quota, its limit and its use; message
// says what to do.
func Error(name string, limit, used int, format string, args ...any) *stoa.Error {
	e := stoa.Errorf(stoa.QuotaExceeded, format, args...)
	e.Quota = &stoa.Quota{Name: name, Limit: limit, Used: used}
	return e
}

// RateError returns rate_limited for a quota that is available again after wait.
func RateError(name string, limit, used int, wait time.Duration, format string, args ...any) *stoa.Error {
	e := Error(name, limit, used, format, args...)
	e.Code, e.RetryAfter = stoa.RateLimited, wait
	return e
}
