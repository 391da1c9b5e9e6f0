package tenantdb_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// TestConnectionStringCost checks that the longest inputs that could be slow
// are read completely, and that the memory grows with their length and not with
// its square.
func TestConnectionStringCost(t *testing.T) { //nolint:paralleltest // it counts allocated bytes
	short, long := hostilePastes(2<<10), hostilePastes(8<<10)
	for i := range long {
		few, many := allocatedBytes(short[i]), allocatedBytes(long[i])
		if many > 6*few && many > 1<<20 {
			t.Errorf("%.20q…: %d bytes are allocated for 2 KiB, %d for 8 KiB", long[i], few, many)
		}
	}
}

func allocatedBytes(raw string) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _ = parse(credential.PostgreSQL, raw, "")
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func hostilePastes(size int) (out []string) {
	repeat := func(s string) string { return strings.Repeat(s, size/len(s)) }
	for _, raw := range []string{
		repeat(`"`), repeat("'"), repeat(";"), repeat(`\n`), repeat("A="), repeat("A=;"), repeat("X=1 "), "psql " + repeat("-x ")[:size-5], repeat("a:b@"), "postgres://" + repeat("@/?")[:size-11],
		"postgres://u:" + repeat("%")[:size-60] + "@h/d", "postgres://u:p@h/d?" + repeat("a&")[:size-30], repeat("x=postgres://"), repeat("“"), repeat("[a"), repeat("\\\n"), "Server=h;Password=" + repeat(`""`)[:size-40],
		"postgres://u:" + repeat("[your ")[:size-60] + "@h/d", "X=" + repeat("'' ")[:size-10], repeat("a a "),
	} {
		out = append(out, raw[:min(size, len(raw))])
	}
	return out
}
