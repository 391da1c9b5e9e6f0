package httpapi

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestEnumsListEveryEngine checks that a member or parameter that names an engine may name each
// of them, or each that has servers, and one that names a kind of database each kind.
func TestEnumsListEveryEngine(t *testing.T) {
	t.Parallel()
	var all, servers []string
	for _, engine := range credential.Engines {
		all = append(all, string(engine))
		if !engine.Embedded() {
			servers = append(servers, string(engine))
		}
	}
	files, err := filepath.Glob("*.go")
	testkit.Must(t, err)
	kinds := append([]string{string(credential.Managed)}, credential.OwnKinds()...)
	member := regexp.MustCompile(`(?m)^\s*(?:Engine|Managed|Type +credential\.Kind)\s.*enum:"([^"]+)"`)
	found := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		testkit.Must(t, err)
		for _, m := range member.FindAllStringSubmatch(string(text), -1) {
			found++
			if names := strings.Split(m[1], ","); !slices.Equal(names, all) && !slices.Equal(names, servers) && !slices.Equal(names, kinds) {
				t.Errorf("%s: the enum %s is neither %v, %v nor %v", file, m[1], all, servers, kinds)
			}
		}
	}
	if found < 8 {
		t.Errorf("only %d enums of engines were found", found)
	}
}
