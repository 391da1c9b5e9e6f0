package tenantdb_test

import (
	"regexp"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
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
