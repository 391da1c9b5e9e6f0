package accounts

import (
	"context"
	"slices"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Members lists the store's members, as authz.Members does.
func (a *Accounts) Members(ctx context.Context, p authz.Principal, store stoa.StoreID) ([]authz.StoreMember, error) {
	return authz.Members(ctx, a.db, p, store)
}

// ChangeRole changes the role of a member. It fails with forbidden when somebody
// who is not an owner adds or removes an owner, and when no owner would be left;
// with not_found when the user is not a member.
func (a *Accounts) ChangeRole(ctx context.Context, p authz.Principal, store stoa.StoreID, user stoa.UserID, role authz.Role) error {
	return a.changeMember(ctx, p, store, user, authz.ManageMembers, func(tx *masterdb.Tx, before authz.Role) error {
		if !slices.Contains(authz.Roles, role) {
			return errInvalidRole()
		}
		if role == authz.Owner {
			if _, err := authz.Check(ctx, tx, p, store, authz.ManageOwners); err != nil {
				return err
			}
		}
		if before == role {
			return nil
		}
		if _, err := authz.SetRole(ctx, tx, store, user, role); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberRoleChanged, Store: store,
			Details: map[string]string{"user": user.String(), "from": string(before), "to": string(role)}})
	})
}

// RemoveMember ends a membership and revokes the API keys that the member created
// for the store. Every member may leave. It fails as ChangeRole does.
func (a *Accounts) RemoveMember(ctx context.Context, p authz.Principal, store stoa.StoreID, user stoa.UserID) error {
	needed := authz.ManageMembers
	if user == p.UserID && p.InPerson() == nil {
		needed = authz.ReadMembers
	}
	return a.changeMember(ctx, p, store, user, needed, func(tx *masterdb.Tx, before authz.Role) error {
		if _, err := authz.Withdraw(ctx, tx, store, user); err != nil {
			return err
		}
		if err := apikeys.RevokeOfMember(ctx, tx, store, user); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.MemberRemoved, Store: store,
			Details: map[string]string{"user": user.String(), "role": string(before)}})
	})
}

// changeMember locks the store's owners, checks that the caller may do action to
// the member, and calls change. For an owner other than the caller the action is
// ManageOwners.
func (a *Accounts) changeMember(ctx context.Context, p authz.Principal, store stoa.StoreID, user stoa.UserID, needed authz.Action,
	change func(tx *masterdb.Tx, before authz.Role) error) error {
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		owners, err := authz.LockOwners(ctx, tx, store)
		if err != nil {
			return err
		}
		action := needed
		if action == authz.ManageMembers && slices.Contains(owners, user) {
			action = authz.ManageOwners
		}
		if _, err := authz.Check(ctx, tx, p, store, action); err != nil {
			return err
		}
		before, err := authz.RoleOf(ctx, tx, store, user)
		if err != nil {
			return err
		}
		if before == "" {
			return stoa.Errorf(stoa.NotFound, "The store has no such member.")
		}
		if err := change(tx, before); err != nil {
			return err
		}
		return requireOwner(ctx, tx, store)
	})
}

// requireOwner fails with forbidden, which rolls tx back, when the store has no
// owner.
func requireOwner(ctx context.Context, tx *masterdb.Tx, store stoa.StoreID) error {
	owners, err := authz.LockOwners(ctx, tx, store)
	if err == nil && len(owners) == 0 {
		return stoa.Errorf(stoa.Forbidden, "A store needs an owner. Make another member one first.")
	}
	return err
}

// TransferOwnership makes another member an owner and the caller, who must be an
// owner, an admin.
func (a *Accounts) TransferOwnership(ctx context.Context, p authz.Principal, store stoa.StoreID, to stoa.UserID) error {
	return a.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if _, err := authz.LockOwners(ctx, tx, store); err != nil {
			return err
		}
		if _, err := authz.Check(ctx, tx, p, store, authz.ManageOwners); err != nil {
			return err
		}
		if err := p.InPerson(); err != nil {
			return err
		}
		own, err := authz.RoleOf(ctx, tx, store, p.UserID)
		if err != nil {
			return err
		}
		if own != authz.Owner {
			return stoa.Errorf(stoa.Forbidden, "Only an owner can hand the store over. Change the members' roles instead.")
		}
		if to == p.UserID {
			var faults stoa.Invalid
			faults.Add("userId", "is you: name another member")
			return faults.Err()
		}
		found, err := authz.SetRole(ctx, tx, store, to, authz.Owner)
		if err != nil {
			return err
		}
		if !found {
			return stoa.Errorf(stoa.NotFound, "The store has no such member. Invite them first.")
		}
		if _, err := authz.SetRole(ctx, tx, store, p.UserID, authz.Admin); err != nil {
			return err
		}
		return audit.Record(ctx, tx, p, audit.Event{Action: audit.OwnershipMoved, Store: store, Details: map[string]string{"to": to.String()}})
	})
}

func errInvalidRole() error {
	var faults stoa.Invalid
	faults.Add("role", "must be one of %v", authz.Roles)
	return faults.Err()
}
