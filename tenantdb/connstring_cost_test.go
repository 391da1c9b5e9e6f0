package tenantdb_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/tenantdb"
)

// The longest inputs that could be slow are all read to their end: what is
// exponential would be there for ever. How long a linear reading takes on a busy
// machine is no matter.
func TestConnectionStringTime(t *testing.T) {
	t.Parallel()
	const size = 8 << 10
	repeat := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for _, raw := range []string{
		repeat(`"`), repeat("'"), repeat(";"), repeat(`\n`), repeat("A="), repeat("A=;"), repeat("X=1 "), "psql " + repeat("-x ")[:size-5], repeat("a:b@"), "postgres://" + repeat("@/?")[:size-11],
		"postgres://u:" + repeat("%")[:size-60] + "@h/d", "postgres://u:p@h/d?" + repeat("a&")[:size-30], repeat("x=postgres://"), repeat("“"), repeat("[a"), repeat("\\\n"), "Server=h;Password=" + repeat(`""`)[:size-40],
		"postgres://u:" + repeat("[your ")[:size-60] + "@h/d", "X=" + repeat("'' ")[:size-10], repeat("a a "),
	} {
		begin := time.Now()
		_, _ = parse(tenantdb.PostgreSQL, raw[:min(size, len(raw))], "")
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("%.20q…: %v", raw, took)
		}
	}
}
