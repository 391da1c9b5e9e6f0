package authz

import (
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
)

// Principal is the caller, as authenticated by an access token or API key. The
// zero Principal is the platform itself.
type Principal struct {
	UserID       stoa.UserID
	SessionID    stoa.SessionID // zero for an API key
	Key          Key            // zero unless the caller is an API key
	Impersonator stoa.UserID    // the operator who acts as this user; zero: none
	Browser      bool           // the session is a browser's
	// RecentlyAuthenticated: the user gave their password or second factor in this
	// browser's session in the last minutes.
	RecentlyAuthenticated bool
	Origin                audit.Origin
}

// Key is an API key. It acts for the user who made it, in one store, within
// its scopes.
type Key struct {
	ID      stoa.KeyID
	StoreID stoa.StoreID
	Scopes  string // separated by spaces
}

// Actor implements Subject.
func (p Principal) Actor() audit.Actor {
	return audit.Actor{UserID: p.UserID, KeyID: p.Key.ID, Impersonator: p.Impersonator, Origin: p.Origin}
}

// CommandLine returns the principal of one run of a command: an operator with
// access to the master database. It has no user.
func CommandLine(command string) Principal {
	return Principal{Origin: audit.Origin{RequestID: stoa.NewID[stoa.RequestID]().String(), Command: command}}
}

// IsKey reports whether the caller is an API key.
func (p Principal) IsKey() bool { return !p.Key.ID.IsZero() }

// Within fails when the caller's credential does not allow the action. For an
// API key it fails with store_not_found for another store than the key's, and
// with forbidden without the scope. For an operator who acts as a user it fails
// with forbidden for an action that outlasts the impersonation, and for a browser's
// session with reauthentication_required where the action needs it. Check calls it;
// users of MaySQL must call it themselves.
func (p Principal) Within(store stoa.StoreID, a Action) error {
	rule := ruleOf(a)
	if !p.Impersonator.IsZero() && !rule.Impersonated {
		return stoa.Errorf(stoa.Forbidden, "Only the user themselves may do this, not an operator acting as them.")
	}
	if rule.RecentAuthentication && p.Browser && !p.RecentlyAuthenticated {
		return ErrReauthenticate()
	}
	if !p.IsKey() {
		return nil
	}
	scope := rule.Scope
	switch {
	case store != p.Key.StoreID:
		return ErrStoreNotFound()
	case scope == "":
		return stoa.Errorf(stoa.Forbidden, "No API key may do this. Sign in.")
	case !slices.Contains(strings.Fields(p.Key.Scopes), string(scope)):
		return stoa.Errorf(stoa.Forbidden, "This API key lacks the scope %s. Make a key that has it.", scope)
	}
	return nil
}

// SignedIn fails with forbidden for an API key, which may only act on a store.
func (p Principal) SignedIn() error {
	if p.IsKey() {
		return stoa.Errorf(stoa.Forbidden, "No API key may do this. Sign in.")
	}
	return nil
}

// InPerson fails as SignedIn does, and also for an operator who acts as the user: only
// the user manages the credentials of an account.
func (p Principal) InPerson() error {
	if !p.Impersonator.IsZero() {
		return stoa.Errorf(stoa.Forbidden, "Only the user themselves may do this.")
	}
	return p.SignedIn()
}

// ErrReauthenticate returns the error for an action that needs a recent password or
// second factor.
func ErrReauthenticate() error {
	return stoa.Errorf(stoa.ReauthenticationRequired, "Confirm that it is you: enter your password or the code of your second factor again.")
}
