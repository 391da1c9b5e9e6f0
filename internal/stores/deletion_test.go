package stores

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/riverqueue/river/rivertype"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestDeleteAndRestore(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		for _, before := range []Status{Active, Suspended, PendingDatabase, Provisioning} {
			b.setStatus(t, s.ID, before)
			got, err := b.Delete(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if got.Status != Deleting || got.DeleteAfter == nil || time.Until(*got.DeleteAfter) < DefaultGrace-time.Hour {
				t.Fatalf("from %s: %+v", before, got)
			}
			again, err := b.Delete(t.Context(), p, s.ID)
			testkit.Must(t, err)
			if !again.DeleteAfter.Equal(*got.DeleteAfter) {
				t.Errorf("deleted again it goes at %v, not %v", again.DeleteAfter, got.DeleteAfter)
			}
			b.resolves(t, s, stoa.StoreSuspended)
			// The owner of a store that never had a usable database does not see the
			// database of its credentials.
			shown, err := b.Get(t.Context(), p, s.ID)
			if open := before == Active || before == Suspended; err != nil || shown.Status != Deleting || (shown.Profile != nil) != open {
				t.Errorf("from %s it shows %+v, %v", before, shown, err)
			}
			_, err = b.Create(t.Context(), b.user(t), NewStore{Name: "Thief", Slug: s.Slug})
			wantCode(t, err, stoa.HostnameTaken)
			for range 2 {
				testkit.Must(t, b.Restore(t.Context(), p, s.ID))
				if got := b.status(t, s.ID); got != before {
					t.Errorf("restored to %s, was %s", got, before)
				}
			}
		}
		for _, role := range []authz.Role{authz.Admin, authz.Member, authz.Viewer} {
			other := b.member(t, s.ID, role)
			_, err := b.Delete(t.Context(), other, s.ID)
			wantCode(t, err, stoa.Forbidden)
			wantCode(t, b.Restore(t.Context(), other, s.ID), stoa.Forbidden)
		}
		_, err := b.Delete(t.Context(), b.user(t), s.ID)
		wantCode(t, err, stoa.StoreNotFound)
	})
}

// TestProvisioningEndsDuringDeletion checks that a run may end while its store is being
// deleted. A restore returns the store to the state that the run has reached.
func TestProvisioningEndsDuringDeletion(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		for want, end := range map[Status]func(context.Context, *masterdb.Tx, stoa.StoreID) error{
			Active: b.Activate, PendingDatabase: b.FailProvisioning,
		} {
			b.setStatus(t, s.ID, Provisioning)
			_, err := b.Delete(t.Context(), p, s.ID)
			testkit.Must(t, err)
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return end(t.Context(), tx, s.ID) }))
			if got := b.status(t, s.ID); got != Deleting {
				t.Errorf("the end of the run makes it %s", got)
			}
			testkit.Must(t, b.Restore(t.Context(), p, s.ID))
			if got := b.status(t, s.ID); got != want {
				t.Errorf("restored to %s, want %s", got, want)
			}
		}
	})
}

// doom deletes the store and ends its grace period.
func (b replica) doom(t *testing.T, p authz.Principal, id stoa.StoreID) DeleteStore {
	t.Helper()
	_, err := b.Delete(t.Context(), p, id)
	testkit.Must(t, err)
	b.exec(t, `UPDATE stores SET delete_after = $2 WHERE id = $1`, id, time.Now().UTC().Add(-time.Second))
	return DeleteStore{StoreID: id}
}

// gone checks that nothing is left except what has to be kept.
func (b replica) gone(t *testing.T, p authz.Principal, s Store) {
	t.Helper()
	_, err := b.Get(t.Context(), p, s.ID)
	wantCode(t, err, stoa.StoreNotFound)
	wantCode(t, b.Restore(t.Context(), p, s.ID), stoa.StoreNotFound)
	_, err = b.Delete(t.Context(), p, s.ID)
	wantCode(t, err, stoa.StoreNotFound)
	b.resolves(t, s, stoa.StoreNotFound)
	_, err = b.tenants.Acquire(t.Context(), s.ID)
	wantCode(t, err, stoa.StorePendingDatabase)
	id := " WHERE store_id = '" + s.ID.String() + "'"
	for what, want := range map[string]int{"store_databases": 0, "store_hostnames": 0, "hostname_claims": 0, "credit_balances": 1, "store_members": 1} {
		if n := b.count(t, what+id); n != want {
			t.Errorf("%d rows in %s, want %d", n, what, want)
		}
	}
	files, err := filepath.Glob(filepath.Join(b.dataDir, "stores", "??", s.ID.String()+"*"))
	if err != nil || len(files) > 0 {
		t.Errorf("left: %v, %v", files, err)
	}
}

func TestFinalDeletion(t *testing.T) {
	t.Parallel()
	eachTenant(t, func(t *testing.T, b replica, engine credential.EngineName) {
		p := b.user(t)
		s, tn := b.open(t, p, engine, "Bakery "+string(engine))
		_, err := b.Delete(t.Context(), p, s.ID)
		testkit.Must(t, err)
		var early *rivertype.JobSnoozeError
		if err := b.FinishDeletion(t.Context(), DeleteStore{s.ID}); !errors.As(err, &early) || early.Duration < DefaultGrace-time.Hour {
			t.Errorf("before its time: %v", err)
		}
		testkit.Must(t, b.Restore(t.Context(), p, s.ID))
		testkit.Must(t, b.FinishDeletion(t.Context(), DeleteStore{s.ID}))
		b.resolves(t, s, "")

		lease, err := b.tenants.Acquire(t.Context(), s.ID) // the database is in use until the end
		testkit.Must(t, err)
		_, _, err = b.Registry.hostnames.Claim(t.Context(), p, s.ID, "shop.example.com")
		testkit.Must(t, err)
		job := b.doom(t, p, s.ID)
		for range 2 {
			testkit.Must(t, b.FinishDeletion(t.Context(), job))
			b.gone(t, p, s)
		}
		lease.Release()
		if engine != credential.SQLite { // the merchant's own database
			db := tenantdbtest.Open(t, tn.Credentials)
			if version, err := db.SchemaVersion(t.Context()); err != nil || version == 0 {
				t.Errorf("the merchant's database: version %d, %v", version, err)
			}
		}
		next := b.user(t)
		_, err = b.Create(t.Context(), next, NewStore{Name: "Successor", Slug: s.Slug})
		wantCode(t, err, stoa.HostnameTaken)
		b.expire(t) // ends the time for which the slug is kept
		successor, err := b.Create(t.Context(), next, NewStore{Name: "Successor", Slug: s.Slug})
		testkit.Must(t, err)
		testkit.Must(t, b.mapHostname(t.Context(), successor.ID))
		if err := b.mapHostname(t.Context(), s.ID); stoa.CodeOf(err) != stoa.StoreNotFound {
			t.Errorf("a run that is late gives the deleted store a hostname: %v", err)
		}
	})
}

// TestDeletionByTheQueue checks that the queue deletes a store at the end of the grace
// period.
func TestDeletionByTheQueue(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.start(t)
		b.KeepDeleted(0)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		got, err := b.Delete(t.Context(), p, s.ID)
		testkit.Must(t, err)
		if got.Status != Deleting || got.DeleteAfter == nil {
			t.Errorf("the answer is %+v", got)
		}
		testkit.Eventually(t, testkit.Timeout, "the store is gone", func() bool { return b.count(t, `store_databases WHERE store_id = '`+s.ID.String()+`'`) == 0 })
		b.gone(t, p, s)
	})
}

// TestDropFails checks that the registry keeps the record of a database that could not be
// dropped, with the reason.
func TestDropFails(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		b.tenants.Forget(s.ID)
		testkit.Eventually(t, testkit.Timeout, "the file is closed", func() bool { return !b.fileInUse(t, s.ID) })
		path := filepath.Join(b.dataDir, "stores", s.ID.String()[34:], s.ID.String()+".db")
		testkit.Must(t, os.Remove(path))
		testkit.Must(t, os.MkdirAll(filepath.Join(path, "in the way"), 0o700))
		job := b.doom(t, p, s.ID)
		for range 2 {
			if err := b.FinishDeletion(t.Context(), job); err == nil {
				t.Fatal("the deletion has succeeded")
			}
			_, err := b.Get(t.Context(), p, s.ID)
			wantCode(t, err, stoa.StoreNotFound)
			kept, err := Find(t.Context(), db, s.ID.String())
			if err != nil || kept.Status != Deleted || kept.Database == nil || kept.Database.Status != tenantdb.StatusFailed || kept.Database.LastError == "" {
				t.Errorf("the operator is shown %+v, %v", kept, err)
			}
			var credentials string
			testkit.Must(t, db.Get(t.Context(), &credentials, `SELECT credentials FROM store_databases WHERE store_id = $1`, s.ID))
			if credentials != "" {
				t.Error("the credentials are still there")
			}
		}
		testkit.Must(t, os.RemoveAll(path))
		testkit.Must(t, b.FinishDeletion(t.Context(), job))
		b.gone(t, p, s)
	})
}

// TestDeletionInterrupted ends the process between any two parts of the deletion, or
// stops it before the deletion starts.
func TestDeletionInterrupted(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for _, dies := range []func(t *testing.T, job DeleteStore){
			func(t *testing.T, job DeleteStore) {
				ctx, stop := context.WithCancel(t.Context())
				stop()
				if err := b.FinishDeletion(ctx, job); !errors.Is(err, context.Canceled) {
					t.Errorf("stopped: %v", err)
				}
			},
			func(t *testing.T, job DeleteStore) {
				_, err := b.finalizeDeletion(t.Context(), job.StoreID)
				testkit.Must(t, err)
			},
			func(t *testing.T, job DeleteStore) {
				_, err := b.finalizeDeletion(t.Context(), job.StoreID)
				testkit.Must(t, err)
				info, err := tenantdb.ReadInfo(t.Context(), db, job.StoreID)
				testkit.Must(t, err)
				testkit.Must(t, b.managed.Drop(t.Context(), job.StoreID, *info))
			},
		} {
			p := b.user(t)
			s, _ := b.open(t, p, credential.SQLite, "Bakery")
			job := b.doom(t, p, s.ID)
			dies(t, job)
			testkit.Must(t, b.FinishDeletion(t.Context(), job))
			b.gone(t, p, s)
		}
	})
}

// TestRestoreAgainstDeletion checks that exactly one of a concurrent restore and deletion
// takes effect, and that the store is complete or deleted.
func TestRestoreAgainstDeletion(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		for range 8 {
			p := b.user(t)
			s, _ := b.open(t, p, credential.SQLite, "Bakery")
			job := b.doom(t, p, s.ID)
			_, errs := atOnce(4, func(i int) (any, error) {
				if i%2 == 0 {
					return nil, b.FinishDeletion(t.Context(), job)
				}
				return nil, b.Restore(t.Context(), p, s.ID)
			})
			testkit.Must(t, errors.Join(errs[0], errs[2]))
			if errs[1] == nil && errs[3] == nil {
				b.resolves(t, s, "")
				if got := b.profile(t, s.ID); got.ID != s.ID {
					t.Errorf("the profile is %+v", got)
				}
				continue
			}
			wantCode(t, errors.Join(errs[1], errs[3]), stoa.StoreNotFound)
			b.gone(t, p, s)
		}
	})
}

// TestDeletionWaitsForARun checks that a deletion waits for a run that uses the database,
// since the run would create again what is dropped.
func TestDeletionWaitsForARun(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		b.setStatus(t, s.ID, Provisioning)
		job := b.doom(t, p, s.ID)
		var wait *rivertype.JobSnoozeError
		if err := b.FinishDeletion(t.Context(), job); !errors.As(err, &wait) || b.status(t, s.ID) != Deleting {
			t.Errorf("while the run goes on: %v", err)
		}
		b.exec(t, `UPDATE stores SET delete_after = $2 WHERE id = $1`, s.ID, time.Now().UTC().Add(-provisioningWait))
		testkit.Must(t, b.FinishDeletion(t.Context(), job)) // it does not wait for a run that never ends
		b.gone(t, p, s)
	})
}
