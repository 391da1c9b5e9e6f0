package accounts

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/apikeys"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/testkit"
)

func (b storeFixture) deleteAccount(p authz.Principal) error {
	return b.DeleteAccount(b.Context(), p, keyring.NewSecret(goodPassword))
}

func TestDeleteAccount(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		second := b.member(authz.Owner)
		_, key, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		testkit.Must(b.T, err)
		_, err = b.Invite(b.Context(), b.owner, b.store, "guest@example.com", authz.Member)
		testkit.Must(b.T, err)
		_, err = b.EnrolFactor(b.Context(), b.owner, keyring.NewSecret(goodPassword))
		testkit.Must(b.T, err)
		testkit.Must(b.T, b.ForgotPassword(b.Context(), "owner@example.com"))
		sendAll(b.T, b.Accounts)

		testkit.Must(b.T, b.deleteAccount(b.owner))

		if _, err := b.Authenticate(b.Context(), key.Reveal()); stoa.CodeOf(err) != stoa.TokenInvalid {
			b.Errorf("the API key: %v", err)
		}
		if _, err := b.Me(b.Context(), b.owner); stoa.CodeOf(err) != stoa.SessionRevoked {
			b.Errorf("the account: %v", err)
		}
		if _, err := b.Login(b.Context(), "owner@example.com", keyring.NewSecret(goodPassword), Client{}); stoa.CodeOf(err) != stoa.InvalidCredentials {
			b.Errorf("sign-in: %v", err)
		}
		if _, err := b.Login(b.Context(), deletedEmail(b.owner.UserID), keyring.NewSecret(goodPassword), Client{}); stoa.CodeOf(err) != stoa.InvalidCredentials {
			b.Errorf("sign-in with what stands for the address: %v", err)
		}
		if role := b.roleOf(b.owner); role != "" {
			b.Errorf("the deleted owner is %s", role)
		}
		if err := b.deleteAccount(b.owner); stoa.CodeOf(err) == "" {
			b.Error("the account was deleted twice")
		}
		wantRows(b.T, b.db, map[string]int{
			"users": 2, "second_factors": 0, "email_requests": 1, // of the second owner's verification
			"sessions WHERE user_id = '" + b.owner.UserID.String() + "'":                                                     0,
			"one_time_tokens WHERE user_id = '" + b.owner.UserID.String() + "'":                                              0,
			"invitations WHERE revoked_at IS NULL":                                                                           0,
			"users WHERE email LIKE '%owner@example.com' OR first_name = 'Olive' AND id = '" + b.owner.UserID.String() + "'": 0,
		})
		log, err := authz.ReadAuditLog(b.Context(), b.db, second, b.store, audit.Filter{Action: audit.MemberRemoved})
		testkit.Must(b.T, err)
		if len(log.Entries) != 1 || log.Entries[0].Email != nil || *log.Entries[0].UserID != b.owner.UserID {
			b.Errorf("the store's log: %+v", log.Entries)
		}
		box := sendAll(b.T, b.Accounts)
		if box[0].Subject != accountDeletedMail.subject || !strings.Contains(box[0].To, "owner@example.com") {
			b.Errorf("the last mail: %+v", box[0])
		}
		wantRows(b.T, b.db, map[string]int{"account_deletions": 0})
		// The address is free.
		b.person("owner@example.com")
	})
}

func TestDeleteAccountRefusals(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		admin := b.member(authz.Admin)
		err := b.deleteAccount(b.owner)
		var refused *stoa.Error
		if stoa.CodeOf(err) != stoa.Forbidden || !strings.Contains(err.Error(), "Olives") {
			b.Fatalf("with a store of one owner: %v", err)
		}
		refused = err.(*stoa.Error) //nolint:errorlint,forcetypeassert // DeleteAccount returns it without wrapping
		if len(refused.Fields) != 1 || !strings.HasPrefix(refused.Fields[0].Field, "stores.olives") {
			b.Errorf("fields %+v", refused.Fields)
		}
		if owned, err := b.stores.SolelyOwned(b.Context(), b.owner); err != nil || len(owned) != 1 || owned[0].ID != b.store {
			b.Errorf("%+v, %v", owned, err)
		}
		impersonated, browser, operator := admin, admin, b.person("operator@example.com")
		impersonated.Impersonator, browser.Browser = b.owner.UserID, true
		exec(b.T, b.db, `UPDATE users SET role = 'admin' WHERE id = $1`, operator.UserID)
		for name, call := range map[string]struct {
			p        authz.Principal
			password string
			want     stoa.Code
		}{
			"an operator":            {operator, goodPassword, stoa.Forbidden},
			"an operator as another": {impersonated, goodPassword, stoa.Forbidden},
			"an old browser":         {browser, "", stoa.ReauthenticationRequired},
			"no password":            {admin, "", stoa.InvalidRequest},
			"a wrong password":       {admin, otherPassword, stoa.InvalidCredentials},
		} {
			if err := b.DeleteAccount(b.Context(), call.p, keyring.NewSecret(call.password)); stoa.CodeOf(err) != call.want {
				b.Errorf("%s: %v, want %s", name, err, call.want)
			}
		}
		wantRows(b.T, b.db, map[string]int{"users WHERE deleted_at IS NOT NULL": 0, "store_members": 2})
		testkit.Must(b.T, b.deleteAccount(admin)) // not an owner
		exec(b.T, b.db, `UPDATE stores SET status = 'deleting'`)
		testkit.Must(b.T, b.deleteAccount(b.owner))
	})
}

// TestDeletionDuringCreation checks that no store is left to a deleted account.
func TestDeletionDuringCreation(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		p := b.person("busy@example.com")
		errs := bothAtRows(b.T, b.db, `SELECT id FROM users`, func(i int) error {
			if i == 0 {
				return b.deleteAccount(p)
			}
			_, err := b.stores.Create(b.Context(), p, stores.NewStore{Name: "Late"})
			return err
		})
		deleted, created := stoa.CodeOf(errs[0]), stoa.CodeOf(errs[1])
		first := deleted == "" && created == stoa.SessionRevoked
		last := deleted == stoa.Forbidden && created == ""
		if !first && !last {
			b.Errorf("deletion: %v, creation: %v", errs[0], errs[1])
		}
		wantRows(b.T, b.db, map[string]int{
			"stores s WHERE NOT EXISTS (SELECT 1 FROM store_members m WHERE m.store_id = s.id AND m.role = 'owner')":    0,
			"store_members m JOIN users u ON u.id = m.user_id WHERE u.deleted_at IS NOT NULL":                           0,
			"sessions s JOIN users u ON u.id = s.user_id WHERE u.deleted_at IS NOT NULL":                                0,
			"users WHERE deleted_at IS NOT NULL AND (email NOT LIKE 'deleted:%' OR email_verified OR first_name <> '')": 0,
		})
	})
}

// TestBothOwnersDeleteTheirAccounts checks that one of a store's two owners stays.
func TestBothOwnersDeleteTheirAccounts(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		owners := []authz.Principal{b.owner, b.member(authz.Owner)}
		errs := bothAtRows(b.T, b.db, `SELECT id FROM users`, func(i int) error { return b.deleteAccount(owners[i]) })
		if diff := cmp.Diff(map[stoa.Code]int{"": 1, stoa.Forbidden: 1}, codes(errs)); diff != "" {
			b.Errorf("outcomes (-want +got):\n%s", diff)
		}
	})
}

// TestDeletionDuringTransfer checks that a store is not handed over to an account that
// is being deleted.
func TestDeletionDuringTransfer(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		heir := b.member(authz.Admin)
		errs := bothAtRows(b.T, b.db, `SELECT user_id FROM store_members`, func(i int) error {
			if i == 0 {
				return b.deleteAccount(heir)
			}
			return b.TransferOwnership(b.Context(), b.owner, b.store, heir.UserID)
		})
		deleted, moved := stoa.CodeOf(errs[0]), stoa.CodeOf(errs[1])
		if (deleted != "" || moved != stoa.NotFound) && (deleted != stoa.Forbidden || moved != "") {
			b.Errorf("deletion: %v, transfer: %v", errs[0], errs[1])
		}
		var owners int
		testkit.Must(b.T, b.db.Get(b.Context(), &owners, `SELECT count(*) FROM store_members WHERE role = 'owner'`))
		if owners != 1 {
			b.Errorf("%d owners", owners)
		}
	})
}

func TestExport(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		other := b.person("other@example.com")
		_, key, err := b.keys().Create(b.Context(), b.owner, b.store, apikeys.NewKey{Name: "K", Scopes: []string{"store:read"}})
		testkit.Must(b.T, err)
		_, err = b.Invite(b.Context(), b.owner, b.store, "guest@example.com", authz.Member)
		testkit.Must(b.T, err)
		enrolment, err := b.EnrolFactor(b.Context(), b.owner, keyring.NewSecret(goodPassword))
		testkit.Must(b.T, err)
		_, err = b.RequestEmailChange(b.Context(), b.owner, newEmail, keyring.NewSecret(goodPassword))
		testkit.Must(b.T, err)
		// More entries than one batch holds.
		testkit.Must(b.T, b.db.Tx(b.Context(), func(tx *masterdb.Tx) error {
			for i := range exportBatch + 7 {
				err := audit.Record(b.Context(), tx, b.owner, audit.Event{Action: fmt.Sprintf("test.%d", i), Details: map[string]string{"note": `"<&\`}})
				if err != nil {
					return err
				}
			}
			return audit.Record(b.Context(), tx, other, audit.Event{Action: "test.of_another"})
		}))

		export, err := b.Export(b.Context(), b.owner)
		testkit.Must(b.T, err)
		var out bytes.Buffer
		testkit.Must(b.T, export.Write(b.Context(), &out))

		var got map[string]any
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			b.Fatalf("%v in %.2000s", err, out.String())
		}
		lengths := map[string]int{}
		for name, value := range got {
			if list, ok := value.([]any); ok {
				lengths[name] = len(list)
			}
		}
		want := map[string]int{
			"sessions": 1, "passkeys": 0, "storesCreated": 1, "memberships": 1, "invitationsSent": 1, "invitationsReceived": 0, "apiKeys": 1, "emailChanges": 1,
			"mailsRequested": 1, "supabaseConnections": 0, "supabaseConsents": 0, "autoRecharges": 0, "purchases": 0, "auditEntries": lengths["auditEntries"],
		}
		if diff := cmp.Diff(want, lengths); diff != "" {
			b.Errorf("lengths of the lists (-want +got):\n%s", diff)
		}
		if lengths["auditEntries"] < exportBatch+7 {
			b.Errorf("%d audit entries", lengths["auditEntries"])
		}
		if profile := got["profile"].(map[string]any); profile["email"] != "owner@example.com" || profile["firstName"] != "Olive" || got["secondFactor"] == nil {
			b.Errorf("profile %v, second factor %v", profile, got["secondFactor"])
		}
		for name, secret := range map[string]string{
			"API key": key.Reveal(), "hash of the API key": key.Hash(), "second factor": enrolment.Secret.Reveal(), "password": "argon2",
			"another person": "other@example.com", "entry of another person": "test.of_another",
		} {
			if strings.Contains(out.String(), secret) {
				b.Errorf("the export holds the %s", name)
			}
		}
	})
}

func TestExportRefusals(t *testing.T) {
	t.Parallel()
	eachStoreFixture(t, func(b storeFixture) {
		impersonated, browser, key := b.owner, b.owner, b.owner
		impersonated.Impersonator, browser.Browser, key.Key.ID = b.owner.UserID, true, stoa.NewID[stoa.KeyID]()
		for name, call := range map[string]struct {
			p    authz.Principal
			want stoa.Code
		}{
			"an operator":    {impersonated, stoa.Forbidden},
			"an API key":     {key, stoa.Forbidden},
			"an old browser": {browser, stoa.ReauthenticationRequired},
		} {
			if _, err := b.Export(b.Context(), call.p); stoa.CodeOf(err) != call.want {
				b.Errorf("%s: %v, want %s", name, err, call.want)
			}
		}
	})
}
