package accounts

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
)

func (b storeFixture) keys() *apikeys.Service { return apikeys.New(b.db, b.opts.Quotas.APIKeys) }

func (b storeFixture) key(p authz.Principal, n apikeys.NewKey) (apikeys.Key, keyring.Secret) {
	b.Helper()
	k, secret, err := b.keys().Create(b.Context(), p, b.store, n)
	if err != nil {
		b.Fatal(err)
	}
	return k, secret
}

func (b storeFixture) auth(secret keyring.Secret, want stoa.Code) authz.Principal {
	b.Helper()
	p, err := b.Authenticate(b.Context(), secret.Reveal())
	wantCode(b.T, err, want)
	return p
}

func TestAPIKey(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		k, secret := b.key(b.owner, apikeys.NewKey{Name: "  Warehouse ", Scopes: []string{"store:read", "credits:spend", "store:read"}})
		if !strings.HasPrefix(secret.Reveal(), k.Prefix) || len(k.Prefix) > 14 || k.Name != "Warehouse" || k.Scopes != "credits:spend store:read" {
			b.Errorf("%+v", k)
		}
		p := b.auth(secret, "")
		if p.UserID != b.owner.UserID || p.Key.ID != k.ID || p.Key.StoreID != b.store || !p.SessionID.IsZero() {
			b.Errorf("principal %+v", p)
		}
		if dump := dumpTables(b.T, b.db, "api_keys", "audit_events"); strings.Contains(dump, secret.Reveal()[len(k.Prefix):]) || !strings.Contains(dump, secret.Hash()) {
			b.Errorf("not the hash alone is kept:\n%s", dump)
		}
		list, err := b.keys().List(b.Context(), b.owner, b.store)
		if err != nil || len(list) != 1 || list[0].LastUsedAt == nil {
			b.Fatalf("%+v, %v", list, err)
		}
		k.LastUsedAt = list[0].LastUsedAt
		if diff := cmp.Diff(k, list[0]); diff != "" {
			b.Errorf("listed (-made +listed):\n%s", diff)
		}
		if err := b.keys().Revoke(b.Context(), b.owner, b.store, k.ID); err != nil {
			b.Fatal(err)
		}
		b.auth(secret, stoa.TokenInvalid)
		wantCode(b.T, b.keys().Revoke(b.Context(), b.owner, b.store, k.ID), stoa.NotFound)
		if list, err := b.keys().List(b.Context(), b.owner, b.store); err != nil || len(list) != 0 {
			b.Errorf("after it was revoked: %v, %v", list, err)
		}
		wantAudited(b.T, b.db, audit.KeyCreated, audit.Success, 1)
		wantAudited(b.T, b.db, audit.KeyRevoked, audit.Success, 1)
	})
}

func TestAPIKeyRefusals(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		_, secret := b.key(b.owner, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		_, gone := b.key(b.owner, apikeys.NewKey{Name: "Gone", Scopes: []string{"store:read"}})
		exec(b.T, b.db, `DELETE FROM api_keys WHERE hash = $1`, gone.Hash())
		s := secret.Reveal()
		last := "A"
		if strings.HasSuffix(s, "A") {
			last = "B"
		}
		for name, wrong := range map[string]string{
			"prefix": "stoa_live_", "mistyped": s[:len(s)-1] + last, "lower case": strings.ToLower(s), "longer": s + "A",
			"of a row that is gone": gone.Reveal(), "its hash": "stoa_live_" + secret.Hash(), "huge": "stoa_live_" + strings.Repeat("A", 1<<20),
		} {
			if _, err := b.Authenticate(b.Context(), wrong); stoa.CodeOf(err) != stoa.TokenInvalid {
				b.Errorf("%s: %v", name, err)
			}
		}
		past := time.Now().Add(-time.Second)
		_, _, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: " ", Scopes: []string{"everything"}, ExpiresAt: &past})
		if diff := cmp.Diff([]string{"name", "scopes", "expiresAt"}, faultyFields(err)); diff != "" {
			b.Errorf("faults (-want +got):\n%s", diff)
		}
		_, _, err = b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K"})
		if diff := cmp.Diff([]string{"scopes"}, faultyFields(err)); diff != "" {
			b.Errorf("without a scope (-want +got):\n%s", diff)
		}
		for role, want := range map[authz.Role]stoa.Code{authz.Admin: "", authz.Member: stoa.Forbidden, authz.Viewer: stoa.Forbidden} {
			_, _, err := b.keys().Create(b.Context(), b.member(role), b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
			if stoa.CodeOf(err) != want {
				b.Errorf("%s makes a key: %v", role, err)
			}
		}
		stranger := b.person("stranger@example.com")
		_, err = b.keys().List(b.Context(), stranger, b.store)
		wantCode(b.T, err, stoa.StoreNotFound)
		wantCode(b.T, b.keys().Revoke(b.Context(), stranger, b.store, stoa.KeyID{}), stoa.StoreNotFound)
	})
}

// TestAPIKeyTimes checks that a key expires, and that its last use is recorded once a
// minute.
func TestAPIKeyTimes(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		at := time.Now().Add(time.Hour)
		_, secret := b.key(b.owner, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}, ExpiresAt: &at})
		used := func() time.Time {
			b.Helper()
			list, err := b.keys().List(b.Context(), b.owner, b.store)
			if err != nil || list[0].LastUsedAt == nil {
				b.Fatalf("%+v, %v", list, err)
			}
			return *list[0].LastUsedAt
		}
		b.auth(secret, "")
		first := used()
		b.auth(secret, "")
		if !used().Equal(first) {
			b.Error("the second use within a minute was written down")
		}
		exec(b.T, b.db, `UPDATE api_keys SET last_used_at = $1`, first.Add(-time.Minute-time.Second))
		errs := concurrently(5, func(int) error {
			_, err := b.Authenticate(b.Context(), secret.Reveal())
			return err
		})
		if codes(errs)[""] != 5 || used().Before(first) {
			b.Errorf("a minute later: %v, used %v", errs, used())
		}
		exec(b.T, b.db, `UPDATE api_keys SET expires_at = $1`, time.Now().UTC().Add(-time.Second))
		b.auth(secret, stoa.TokenExpired)
	})
}

// TestAPIKeyEndsWithItsMaker checks that a key has its creator's permissions, and none
// after they have left. Rejoining does not restore it.
func TestAPIKeyEndsWithItsMaker(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		maker := b.member(authz.Admin)
		_, secret := b.key(maker, apikeys.NewKey{Name: "K", Scopes: []string{"store:read", "store:write"}})
		may := func(a authz.Action) stoa.Code {
			_, err := authz.Check(b.Context(), b.db, b.auth(secret, ""), b.store, a)
			return stoa.CodeOf(err)
		}
		if got := may(authz.UpdateStore); got != "" {
			b.Errorf("an admin's key: %q", got)
		}
		if err := b.ChangeRole(b.Context(), b.owner, b.store, maker.UserID, authz.Viewer); err != nil {
			b.Fatal(err)
		}
		if r, w := may(authz.ReadStore), may(authz.UpdateStore); r != "" || w != stoa.Forbidden {
			b.Errorf("a viewer's key: %q and %q", r, w)
		}
		// The key ends with the membership, also when its row is only deleted.
		lost := b.member(authz.Admin)
		_, orphan := b.key(lost, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		exec(b.T, b.db, `DELETE FROM store_members WHERE user_id = $1`, lost.UserID)
		b.auth(orphan, stoa.TokenInvalid)
		if err := b.RemoveMember(b.Context(), maker, b.store, maker.UserID); err != nil {
			b.Fatal(err)
		}
		b.auth(secret, stoa.TokenInvalid)
		err := b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
			return authz.Grant(b.Context(), tx, b.store, maker.UserID, authz.Owner)
		})
		if err != nil {
			b.Fatal(err)
		}
		b.auth(secret, stoa.TokenInvalid)
	})
}

// TestAPIKeysCannotActAsPerson checks that a key cannot manage its user's account.
func TestAPIKeysCannotActAsPerson(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		var scopes []string
		for _, s := range authz.Scopes() {
			scopes = append(scopes, string(s))
		}
		_, secret := b.key(b.owner, apikeys.NewKey{Name: "K", Scopes: scopes})
		p := b.auth(secret, "")
		ctx, password := b.Context(), keyring.NewSecret(goodPassword)
		second := b.member(authz.Owner)
		for name, call := range map[string]func() error{
			"me":            func() error { _, err := b.Me(ctx, p); return err },
			"sessions":      func() error { _, err := b.Sessions(ctx, p); return err },
			"end a session": func() error { return b.EndSession(ctx, p, b.owner.SessionID) },
			"end all":       func() error { return b.EndOtherSessions(ctx, p) },
			"logout":        func() error { return b.Logout(ctx, p) },
			"password":      func() error { return b.ChangePassword(ctx, p, password, keyring.NewSecret("another good one")) },
			"enrol":         func() error { _, err := b.EnrolFactor(ctx, p, password); return err },
			"confirm":       func() error { _, err := b.ConfirmFactor(ctx, p, "123456"); return err },
			"disable":       func() error { return b.DisableFactor(ctx, p, password) },
			"factor":        func() error { _, _, err := b.HasFactor(ctx, p); return err },
			"verify":        func() error { return b.ResendVerification(ctx, p) },
			"another key": func() error {
				_, _, err := b.keys().Create(ctx, p, b.store, apikeys.NewKey{Name: "L", Scopes: scopes})
				return err
			},
			"invite":         func() error { _, err := b.Invite(ctx, p, b.store, "x@example.com", authz.Viewer); return err },
			"leave":          func() error { return b.RemoveMember(ctx, p, b.store, b.owner.UserID) },
			"transfer":       func() error { return b.TransferOwnership(ctx, p, b.store, second.UserID) },
			"impersonate":    func() error { _, err := b.Impersonate(ctx, p, second.UserID, "because it may", Client{}); return err },
			"accept":         func() error { _, err := b.AcceptInvitation(ctx, p, newToken(invitation.prefix())); return err },
			"demote another": func() error { return b.ChangeRole(ctx, p, b.store, second.UserID, authz.Viewer) },
		} {
			if err := call(); stoa.CodeOf(err) != stoa.Forbidden {
				b.Errorf("%s: %v, want forbidden", name, err)
			}
		}
	})
}

// TestAPIKeyFormSentTwice checks that a form makes one key however often, and in however
// many requests at once, it is sent.
func TestAPIKeyFormSentTwice(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		n := apikeys.NewKey{Name: "Warehouse", Scopes: []string{"store:read"}, FormKey: "one"}
		errs := make([]error, 4)
		var group sync.WaitGroup
		for i := range errs {
			group.Go(func() { _, _, errs[i] = b.keys().Create(b.Context(), b.owner, b.store, n) })
		}
		group.Wait()
		made := 0
		for _, err := range errs {
			if err == nil {
				made++
				continue
			}
			wantCode(b.T, err, stoa.IdempotencyConflict)
		}
		list, err := b.keys().List(b.Context(), b.owner, b.store)
		if err != nil || made != 1 || len(list) != 1 {
			b.Errorf("%d keys made, %d listed, %v, want 1", made, len(list), err)
		}
		wantAudited(b.T, b.db, audit.KeyCreated, audit.Success, 1)
		for _, hostile := range []string{strings.Repeat("k", 101), "a\x00", "\xff"} {
			n.FormKey = hostile
			_, _, err := b.keys().Create(b.Context(), b.owner, b.store, n)
			wantCode(b.T, err, stoa.InvalidRequest)
		}
	})
}
