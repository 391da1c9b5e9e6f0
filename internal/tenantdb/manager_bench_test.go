package tenantdb_test

import (
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
)

// BenchmarkAcquireWarm measures the cost of a lease of an open database, which
// every request to a store pays. It should stay below 1 µs.
func BenchmarkAcquireWarm(b *testing.B) {
	h := setup(b, tenantdb.Options{})
	store := h.embedded(b)
	l := h.lease(b, store) // opens it
	works(b, l)
	l.Release()
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		l, err := h.Acquire(ctx, store)
		if err != nil {
			b.Fatal(err)
		}
		l.Release()
	}
}
