package accounts

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/mail"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// storeFixture is a store with its owner and the members that a test adds.
type storeFixture struct {
	*testing.T
	*Accounts
	store stoa.StoreID
	owner authz.Principal
}

// eachStoreFixture runs test with a store on every engine.
func eachStoreFixture(t *testing.T, test func(storeFixture)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		a := setup(t, db, testRing(t))
		r := registration()
		r.StoreName = new("Olives")
		session, store, err := a.Register(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		markVerified(t, a, r.Email)
		test(storeFixture{t, a, store.ID, principal(t, a, session)})
	})
}

func (b storeFixture) person(email string) authz.Principal {
	b.Helper()
	r := registration()
	r.Email = email
	session, _, err := b.Register(b.Context(), r)
	if err != nil {
		b.Fatal(err)
	}
	return principal(b.T, b.Accounts, session)
}

func (b storeFixture) member(role authz.Role) authz.Principal {
	b.Helper()
	email := fmt.Sprintf("%s-%s@example.com", role, stoa.NewID[stoa.UserID]())
	p := b.person(email)
	markVerified(b.T, b.Accounts, email)
	err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error { return authz.Grant(b.Context(), tx, b.store, p.UserID, role) })
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func (b storeFixture) roleOf(p authz.Principal) authz.Role {
	b.Helper()
	role, err := authz.RoleOf(b.Context(), b.db, b.store, p.UserID)
	if err != nil {
		b.Fatal(err)
	}
	return role
}

// TestChangeMembers tries each role on each role.
func TestChangeMembers(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		for _, actor := range []authz.Role{authz.Owner, authz.Admin, authz.Member, authz.Viewer, ""} {
			for _, target := range authz.Roles {
				for _, to := range authz.Roles {
					by := b.person(fmt.Sprintf("%s@example.com", stoa.NewID[stoa.UserID]()))
					if actor != "" {
						by = b.member(actor)
					}
					who := b.member(target)
					want := stoa.Code("")
					touchesOwner := target == authz.Owner || to == authz.Owner
					switch {
					case actor == "":
						want = stoa.StoreNotFound
					case actor == authz.Owner, actor == authz.Admin && !touchesOwner:
					default:
						want = stoa.Forbidden
					}
					err := b.ChangeRole(b.Context(), by, b.store, who.UserID, to)
					now := b.roleOf(who)
					if stoa.CodeOf(err) != want || err == nil && now != to || err != nil && now != target {
						b.Errorf("%s makes %s %s: %v, now %s; want %q", actor, target, to, err, now, want)
					}
				}
			}
		}
		wantCode(b.T, b.ChangeRole(b.Context(), b.owner, b.store, b.member(authz.Viewer).UserID, "operator"), stoa.InvalidRequest)
		wantCode(b.T, b.ChangeRole(b.Context(), b.owner, b.store, b.person("stranger@example.com").UserID, authz.Viewer), stoa.NotFound)
		wantCode(b.T, b.ChangeRole(b.Context(), b.owner, b.store, stoa.UserID{}, authz.Viewer), stoa.NotFound)
	})
}

// TestMembersCannotRaiseTheirRole checks that no member can raise their own role, for
// every role.
func TestMembersCannotRaiseTheirRole(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		for _, role := range []authz.Role{authz.Admin, authz.Member, authz.Viewer} {
			p := b.member(role)
			if err := b.ChangeRole(b.Context(), p, b.store, p.UserID, authz.Owner); stoa.CodeOf(err) != stoa.Forbidden || b.roleOf(p) != role {
				b.Errorf("%s makes themselves owner: %v", role, err)
			}
			if err := b.TransferOwnership(b.Context(), p, b.store, p.UserID); stoa.CodeOf(err) != stoa.Forbidden {
				b.Errorf("%s takes the store: %v", role, err)
			}
		}
	})
}

func TestLastOwnerStays(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		wantCode(b.T, b.RemoveMember(b.Context(), b.owner, b.store, b.owner.UserID), stoa.Forbidden)
		wantCode(b.T, b.ChangeRole(b.Context(), b.owner, b.store, b.owner.UserID, authz.Admin), stoa.Forbidden)
		if got := b.roleOf(b.owner); got != authz.Owner {
			b.Fatalf("the last owner is %q", got)
		}
		second := b.member(authz.Owner)
		if err := b.RemoveMember(b.Context(), b.owner, b.store, b.owner.UserID); err != nil {
			b.Errorf("one of two owners leaves: %v", err)
		}
		wantCode(b.T, b.RemoveMember(b.Context(), second, b.store, second.UserID), stoa.Forbidden)
	})
}

// TestConcurrentOwnerChanges checks that one owner is left when two owners leave, or
// demote each other, at the same time.
func TestConcurrentOwnerChanges(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		for round := range 5 {
			second := b.member(authz.Owner)
			people := []authz.Principal{b.owner, second}
			errs := concurrently(2, func(i int) error {
				switch round % 3 {
				case 0:
					return b.RemoveMember(b.Context(), people[i], b.store, people[i].UserID)
				case 1:
					return b.ChangeRole(b.Context(), people[i], b.store, people[i].UserID, authz.Viewer)
				}
				return b.ChangeRole(b.Context(), people[i], b.store, people[1-i].UserID, authz.Viewer)
			})
			left := codes(errs)
			if left[""] != 1 {
				b.Fatalf("round %d: %v", round, errs)
			}
			var owners []stoa.UserID
			if err := b.db.Select(b.Context(), &owners, `SELECT user_id FROM store_members WHERE store_id = $1 AND role = 'owner'`, b.store); err != nil {
				b.Fatal(err)
			}
			if len(owners) != 1 {
				b.Fatalf("round %d leaves %d owners", round, len(owners))
			}
			for _, p := range people {
				if p.UserID == owners[0] {
					b.owner = p
				}
			}
		}
	})
}

// Both owners are made to reach their rows before either may go on, so that only
// the lock in authz.LockOwners keeps the second from counting the first.
func TestConcurrentOwnerRemovals(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		people := []authz.Principal{b.owner, b.member(authz.Owner)}
		errs := bothAtRows(b.T, b.db, `SELECT user_id FROM store_members`, func(i int) error {
			return b.RemoveMember(b.Context(), people[i], b.store, people[i].UserID)
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.Forbidden: 1}, codes(errs)); diff != "" {
			b.Errorf("two last owners leave (-want +got):\n%s", diff)
		}
	})
}

func TestTransferOwnership(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		to := b.member(authz.Viewer)
		wantCode(b.T, b.TransferOwnership(b.Context(), b.owner, b.store, b.person("stranger@example.com").UserID), stoa.NotFound)
		wantCode(b.T, b.TransferOwnership(b.Context(), b.owner, b.store, b.owner.UserID), stoa.InvalidRequest)
		if err := b.TransferOwnership(b.Context(), b.owner, b.store, to.UserID); err != nil {
			b.Fatal(err)
		}
		if b.roleOf(to) != authz.Owner || b.roleOf(b.owner) != authz.Admin {
			b.Errorf("now %s and %s", b.roleOf(to), b.roleOf(b.owner))
		}
		wantCode(b.T, b.TransferOwnership(b.Context(), b.owner, b.store, b.owner.UserID), stoa.Forbidden)
		wantAudited(b.T, b.db, audit.OwnershipMoved, audit.Success, 1)
	})
}

// invite invites the guest and returns the token of the mail.
func (b storeFixture) invite(role authz.Role) keyring.Secret {
	b.Helper()
	const email = "guest@example.com"
	if _, err := b.Invite(b.Context(), b.owner, b.store, email, role); err != nil {
		b.Fatal(err)
	}
	for _, m := range sendAll(b.T, b.Accounts) {
		if strings.Contains(m.To, email) && strings.HasPrefix(m.ID, "invitation") {
			return tokensIn(b.T, []mail.Written{m}, invitation)[0]
		}
	}
	b.Fatalf("no mail to %s", email)
	return keyring.Secret{}
}

func TestInvitation(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		guest, other := b.person("guest@example.com"), b.person("other@example.com")
		token := b.invite(authz.Member)
		if dump := dumpTables(b.T, b.db, "one_time_tokens", "invitations"); strings.Contains(dump, token.Reveal()) {
			b.Errorf("the token is kept:\n%s", dump)
		}
		_, err := b.AcceptInvitation(b.Context(), other, token)
		wantCode(b.T, err, stoa.Forbidden)
		errs := concurrently(3, func(int) error {
			_, err := b.AcceptInvitation(b.Context(), guest, token)
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.TokenInvalid: 2}, codes(errs)); diff != "" {
			b.Errorf("three at once (-want +got):\n%s", diff)
		}
		if me, err := b.Me(b.Context(), guest); err != nil || b.roleOf(guest) != authz.Member || !me.EmailVerified {
			b.Errorf("role %q, verified %t, %v", b.roleOf(guest), me.EmailVerified, err)
		}
		list, err := b.Invitations(b.Context(), b.owner, b.store)
		if err != nil || len(list) != 0 {
			b.Errorf("still open: %v, %v", list, err)
		}
		_, err = b.Invite(b.Context(), b.owner, b.store, "Guest@example.com", authz.Owner)
		wantCode(b.T, err, stoa.InvalidRequest)
	})
}

func TestInvitationsThatAreNone(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		guest := b.person("guest@example.com")
		refused := func(name string, token keyring.Secret, want stoa.Code) {
			b.Helper()
			if _, err := b.AcceptInvitation(b.Context(), guest, token); stoa.CodeOf(err) != want || b.roleOf(guest) != "" {
				b.Errorf("%s: %v, the guest is %q", name, err, b.roleOf(guest))
			}
		}
		token := b.invite(authz.Member)
		list, err := b.Invitations(b.Context(), b.owner, b.store)
		if err != nil || len(list) != 1 {
			b.Fatalf("%v, %v", list, err)
		}
		if err := b.RevokeInvitation(b.Context(), b.owner, b.store, list[0].ID); err != nil {
			b.Fatal(err)
		}
		wantCode(b.T, b.RevokeInvitation(b.Context(), b.owner, b.store, list[0].ID), stoa.NotFound)
		refused("taken back", token, stoa.TokenInvalid)

		ago := func() {
			b.Helper()
			exec(b.T, b.db, `UPDATE invitations SET sent_at = $1`, time.Now().UTC().Add(-2*mailPause))
			exec(b.T, b.db, `DELETE FROM mail_allowances`)
		}
		ago()
		first := b.invite(authz.Admin)
		_, err = b.Invite(b.Context(), b.owner, b.store, "guest@example.com", authz.Viewer)
		wantCode(b.T, err, stoa.RateLimited)
		ago()
		second := b.invite(authz.Viewer)
		refused("the mail before", first, stoa.TokenInvalid)
		exec(b.T, b.db, `UPDATE one_time_tokens SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		refused("expired", second, stoa.TokenExpired)

		// The inviter must still have the permission to invite.
		ago()
		admin := b.member(authz.Admin)
		owner := b.owner
		b.owner = admin
		third := b.invite(authz.Member)
		b.owner = owner
		if err := b.ChangeRole(b.Context(), owner, b.store, admin.UserID, authz.Viewer); err != nil {
			b.Fatal(err)
		}
		refused("of who may no more", third, stoa.TokenInvalid)

		_, err = b.Invite(b.Context(), b.member(authz.Admin), b.store, "new@example.com", authz.Owner)
		wantCode(b.T, err, stoa.Forbidden)
		_, err = b.Invite(b.Context(), b.member(authz.Member), b.store, "new@example.com", authz.Viewer)
		wantCode(b.T, err, stoa.Forbidden)
		_, err = b.Invite(b.Context(), guest, b.store, "new@example.com", authz.Viewer)
		wantCode(b.T, err, stoa.StoreNotFound)
		_, err = b.Invite(b.Context(), b.owner, b.store, "x\r\nBcc: y@example.com", "operator")
		if diff := cmp.Diff([]string{"email", "role"}, faultyFields(err)); diff != "" {
			b.Errorf("faults (-want +got):\n%s", diff)
		}
	})
}

// TestConcurrentInvites checks that concurrent calls create one invitation for each
// address.
func TestConcurrentInvites(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		errs := concurrently(6, func(int) error {
			_, err := b.Invite(b.Context(), b.owner, b.store, "guest@example.com", authz.Member)
			return err
		})
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.RateLimited: 5}, codes(errs)); diff != "" {
			b.Errorf("outcomes (-want +got):\n%s\n%v", diff, errs)
		}
	})
}
