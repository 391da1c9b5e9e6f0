package stores

import (
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// resolves checks the result for shoppers at the store's hostname.
func (b replica) resolves(t *testing.T, s Store, want stoa.Code) {
	t.Helper()
	_, err := b.Resolve(t.Context(), s.Slug+".shops.test")
	wantCode(t, err, want)
}

func TestSuspendAndResume(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		admin := b.member(t, s.ID, authz.Admin)
		b.resolves(t, s, "")
		for range 2 {
			testkit.Must(t, b.Suspend(t.Context(), admin, s.ID))
			b.resolves(t, s, stoa.StoreSuspended)
		}
		if got, err := b.Get(t.Context(), p, s.ID); err != nil || got.Status != Suspended || got.Profile == nil || got.SuspendedByOperator {
			t.Errorf("suspended: %+v, %v", got, err)
		}
		for range 2 {
			testkit.Must(t, b.Resume(t.Context(), admin, s.ID))
			b.resolves(t, s, "")
		}
		for _, role := range []authz.Role{authz.Member, authz.Viewer} {
			wantCode(t, b.Suspend(t.Context(), b.member(t, s.ID, role), s.ID), stoa.Forbidden)
			wantCode(t, b.Resume(t.Context(), b.member(t, s.ID, role), s.ID), stoa.Forbidden)
		}
		wantCode(t, b.Suspend(t.Context(), b.user(t), s.ID), stoa.StoreNotFound)
		wantCode(t, b.Resume(t.Context(), b.user(t), s.ID), stoa.StoreNotFound)
		b.resolves(t, s, "")
	})
}

// TestSuspensionByOperator checks that only the operator can resume a store that the
// operator has suspended.
func TestSuspensionByOperator(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s, _ := b.open(t, p, credential.SQLite, "Bakery")
		testkit.Must(t, b.Suspend(t.Context(), p, s.ID)) // even if its owner suspended it first
		testkit.Must(t, b.SuspendByOperator(t.Context(), authz.Principal{}, s.ID))
		testkit.Must(t, b.Suspend(t.Context(), p, s.ID))
		wantCode(t, b.Resume(t.Context(), p, s.ID), stoa.Forbidden)
		// A deletion and a restore do not resume it either.
		_, err := b.Delete(t.Context(), p, s.ID)
		testkit.Must(t, err)
		testkit.Must(t, b.Restore(t.Context(), p, s.ID))
		wantCode(t, b.Resume(t.Context(), p, s.ID), stoa.Forbidden)
		b.resolves(t, s, stoa.StoreSuspended)
		testkit.Must(t, b.ResumeByOperator(t.Context(), authz.Principal{}, s.ID))
		b.resolves(t, s, "")
		testkit.Must(t, b.Suspend(t.Context(), p, s.ID))
		testkit.Must(t, b.Resume(t.Context(), p, s.ID))
	})
}

// TestTransitionsFromEveryState checks the table of all lifecycle transitions.
func TestTransitionsFromEveryState(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		type outcome struct {
			status Status
			code   stoa.Code
		}
		for from, want := range map[Status][3]outcome{ // suspend, resume, restore
			PendingDatabase: {{PendingDatabase, stoa.StorePendingDatabase}, {PendingDatabase, stoa.StorePendingDatabase}, {PendingDatabase, ""}},
			Provisioning:    {{Provisioning, stoa.StorePendingDatabase}, {Provisioning, stoa.StorePendingDatabase}, {Provisioning, ""}},
			Active:          {{Suspended, ""}, {Active, ""}, {Active, ""}},
			Suspended:       {{Suspended, ""}, {Active, ""}, {Suspended, ""}},
			Deleting:        {{Deleting, stoa.StoreSuspended}, {Deleting, stoa.StoreSuspended}, {Active, ""}},
			Deleted:         {{Deleted, stoa.StoreNotFound}, {Deleted, stoa.StoreNotFound}, {Deleted, stoa.StoreNotFound}},
		} {
			for i, turn := range []func() error{
				func() error { return b.Suspend(t.Context(), p, s.ID) },
				func() error { return b.Resume(t.Context(), p, s.ID) },
				func() error { return b.Restore(t.Context(), p, s.ID) },
				func() error { return b.SuspendByOperator(t.Context(), authz.Principal{}, s.ID) },
				func() error { return b.ResumeByOperator(t.Context(), authz.Principal{}, s.ID) },
				func() error { return b.RestoreByOperator(t.Context(), authz.Principal{}, s.ID) },
			} {
				b.change(t, s.ID, `UPDATE stores SET status = $2, held = false,
					status_before = CASE WHEN $2 = 'deleting' THEN 'active' END, delete_after = CASE WHEN $2 = 'deleting' THEN created_at END WHERE id = $1`,
					s.ID, string(from))
				if code := stoa.CodeOf(turn()); code != want[i%3].code {
					t.Errorf("turn %d from %s: %q, want %q", i, from, code, want[i%3].code)
				}
				if got := b.status(t, s.ID); got != want[i%3].status {
					t.Errorf("turn %d from %s leads to %s, want %s", i, from, got, want[i%3].status)
				}
			}
		}
		nobody := stoa.NewID[stoa.StoreID]()
		wantCode(t, b.SuspendByOperator(t.Context(), authz.Principal{}, nobody), stoa.StoreNotFound)
		wantCode(t, b.Restore(t.Context(), p, nobody), stoa.StoreNotFound)
	})
}
