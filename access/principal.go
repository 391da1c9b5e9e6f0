package access

import (
	"slices"
	"strings"

	"github.com/stoahq/stoa"
)

// Principal is who is asking, as proven by their access token or API key.
type Principal struct {
	UserID       stoa.UserID
	SessionID    stoa.SessionID // zero for an API key
	Key          Key            // zero unless an API key asks
	Impersonator stoa.UserID    // the operator who acts as this user; zero: nobody does
	Origin       Origin
}

// Key is an API key. It acts for the user who made it, in one store, within
// its scopes.
type Key struct {
	ID      stoa.KeyID
	StoreID stoa.StoreID
	Scopes  string // separated by spaces
}

// Origin is where a request comes from, for the audit log.
type Origin struct {
	Address   string
	RequestID string // the platform's own id of the request or of the command's run
	// ClientRequestID is what a trusted proxy named the request. It only helps to
	// find the request in the proxy's log; nothing is decided by it.
	ClientRequestID string
	Command         string // of the command line, such as "stores suspend"; empty for a request
}

// CommandLine returns the principal of one run of a command: an operator who
// may open the master database. It has no user.
func CommandLine(command string) Principal {
	return Principal{Origin: Origin{RequestID: stoa.NewID[stoa.RequestID]().String(), Command: command}}
}

// IsKey reports whether an API key asks.
func (p Principal) IsKey() bool { return !p.Key.ID.IsZero() }

// Within fails when the caller's way in does not reach that far. An API key
// fails with store_not_found for another store than its own, with forbidden
// without the scope; an operator who acts as a user with forbidden for what
// would outlive their visit. Check calls it; who asks by MaySQL must do so too.
func (p Principal) Within(store stoa.StoreID, a Action) error {
	rule := ruleOf(a)
	if !p.Impersonator.IsZero() && !rule.Impersonated {
		return stoa.Errorf(stoa.Forbidden, "Only the user themselves may do this, not an operator acting as them.")
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

// SignedIn fails with forbidden for an API key: what a person does for
// themselves, or to no store, is none of its business.
func (p Principal) SignedIn() error {
	if p.IsKey() {
		return stoa.Errorf(stoa.Forbidden, "No API key may do this. Sign in.")
	}
	return nil
}

// InPerson is SignedIn, and fails too for an operator who acts as the user: an
// account's keys to itself are not lent.
func (p Principal) InPerson() error {
	if !p.Impersonator.IsZero() {
		return stoa.Errorf(stoa.Forbidden, "Only the user themselves may do this.")
	}
	return p.SignedIn()
}
