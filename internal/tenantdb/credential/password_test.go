package credential_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestNewPassword checks that a generated password has ten characters of each
// class and is never repeated.
func TestNewPassword(t *testing.T) {
	t.Parallel()
	shape, seen := regexp.MustCompile(`^([a-z][-._~][2-9][A-Z]){10}$`), map[string]bool{}
	for range 200 {
		p := credential.NewPassword().Reveal()
		if !shape.MatchString(p) || seen[p] {
			t.Errorf("%q", p)
		}
		seen[p] = true
	}
}

// TestScramVerifierOfAPassword checks that a password always has the same verifier, so
// that keys which a pooler holds stay right when two callers set the same password, and
// that another password has another salt.
func TestScramVerifierOfAPassword(t *testing.T) {
	password := credential.NewPassword()
	first, err := credential.ScramVerifier(password)
	testkit.Must(t, err)
	second, err := credential.ScramVerifier(password)
	testkit.Must(t, err)
	other, err := credential.ScramVerifier(credential.NewPassword())
	testkit.Must(t, err)
	salt := func(verifier string) string { return strings.Split(verifier, "$")[1] }
	if first != second || salt(first) == salt(other) {
		t.Errorf("%s\n%s\n%s", first, second, other)
	}
}
