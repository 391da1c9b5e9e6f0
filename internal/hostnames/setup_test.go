package hostnames

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/hostnames/hostnamestest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// replica is a service on a master database, with its own DNS server.
type replica struct {
	*Service
	server *hostnamestest.DNS
	logged *atomic.Int64 // number of log lines
}

// eachMaster runs test on every engine of the master.
func eachMaster(t *testing.T, test func(t *testing.T, r replica)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) { test(t, setup(t, db)) })
}

func setup(t *testing.T, db *masterdb.DB) replica {
	t.Helper()
	r := replica{server: hostnamestest.NewDNS(t), logged: new(atomic.Int64)}
	r.Service = New(db, "shops.test", slog.New(slog.NewTextHandler(lineCounter{r.logged}, nil)))
	r.UseDNS(r.server.Address)
	return r
}

// lineCounter counts log lines.
type lineCounter struct{ n *atomic.Int64 }

func (l lineCounter) Write(p []byte) (int, error) {
	l.n.Add(1)
	return len(p), nil
}

// store is a store with its owner.
type store struct {
	ID   stoa.StoreID
	Slug string
	authz.Principal
}

func (r replica) user(t *testing.T) authz.Principal {
	t.Helper()
	p := authz.Principal{UserID: stoa.NewID[stoa.UserID]()}
	r.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
		VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, p.UserID, p.UserID.String()+"@example.com", time.Now().UTC())
	return p
}

// member adds a user with that role to the store.
func (r replica) member(t *testing.T, id stoa.StoreID, role authz.Role) authz.Principal {
	t.Helper()
	p := r.user(t)
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		return authz.Grant(t.Context(), tx, id, p.UserID, role)
	}))
	return p
}

// store creates an active store that answers at <slug>.shops.test.
func (r replica) store(t *testing.T, slug string) store {
	t.Helper()
	s := store{ID: stoa.NewID[stoa.StoreID](), Slug: slug}
	s.Principal = r.user(t)
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, $2, 'active', $3, $4, $4)`, s.ID, slug, s.UserID, tx.Now)
		if err != nil {
			return err
		}
		if err := authz.Grant(t.Context(), tx, s.ID, s.UserID, authz.Owner); err != nil {
			return err
		}
		return r.MapSlug(t.Context(), tx, s.ID, slug)
	}))
	return s
}

// setStatus sets a store's state, from any state.
func (r replica) setStatus(t *testing.T, id stoa.StoreID, status string) {
	t.Helper()
	r.change(t, id, `UPDATE stores SET status = $2 WHERE id = $1`, id, status)
}

// change runs a statement in the master that concerns the store's state or
// hostnames, and notifies the change.
func (r replica) change(t *testing.T, id stoa.StoreID, query string, args ...any) {
	t.Helper()
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if _, err := tx.Exec(t.Context(), query, args...); err != nil {
			return err
		}
		return NotifyChange(tx, id)
	}))
}

// exec runs a statement in the master.
func (r replica) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

func (r replica) count(t *testing.T, what string) int {
	t.Helper()
	var n int
	testkit.Must(t, r.db.Get(t.Context(), &n, `SELECT count(*) FROM `+what))
	return n
}

func (r replica) claim(t *testing.T, s store, host string) Details {
	t.Helper()
	d, _, err := r.Claim(t.Context(), s.Principal, s.ID, host)
	testkit.Must(t, err)
	return d
}

// verify calls Verify after the minimum interval between two checks.
func (r replica) verify(t *testing.T, s store, host string) (Details, error) {
	t.Helper()
	r.exec(t, `UPDATE hostname_claims SET asked_at = NULL`)
	return r.Verify(t.Context(), s.Principal, s.ID, host)
}

// claimVerified claims a hostname, puts the record into the DNS and verifies it.
func (r replica) claimVerified(t *testing.T, s store, host string) {
	t.Helper()
	d := r.claim(t, s, host)
	r.server.Put(d.RecordName(), d.RecordValue())
	d, err := r.verify(t, s, host)
	testkit.Must(t, err)
	if d.VerifiedAt == nil {
		t.Fatalf("%s is not verified: %+v", host, *d.Verification)
	}
}

// wantStore fails the test unless host resolves to the store, or to no store if want is
// nil.
func (r replica) wantStore(t *testing.T, host string, want *store) {
	t.Helper()
	found, err := r.Resolve(t.Context(), host)
	if want == nil {
		wantCode(t, err, stoa.StoreNotFound)
	} else if testkit.Must(t, err); found.StoreID != want.ID {
		t.Fatalf("%s resolves to %s, want %s", host, found.StoreID, want.ID)
	}
}

// nextDay makes every verified hostname due and runs the daily job.
func (r replica) nextDay(t *testing.T) {
	t.Helper()
	r.exec(t, `UPDATE hostname_claims SET check_after = $1`, time.Now().UTC().Add(-time.Second))
	testkit.Must(t, r.Recheck(t.Context(), Recheck{}))
}

func (r replica) primary(t *testing.T, s store) string {
	t.Helper()
	list, err := r.List(t.Context(), s.Principal, s.ID)
	testkit.Must(t, err)
	var primary []string
	for _, d := range list {
		if d.Primary {
			primary = append(primary, d.Hostname.Hostname)
		}
	}
	return strings.Join(primary, " ")
}

// audited lists the store's audit log, as action and outcome, oldest first.
func (r replica) audited(t *testing.T, id stoa.StoreID) []string {
	t.Helper()
	var out []string
	testkit.Must(t, r.db.Select(t.Context(), &out, `SELECT action || ' ' || outcome FROM audit_events WHERE store_id = $1 ORDER BY id`, id))
	return out
}

// atOnce runs fn n times concurrently and returns the results.
func atOnce[T any](n int, fn func(i int) (T, error)) ([]T, []error) {
	values, errs := make([]T, n), make([]error, n)
	var gate, done sync.WaitGroup
	gate.Add(1)
	for i := range n {
		done.Go(func() {
			gate.Wait()
			values[i], errs[i] = fn(i)
		})
	}
	gate.Done()
	done.Wait()
	return values, errs
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

// wantQuota fails the test unless err is quota_exceeded with that quota.
func wantQuota(t testing.TB, err error, want stoa.Quota) {
	t.Helper()
	wantCode(t, err, stoa.QuotaExceeded)
	var e *stoa.Error
	if !errors.As(err, &e) || e.Quota == nil || *e.Quota != want {
		t.Fatalf("%v has the quota %+v, want %+v", err, e.Quota, want)
	}
}

// fields returns the names of the fields in the faults of err.
func fields(err error) string {
	var e *stoa.Error
	if !errors.As(err, &e) {
		return ""
	}
	var names []string
	for _, f := range e.Fields {
		names = append(names, f.Field)
	}
	return fmt.Sprint(names)
}
