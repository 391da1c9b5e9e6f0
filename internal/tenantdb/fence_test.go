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

// TestWriterMeetsTwoMoves has a writer wait for the end of a move while the next one, such as
// its rollback, fences the new database.
func TestWriterMeetsTwoMoves(t *testing.T) {
	t.Parallel()
	fenced := &pgconn.PgError{Code: fenceState}
	third, ended := &DB{}, new(hold)
	ended.ended.Store(true)
	to := func(next *DB) func(context.Context) (Lease, bool, error) {
		return func(context.Context) (Lease, bool, error) { return Lease{DB: next, hold: ended}, true, nil }
	}
	first := &DB{successor: to(&DB{successor: to(third)})}
	err := first.afterMove(t.Context(), fenced, func(db *DB) error {
		if db != third {
			return fenced
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
