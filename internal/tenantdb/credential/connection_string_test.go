package credential_test

import (
	"testing"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestConnectionString checks that the URL leads back to the same database.
func TestConnectionString(t *testing.T) {
	t.Parallel()
	for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
		for _, mode := range []credential.TLSMode{credential.TLSVerify, credential.TLSDisable} {
			for _, host := range []string{"db.example.com", "2001:db8::7"} {
				want := credential.Credentials{
					Kind: credential.Kind(engine), Engine: engine, Host: host, Port: 4711, Database: "stoa_a_b", User: "stoa_a_b_r",
					Password: keyring.NewSecret("b-2B~.c/?#@%:"), TLS: mode,
				}
				pasted, err := credential.ParsePasted(engine, want.ConnectionString(), "", credential.SupabaseRules{})
				if got := pasted.Credentials; err != nil || got != want || len(pasted.Ignored) > 0 {
					t.Errorf("%s with %s at %s: %+v, %v, ignored %v", engine, mode, host, got, err, pasted.Ignored)
				}
			}
		}
	}
}

// TestReaderIsAnotherRole checks that the credentials of one role contain nothing of the
// other's.
func TestReaderIsAnotherRole(t *testing.T) {
	t.Parallel()
	c := credential.Credentials{User: "stoa", Password: keyring.NewSecret("own"), Reset: credential.PasswordReset{Next: keyring.NewSecret("next"), Since: "1"}}
	c.SetPassword(credential.ReadAccess, keyring.NewSecret("reader"))
	full, read := c.As(credential.FullAccess), c.As(credential.ReadAccess)
	if want := (credential.Credentials{User: "stoa", Password: keyring.NewSecret("own")}); full != want {
		t.Errorf("full: %+v", full)
	}
	if want := (credential.Credentials{User: "stoa_r", Password: keyring.NewSecret("reader")}); read != want {
		t.Errorf("read: %+v", read)
	}
	for text, want := range map[string]credential.Access{"": credential.FullAccess, "full": credential.FullAccess, "read": credential.ReadAccess} {
		if got, err := credential.ParseAccess(text); err != nil || got != want {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
	if _, err := credential.ParseAccess("READ"); err == nil {
		t.Error("READ is accepted")
	}
}
