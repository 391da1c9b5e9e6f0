package provisioning

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func codeOf(f *Fault) stoa.Code { return stoa.CodeOf(f.Err()) }

// TestTestStored checks that a test of the store's own credentials returns its findings
// and records the health.
func TestTestStored(t *testing.T) {
	t.Parallel()
	each(t, tenantdbtest.Engines(), func(t *testing.T, b fixture, engine credential.EngineName) {
		p, s, c := b.opened(t, engine)
		before := b.info(t, s.ID)
		found, err := b.Test(t.Context(), p, s.ID, nil)
		testkit.Must(t, err)
		if found.Fault != nil || found.Latency <= 0 || found.ServerVersion == "" || found.Schema.Version != before.SchemaVersion {
			t.Errorf("found %+v, %+v", found, found.Fault)
		}
		after := b.info(t, s.ID)
		if after.Status != tenantdb.StatusOK || !after.LastCheckedAt.After(*before.LastCheckedAt) || after.CredentialVersion != before.CredentialVersion {
			t.Errorf("recorded %+v", after)
		}
		if engine == credential.SQLite {
			return
		}
		tenantdbtest.Revoke(t, c)
		found, err = b.Test(t.Context(), p, s.ID, nil)
		testkit.Must(t, err)
		if codeOf(found.Fault) != stoa.DatabaseAuthFailed || found.Latency != 0 || found.ServerVersion != "" {
			t.Errorf("found %+v, %+v", found, found.Fault)
		}
		if after = b.info(t, s.ID); after.Status != tenantdb.StatusFailed || after.LastError != stoa.DatabaseAuthFailed {
			t.Errorf("recorded %+v", after)
		}
	})
}

// TestTestGiven checks that a test of given credentials stores and changes nothing, in
// any state of the store. The accepted databases depend on the state.
func TestTestGiven(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		owner, open, own := b.opened(t, engine)
		newcomer, pending := b.store(t)
		strangers := credentials(t, engine)
		tenantdbtest.Exec(t, strangers, `CREATE TABLE guests (n integer)`)
		wrong := own
		wrong.Password = keyring.NewSecret("wrong")
		forbidden := own
		forbidden.Host = "10.255.255.1"
		for _, test := range []struct {
			name          string
			c             credential.Credentials
			open, pending stoa.Code
		}{
			{"own", own, "", stoa.DatabaseNotEmpty},
			{"empty", credentials(t, engine), stoa.InvalidRequest, ""},
			{"stranger's", strangers, stoa.DatabaseNotEmpty, stoa.DatabaseNotEmpty},
			{"wrong password", wrong, stoa.DatabaseAuthFailed, stoa.DatabaseAuthFailed},
			{"forbidden address", forbidden, stoa.DatabaseHostForbidden, stoa.DatabaseHostForbidden},
		} {
			before := b.info(t, open.ID)
			found, err := b.Test(t.Context(), owner, open.ID, &test.c)
			testkit.Must(t, err)
			if got := codeOf(found.Fault); got != test.open {
				t.Errorf("%s: %q (%+v) to a store at work, want %q", test.name, got, found.Fault, test.open)
			}
			found, err = b.Test(t.Context(), newcomer, pending.ID, &test.c)
			testkit.Must(t, err)
			if got := codeOf(found.Fault); got != test.pending {
				t.Errorf("%s: %q (%+v) to a pending store, want %q", test.name, got, found.Fault, test.pending)
			}
			if diff := cmp.Diff(before, b.info(t, open.ID)); diff != "" {
				t.Errorf("%s: the registry changed:\n%s", test.name, diff)
			}
		}
		in, err := tenantdbtest.Open(t, strangers).Inspect(t.Context())
		testkit.Must(t, err)
		if !slices.Equal(in.Tables, []string{"guests"}) {
			t.Errorf("a test left %v", in.Tables)
		}

		_, err = b.Test(t.Context(), newcomer, pending.ID, nil)
		wantCode(t, err, stoa.StorePendingDatabase)
		_, err = b.Test(t.Context(), newcomer, pending.ID, &credential.Credentials{Kind: credential.Managed})
		wantCode(t, err, stoa.InvalidRequest)
		_, err = b.Test(t.Context(), newcomer, pending.ID, &credential.Credentials{Kind: credential.KindMySQL, Engine: credential.MySQL})
		wantCode(t, err, stoa.InvalidRequest)
		_, err = b.Test(t.Context(), b.member(t, open.ID, authz.Member), open.ID, &own)
		wantCode(t, err, stoa.Forbidden)
		_, err = b.Test(t.Context(), newcomer, open.ID, nil)
		wantCode(t, err, stoa.StoreNotFound)
	})
}
