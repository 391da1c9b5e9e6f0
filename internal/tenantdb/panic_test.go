package tenantdb_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// TestPanicWhileOpening checks that a driver that panics while a store's
// database is opened causes an error for that store's callers and does not end
// the process. The opening has its own goroutine.
func TestPanicWhileOpening(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{MaxEmbedded: 1})
	store, other := h.embedded(t), h.embedded(t)
	h.beforeOpen(func() error { panic("a bug of a driver") })
	for i := range 5 { // more often than the limit of open files and the breaker allow
		_, err := h.Acquire(t.Context(), store)
		var known *stoa.Error
		if !errors.As(err, &known) || known.Code != stoa.TenantUnavailable || strings.Contains(known.Message, "bug") {
			t.Errorf("a shopper is told: %v", err)
		}
		if cause := err.Error(); i == 0 && !strings.Contains(cause, "a bug of a driver") {
			t.Errorf("the log is not told: %v", err)
		}
	}
	if h.Refusing(store) == nil {
		t.Error("the store's database is not left alone after five panics")
	}
	h.beforeOpen(nil)
	lease, err := h.Acquire(t.Context(), other) // which needs the only file
	if err != nil {
		t.Fatal(err)
	}
	lease.Release()
}
