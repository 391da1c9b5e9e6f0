package tenantdb

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
)

// TestForgedFence has a database answer every change as a fenced one does. Each look into the
// master is counted: without a move there is one, and during a move there are few.
func TestForgedFence(t *testing.T) {
	t.Parallel()
	fenced := &pgconn.PgError{Code: fenceState}
	for name, c := range map[string]struct {
		moving     bool
		looks, min int
		code       stoa.Code
	}{
		"without a move": {false, 1, 1, stoa.CodeOf(fenced)},
		"during a move":  {true, 8, 3, stoa.TenantUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			looks, tries := 0, 0
			db := &DB{successor: func(context.Context) (Lease, bool, error) {
				looks++
				return Lease{}, c.moving, nil
			}}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := db.afterMove(ctx, fenced, func(*DB) error {
				tries++
				return fenced
			})
			if stoa.CodeOf(err) != c.code || looks > c.looks || looks < c.min || tries > looks {
				t.Errorf("%v after %d looks and %d tries", err, looks, tries)
			}
		})
	}
	if err := (&DB{}).afterMove(t.Context(), fenced, nil); !errors.Is(err, fenced) {
		t.Errorf("a database that is not leased: %v", err)
	}
}
