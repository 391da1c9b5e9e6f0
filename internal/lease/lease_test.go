package lease_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/lease"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
)

// fixture is a table with one row that can be leased.
type fixture struct {
	db    *masterdb.DB
	table lease.Table
}

func newFixture(t *testing.T, db *masterdb.DB, keepPresent bool) fixture {
	t.Helper()
	f := fixture{db: db, table: lease.Table{Name: "leased", Key: "id", Where: "state = 'open'", KeepPresent: keepPresent}}
	timestamp := "timestamptz"
	if db.Engine == masterdb.SQLite {
		timestamp = "timestamp"
	}
	f.exec(t, `CREATE TABLE leased (id text PRIMARY KEY, state text NOT NULL, claimed_by text, claimed_until `+timestamp+`)`)
	f.exec(t, `INSERT INTO leased (id, state) VALUES ('row', 'open')`)
	return f
}

func (f fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	err := f.tx(t, func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (f fixture) tx(t *testing.T, fn func(context.Context, *masterdb.Tx) error) error {
	t.Helper()
	return f.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return fn(t.Context(), tx) })
}

func (f fixture) lease(owner lease.Owner) lease.Lease {
	return lease.Lease{Table: f.table, Key: "row", Owner: owner, Duration: time.Hour}
}

// expire makes the lease expire.
func (f fixture) expire(t *testing.T) {
	t.Helper()
	f.exec(t, `UPDATE leased SET claimed_until = $1`, f.db.Now().Add(-time.Second))
}

func (f fixture) want(t *testing.T, what string, fn func(context.Context, *masterdb.Tx) error, want error) {
	t.Helper()
	if err := f.tx(t, fn); !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Errorf("%s: %v, want %v", what, err, want)
	}
}

// TestLease checks acquiring, renewing, releasing and expiring a lease with two owners.
func TestLease(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := newFixture(t, db, false)
		one, other := f.lease(lease.NewProcess("p").NewOwner()), f.lease(lease.NewProcess("q").NewOwner())
		f.want(t, "acquire a free row", one.Acquire, nil)
		f.want(t, "acquire a leased row", other.Acquire, lease.ErrLost)
		f.want(t, "renew", one.Renew, nil)
		f.want(t, "renew another's", other.Renew, lease.ErrLost)
		f.want(t, "release another's", other.Release, lease.ErrLost)
		f.want(t, "release", one.Release, nil)
		f.want(t, "renew after a release", one.Renew, lease.ErrLost)
		f.want(t, "acquire a released row", other.Acquire, nil)
		f.expire(t)
		f.want(t, "acquire an expired lease", one.Acquire, nil)
		f.want(t, "renew a lease that was taken over", other.Renew, lease.ErrLost)
		f.want(t, "expire", one.Expire, nil)
		f.want(t, "acquire after an expiry", other.Acquire, nil)
		f.want(t, "release at the end", other.Release, nil)
		f.exec(t, `UPDATE leased SET state = 'closed'`)
		f.want(t, "acquire a row that cannot be leased", one.Acquire, lease.ErrLost)
	})
}

// TestKeepPresent checks that the lease of another present process does not expire before
// that process has ended.
func TestKeepPresent(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := newFixture(t, db, true)
		process := lease.NewProcess("present")
		f.exec(t, `INSERT INTO processes (name, host, lock_key, started_at) VALUES ($1, 'test', 1, $2)`, process.Name(), db.Now())
		held, other := f.lease(process.NewOwner()), f.lease(lease.NewProcess("q").NewOwner())
		f.want(t, "acquire", held.Acquire, nil)
		f.expire(t)
		f.want(t, "acquire the lease of a present process", other.Acquire, lease.ErrLost)
		f.want(t, "acquire within the process", f.lease(process.NewOwner()).Acquire, nil)
		f.exec(t, `DELETE FROM processes`)
		f.want(t, "acquire before the lease has expired", other.Acquire, lease.ErrLost)
		f.want(t, "expire the process", func(ctx context.Context, tx *masterdb.Tx) error {
			n, err := f.table.ExpireProcess(ctx, tx, process.Name())
			if n != 1 {
				t.Errorf("%d leases expired, want 1", n)
			}
			return err
		}, nil)
		f.want(t, "acquire the lease of a process that ended", other.Acquire, nil)
	})
}

// TestKeep checks that a lease is renewed until another owner has it.
func TestKeep(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		f := newFixture(t, db, false)
		l := f.lease(lease.NewProcess("p").NewOwner())
		l.Duration = 3 * time.Second
		f.want(t, "acquire", l.Acquire, nil)
		ctx, stop := l.Keep(t.Context(), db, slog.New(slog.DiscardHandler))
		defer stop()
		f.exec(t, `UPDATE leased SET claimed_by = 'another.1'`)
		select {
		case <-ctx.Done():
		case <-time.After(time.Minute):
			t.Fatal("the lease is still kept")
		}
		if err := context.Cause(ctx); !errors.Is(err, lease.ErrLost) {
			t.Errorf("ended with %v", err)
		}
	})
}
