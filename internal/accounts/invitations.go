package accounts

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/quotas"
)

// Invitation is an invitation to join a store.
type Invitation struct {
	ID        stoa.InvitationID
	Email     string
	Role      authz.Role
	InvitedBy stoa.UserID
	CreatedAt time.Time
	ExpiresAt time.Time
}

// The limits of invitations, which are mails to people who have not requested them.
var (
	invitedBySender = mail.Allowance{Name: "invitation-sender", Burst: 20, Every: time.Hour / 20}
	invitedByStore  = mail.Allowance{Name: "invitation-store", Burst: 50, Every: 24 * time.Hour / 50}
	// invitedAgain limits mails from one store to one address, until the invitation is
	// accepted.
	invitedAgain = mail.Allowance{Name: "invitation-again", Burst: 3, Every: 7 * 24 * time.Hour}
	// invitedAddress limits mails from all stores to one address: at most 5 in a day.
	// It does not apply to an address that is a member of a store together with the
	// sender.
	invitedAddress = mail.Allowance{Name: "invitation-address", Burst: 4, Every: 24 * time.Hour}
)

// invitedInAll returns the limit for all users together.
func (a *Accounts) invitedInAll() mail.Allowance {
	n := a.opts.InvitationsPerHour
	return mail.Allowance{Name: "invitation-all", Burst: n, Every: time.Hour / time.Duration(max(n, 1))}
}

const (
	// maxPending is how many invitations of one sender may be open.
	maxPending    = 100
	selectInvited = `SELECT id, email, role, invited_by, created_at, expires_at FROM invitations`
	openCondition = ` AND accepted_at IS NULL AND revoked_at IS NULL`
)

// Invite creates an invitation and enqueues its mail. Inviting an address again
// renews the invitation with the given role and sends another mail, a minute
// after the last at the earliest (rate_limited). The number of mails is limited
// for the recipient, the sender, the store and all users together (rate_limited),
// the number of open invitations for the store (quota_exceeded). Only owners
// invite owners. It fails with email_unverified until the caller's address is
// verified.
func (a *Accounts) Invite(ctx context.Context, p authz.Principal, store stoa.StoreID, email string, role authz.Role) (Invitation, error) {
	if _, err := authz.Check(ctx, a.db, p, store, inviteAction(role)); err != nil {
		return Invitation{}, err
	}
	var faults stoa.Invalid
	email, fault := canonicalEmail(email)
	if fault != "" {
		faults.Add("email", "%s", fault)
	}
	if !slices.Contains(authz.Roles, role) {
		faults.Add("role", "must be one of %v", authz.Roles)
	}
	if err := faults.Err(); err != nil {
		return Invitation{}, err
	}
	i := Invitation{ID: stoa.NewID[stoa.InvitationID](), Email: email, Role: role, InvitedBy: p.UserID}
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		i.CreatedAt, i.ExpiresAt = tx.Now, tx.Now.Add(lifetimes[invitation])
		if err := authz.CheckVerified(ctx, tx, p); err != nil {
			return err
		}
		if err := a.checkInvited(ctx, tx, p, store, email); err != nil {
			return err
		}
		if err := a.upsertInvitation(ctx, tx, store, &i); err != nil {
			return err
		}
		if err := a.opts.Queue.Enqueue(ctx, tx, MailInvitation{InvitationID: i.ID}); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberInvited, Store: store,
			Details: map[string]string{"invitation": i.ID.String(), "email": email, "role": string(role)}})
	})
	if err != nil {
		return Invitation{}, err
	}
	return i, nil
}

// inviteAction returns the action that inviting somebody to a role requires.
func inviteAction(role authz.Role) authz.Action {
	if role == authz.Owner {
		return authz.ManageOwners
	}
	return authz.ManageMembers
}

// checkInvited fails when the address is a member's, was invited within the last
// minute, or exceeds a limit. Otherwise it counts the invitation.
func (a *Accounts) checkInvited(ctx context.Context, tx *masterdb.Tx, p authz.Principal, store stoa.StoreID, email string) error {
	var found struct{ Members, Recent, Shared int }
	err := tx.Get(ctx, &found, `
		SELECT
			(SELECT count(*) FROM store_members m JOIN users u ON u.id = m.user_id WHERE m.store_id = $1 AND u.email = $2) AS members,
			(SELECT count(*) FROM invitations WHERE store_id = $1 AND email = $2 AND sent_at > $3) AS recent,
			(SELECT count(*) FROM users u JOIN store_members guest ON guest.user_id = u.id JOIN store_members sender ON sender.store_id = guest.store_id
				WHERE u.email = $2 AND u.email_verified AND sender.user_id = $4) AS shared`,
		store, email, tx.Now.Add(-mailPause), p.UserID)
	switch {
	case err != nil:
		return err
	case found.Members > 0:
		var faults stoa.Invalid
		faults.Add("email", "belongs to a member already")
		return faults.Err()
	case found.Recent > 0:
		return errRateLimited(mailPause, "This address was invited a moment ago. Try again later.")
	}
	return a.takeAllowances(ctx, tx, p.UserID, store, email, found.Shared > 0)
}

// takeAllowances counts an invitation. It locks the sender's allowance first,
// which serialises the sender's calls, so that the count of open invitations is
// exact.
func (a *Accounts) takeAllowances(ctx context.Context, tx *masterdb.Tx, sender stoa.UserID, store stoa.StoreID, email string, acquainted bool) error {
	address := invitedAddress
	if acquainted {
		address.Burst = 0 // no limit
	}
	for _, limit := range []struct {
		mail.Allowance
		key, message string
	}{
		{Allowance: invitedBySender, key: sender.String(), message: "You have sent many invitations. Try again later."},
		{Allowance: invitedByStore, key: store.String(), message: "This store has sent many invitations. Try again later."},
		{Allowance: invitedAgain, key: againKey(store, email), message: "This address has been invited several times and has not answered. Try again later, or ask in another way."},
		{Allowance: address, key: email, message: "This address has been sent many invitations. Try again later."},
		{Allowance: a.invitedInAll(), key: "", message: "Many invitations are being sent. Try again later."},
	} {
		wait, err := limit.Take(ctx, tx, limit.key)
		if err != nil {
			return err
		}
		if wait > 0 {
			return errRateLimited(wait, limit.message)
		}
	}
	var pending int
	err := tx.Get(ctx, &pending, `SELECT count(*) FROM invitations WHERE invited_by = $1 AND expires_at > $2 AND NOT (store_id = $3 AND email = $4)`+openCondition,
		sender, tx.Now, store, email)
	if err == nil && pending >= maxPending {
		return errRateLimited(time.Hour, "Many of your invitations have not been answered. Take some back, or wait until they expire.")
	}
	return err
}

// againKey returns the key of invitedAgain.
func againKey(store stoa.StoreID, email string) string { return store.String() + " " + email }

// errRateLimited returns rate_limited with the time to wait.
func errRateLimited(wait time.Duration, message string) error {
	err := &stoa.Error{Code: stoa.RateLimited, Message: message}
	err.RetryAfter = wait
	return err
}

// upsertInvitation inserts the invitation, or renews the open one of the address.
func (a *Accounts) upsertInvitation(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID, i *Invitation) error {
	var open Invitation
	err := tx.Get(ctx, &open, selectInvited+` WHERE store_id = $1 AND email = $2`+openCondition+tx.ForUpdate(), store, i.Email)
	if errors.Is(err, masterdb.ErrNotFound) {
		if err := a.checkInvitations(ctx, tx, store); err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `
			INSERT INTO invitations (id, store_id, email, role, invited_by, created_at, sent_at, expires_at)
			VALUES ($1, $2, $3, $4, $5, $6, $6, $7) ON CONFLICT DO NOTHING`,
			i.ID, store, i.Email, string(i.Role), i.InvitedBy, tx.Now, i.ExpiresAt)
		if err == nil && n == 0 { // a concurrent call inserted it
			return errRateLimited(mailPause, "This address was invited a moment ago. Try again later.")
		}
		return err
	}
	if err != nil {
		return err
	}
	i.ID, i.CreatedAt = open.ID, open.CreatedAt
	_, err = tx.Exec(ctx, `UPDATE invitations SET role = $2, invited_by = $3, sent_at = $4, expires_at = $5 WHERE id = $1`,
		i.ID, string(i.Role), i.InvitedBy, tx.Now, i.ExpiresAt)
	if err != nil {
		return err
	}
	// Earlier tokens were sent for another role.
	_, err = tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $2 WHERE invitation_id = $1 AND spent_at IS NULL`, i.ID, tx.Now)
	return err
}

// checkInvitations fails with quota_exceeded when the store has reached its limit
// of open invitations, expired ones included, or of members. It locks the store until tx
// ends.
func (a *Accounts) checkInvitations(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if err := quotas.LockStore(ctx, tx, store); err != nil {
		return err
	}
	open, members, err := countPeople(ctx, tx, store)
	if err != nil {
		return err
	}
	used := open
	if limit := a.opts.Quotas.Invitations; quotas.Exceeded(limit, used) {
		return quotas.Error(quotas.Invitations, limit, used,
			"This store has %d open invitations, and %d are allowed. Take back one that is not needed; one that has expired counts until it is taken back.", used, limit)
	}
	used = open + members
	if limit := a.opts.Quotas.Members; quotas.Exceeded(limit, used) {
		return quotas.Error(quotas.Members, limit, used,
			"This store has %d members and %d open invitations, and %d are allowed together. Remove a member, or take back an invitation.", members, open, limit)
	}
	return nil
}

// checkMembers fails with quota_exceeded when the store has no room for another member,
// because the limit was lowered after the invitation. It locks the store until tx ends.
func (a *Accounts) checkMembers(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	if err := quotas.LockStore(ctx, tx, store); err != nil {
		return err
	}
	_, used, err := countPeople(ctx, tx, store)
	if err != nil {
		return err
	}
	if limit := a.opts.Quotas.Members; quotas.Exceeded(limit, used) {
		return quotas.Error(quotas.Members, limit, used, "This store has %d members, and %d are allowed. Ask who invited you to remove one.", used, limit)
	}
	return nil
}

// countPeople counts the store's open invitations, expired ones included, and its members.
func countPeople(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) (open, members int, err error) {
	var found struct{ Open, Members int }
	err = tx.Get(ctx, &found, `
		SELECT (SELECT count(*) FROM invitations WHERE store_id = $1`+openCondition+`) AS open,
			(SELECT count(*) FROM store_members WHERE store_id = $1) AS members`, store)
	return found.Open, found.Members, err
}

// Invitations lists the store's open invitations, newest first, expired ones
// included.
func (a *Accounts) Invitations(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]Invitation, error) {
	if _, err := authz.Check(ctx, a.db, p, store, authz.ManageMembers); err != nil {
		return nil, err
	}
	var out []Invitation
	err := a.db.Select(ctx, &out, selectInvited+` WHERE store_id = $1`+openCondition+` ORDER BY id DESC`, store)
	return out, err
}

// RevokeInvitation revokes an invitation. It fails with not_found when the store
// has no such open invitation.
func (a *Accounts) RevokeInvitation(ctx context.Context, p authz.Principal, store stoa.StoreID, id stoa.InvitationID) error {
	if _, err := authz.Check(ctx, a.db, p, store, authz.ManageMembers); err != nil {
		return err
	}
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		n, err := tx.Exec(ctx, `UPDATE invitations SET revoked_at = $1 WHERE id = $2 AND store_id = $3`+openCondition, tx.Now, id, store)
		if err != nil {
			return err
		}
		if n == 0 {
			return stoa.Errorf(stoa.NotFound, "There is no such invitation, or it is open no more.")
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.InvitationRevoked, Store: store, Details: map[string]string{"invitation": id.String()}})
	})
}

// AcceptInvitation makes the caller a member of the store of the invitation and
// returns that store. It verifies the caller's address, which must be the invited
// one: otherwise it fails with forbidden. A caller who is a member already keeps
// their role.
func (a *Accounts) AcceptInvitation(ctx context.Context, p authz.Principal, token keyring.Secret) (stoa.StoreID, error) {
	if err := p.InPerson(); err != nil {
		return stoa.StoreID{}, err
	}
	var store stoa.StoreID
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := lockToken(ctx, tx, invitation, token)
		if err != nil {
			return err
		}
		i, err := lockInvitation(ctx, tx, *t.InvitationID)
		if err != nil {
			return err
		}
		user, err := lockCaller(ctx, tx, p)
		if err != nil {
			return err
		}
		if user.Email != i.Email {
			return stoa.Errorf(stoa.Forbidden, "This invitation is for another address. Sign in with an account of the address it was sent to.")
		}
		store = i.StoreID
		return a.joinStore(ctx, tx, p, *t.InvitationID, i)
	})
	return store, err
}

// Offer is what the link of an invitation shows to whoever has it.
type Offer struct {
	Store     string // its name
	Email     string // the invited address
	Role      authz.Role
	ExpiresAt time.Time
}

// ReadOffer returns the invitation of a token, which stays unused. It fails with
// token_invalid and token_expired.
func (a *Accounts) ReadOffer(ctx context.Context, token keyring.Secret) (Offer, error) {
	var offer Offer
	err := a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err := lockToken(ctx, tx, invitation, token)
		if err != nil {
			return err
		}
		err = tx.Get(ctx, &offer, `
			SELECT s.name AS store, i.email, i.role, i.expires_at FROM invitations i JOIN stores s ON s.id = i.store_id
			WHERE i.id = $1 AND i.accepted_at IS NULL AND i.revoked_at IS NULL AND s.status <> 'deleted'`, t.InvitationID)
		if errors.Is(err, masterdb.ErrNotFound) {
			return errInvitationTakenBack()
		}
		return err
	})
	return offer, err
}

// invited is an open invitation.
type invited struct {
	StoreID   stoa.StoreID
	Email     string
	Role      authz.Role
	InvitedBy stoa.UserID
}

// lockInvitation reads an open invitation and locks its row.
func lockInvitation(ctx context.Context, tx *masterdb.Tx, id stoa.InvitationID) (invited, error) {
	var i invited
	err := tx.Get(ctx, &i, `SELECT store_id, email, role, invited_by FROM invitations WHERE id = $1`+openCondition+tx.ForUpdate(), id)
	if errors.Is(err, masterdb.ErrNotFound) {
		return i, errInvitationTakenBack()
	}
	return i, err
}

func errInvitationTakenBack() error {
	return stoa.Errorf(stoa.TokenInvalid, "This invitation was taken back. Ask for another one.")
}

// checkInviter fails with token_invalid when the inviter may no longer invite.
func checkInviter(ctx context.Context, tx *masterdb.Tx, i invited) error {
	_, err := authz.Check(ctx, tx, authz.Principal{UserID: i.InvitedBy}, i.StoreID, inviteAction(i.Role))
	if code := stoa.CodeOf(err); code == stoa.Forbidden || code == stoa.StoreNotFound {
		return stoa.Errorf(stoa.TokenInvalid, "Who invited you may not do so any more. Ask for another invitation.")
	}
	return err
}

// joinStore accepts the invitation for p.
func (a *Accounts) joinStore(ctx context.Context, tx *masterdb.Tx, p authz.Principal, id stoa.InvitationID, i invited) error {
	if err := checkInviter(ctx, tx, i); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE invitations SET accepted_at = $1 WHERE id = $2`, tx.Now, id); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE one_time_tokens SET spent_at = $1 WHERE invitation_id = $2 AND spent_at IS NULL`, tx.Now, id); err != nil {
		return err
	}
	if err := confirmEmail(ctx, tx, p); err != nil {
		return err
	}
	if err := invitedAgain.Forget(ctx, tx, againKey(i.StoreID, i.Email)); err != nil {
		return err
	}
	role, err := authz.RoleOf(ctx, tx, i.StoreID, p.UserID)
	if err != nil || role != "" {
		return err
	}
	if err := a.checkMembers(ctx, tx, i.StoreID); err != nil {
		return err
	}
	if err := authz.Grant(ctx, tx, i.StoreID, p.UserID, i.Role); err != nil {
		return err
	}
	return audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberJoined, Store: i.StoreID, Details: map[string]string{"role": string(i.Role)}})
}
