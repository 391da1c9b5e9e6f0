package traffic_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
	"github.com/stoahq/stoa/internal/traffic"
)

// newStore creates a store and returns it with its owner.
func newStore(t *testing.T, db *masterdb.DB) (stoa.StoreID, authz.Principal) {
	t.Helper()
	id, owner := stoa.NewID[stoa.StoreID](), authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, owner.UserID, owner.UserID.String()+"@example.com", tx.Now)
		if err != nil {
			return err
		}
		_, err = tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A', 'active', $3, $4, $4)`, id, id.String(), owner.UserID, tx.Now)
		if err != nil {
			return err
		}
		return authz.Grant(t.Context(), tx, id, owner.UserID, authz.Owner)
	}))
	return id, owner
}

// TestFlushAdds checks that two processes add to the same hour, and that a store's
// traffic is read with zero for the hours without requests.
func TestFlushAdds(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, owner := newStore(t, db)
		other, stranger := newStore(t, db)
		log := slog.New(slog.DiscardHandler)
		a, b := traffic.New(db, log), traffic.New(db, log)
		a.Count(store, 10*time.Millisecond, false)
		a.Count(store, 90*time.Millisecond, true)
		b.Count(store, 50*time.Millisecond, false)
		b.Count(other, time.Second, false)
		for range 2 { // the second time there is nothing to add
			testkit.Must(t, a.Flush(t.Context()))
			testkit.Must(t, b.Flush(t.Context()))
		}
		day, err := a.Day(t.Context(), owner, store)
		testkit.Must(t, err)
		var sum traffic.Hour
		for _, h := range day {
			sum.Requests, sum.Errors, sum.TotalMS, sum.SlowestMS = sum.Requests+h.Requests, sum.Errors+h.Errors, sum.TotalMS+h.TotalMS, max(sum.SlowestMS, h.SlowestMS)
		}
		if want := (traffic.Hour{Requests: 3, Errors: 1, TotalMS: 150, SlowestMS: 90}); len(day) != 24 || sum != want {
			t.Errorf("a day of %d hours with %+v, want 24 with %+v", len(day), sum, want)
		}
		if _, err := a.Day(t.Context(), stranger, store); stoa.CodeOf(err) != stoa.StoreNotFound {
			t.Errorf("a stranger reads: %v, want store_not_found", err)
		}
	})
}

// TestFlushKeepsWhatFailed checks that counts survive a master that does not answer.
func TestFlushKeepsWhatFailed(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, owner := newStore(t, db)
		s := traffic.New(db, slog.New(slog.DiscardHandler))
		s.Count(store, time.Millisecond, false)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Flush(gone); err == nil {
			t.Fatal("a flush under an ended context succeeded")
		}
		s.Count(store, time.Millisecond, false)
		testkit.Must(t, s.Flush(t.Context()))
		day, err := s.Day(t.Context(), owner, store)
		testkit.Must(t, err)
		if n := day[22].Requests + day[23].Requests; n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// TestRunFlushesAtTheEnd checks that a process that stops stores its counts.
func TestRunFlushesAtTheEnd(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		store, owner := newStore(t, db)
		s := traffic.New(db, slog.New(slog.DiscardHandler))
		s.Count(store, time.Millisecond, false)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		s.Run(ctx)
		day, err := s.Day(t.Context(), owner, store)
		testkit.Must(t, err)
		if n := day[22].Requests + day[23].Requests; n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}
