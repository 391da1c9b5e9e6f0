package stores

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestStoreQuotaIsExact checks that, when one user creates fifty stores concurrently,
// exactly the allowed number are created, for each limit.
func TestStoreQuotaIsExact(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.UseQuotas(quotas.Limits{Stores: quotas.PerUser{Unverified: 3, Verified: 7}})
		for _, c := range []struct {
			name, change string
			limit        int // 0: no limit
		}{
			{"unverified", `id = id`, 3},
			{"verified", `email_verified = true`, 7},
			{"limit of their own", `quota_stores = 5`, 5},
			{"no limit of their own", `quota_stores = 0`, 0},
			{"operator", `role = 'admin'`, 0},
		} {
			p := b.user(t)
			b.exec(t, `UPDATE users SET `+c.change+` WHERE id = $1`, p.UserID)
			created := 0
			_, errs := atOnce(50, func(i int) (Store, error) {
				return b.Create(t.Context(), p, NewStore{Name: fmt.Sprintf("%s %d", c.name, i)})
			})
			for _, err := range errs {
				if err == nil {
					created++
					continue
				}
				wantQuota(t, err, stoa.Quota{Name: quotas.Stores, Limit: c.limit, Used: c.limit})
			}
			want := c.limit
			if want == 0 {
				want = 50
			}
			if n := b.count(t, `stores WHERE created_by = '`+p.UserID.String()+`'`); created != want || n != want {
				t.Errorf("%s: %d created, %d rows, want %d", c.name, created, n, want)
			}
		}
	})
}

// TestStoreQuotaCountsDeletedStores checks that creating and deleting in turn gives no
// more stores. Only a final deletion reduces the count.
func TestStoreQuotaCountsDeletedStores(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.UseQuotas(quotas.Limits{Stores: quotas.PerUser{Unverified: 1, Verified: 2}})
		p := b.user(t)
		s := b.create(t, p, "Bakery")
		_, err := b.Delete(t.Context(), p, s.ID)
		testkit.Must(t, err)
		_, err = b.Create(t.Context(), p, NewStore{Name: "Second"})
		wantQuota(t, err, stoa.Quota{Name: quotas.Stores, Limit: 1, Used: 1})
		if text := err.Error(); !strings.Contains(text, "Verify") || !strings.Contains(text, "up to 2") || !strings.Contains(text, "grace period") {
			t.Errorf("the error does not say what to do: %s", text)
		}
		b.end(t, s.ID)
		b.create(t, p, "Second")
		b.exec(t, `UPDATE users SET email_verified = true WHERE id = $1`, p.UserID)
		b.create(t, p, "Third")
		_, err = b.Create(t.Context(), p, NewStore{Name: "Fourth"})
		wantQuota(t, err, stoa.Quota{Name: quotas.Stores, Limit: 2, Used: 2})
		if strings.Contains(err.Error(), "Verify") {
			t.Errorf("a verified user is told to verify: %v", err)
		}
	})
}

// end deletes a store permanently, as after its grace period.
func (b replica) end(t *testing.T, id stoa.StoreID) {
	t.Helper()
	b.exec(t, `UPDATE stores SET delete_after = $2 WHERE id = $1`, id, time.Now().UTC().Add(-time.Second))
	testkit.Must(t, b.FinishDeletion(t.Context(), DeleteStore{StoreID: id}))
}

// TestStoresPerHour checks that the rate includes deleted stores, and that its error says
// when the next store may be created.
func TestStoresPerHour(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.UseQuotas(quotas.Limits{StoresPerHour: 3})
		b.KeepDeleted(0)
		p := b.user(t)
		for i := range 3 {
			s := b.create(t, p, fmt.Sprintf("Store %d", i))
			b.exec(t, `UPDATE stores SET created_at = $2 WHERE id = $1`, s.ID, time.Now().UTC().Add(time.Duration(i-50)*time.Minute))
			_, err := b.Delete(t.Context(), p, s.ID)
			testkit.Must(t, err)
			b.end(t, s.ID)
		}
		_, err := b.Create(t.Context(), p, NewStore{Name: "Fourth"})
		wantCode(t, err, stoa.RateLimited)
		var e *stoa.Error
		if !errors.As(err, &e) || e.RetryAfter < 9*time.Minute || e.RetryAfter > 10*time.Minute || *e.Quota != (stoa.Quota{Name: quotas.StoresPerHour, Limit: 3, Used: 3}) {
			t.Errorf("retry after %v, quota %+v", e.RetryAfter, e.Quota)
		}
		b.create(t, b.user(t), "Of another user")
		b.exec(t, `UPDATE stores SET created_at = $2 WHERE created_by = $1`, p.UserID, time.Now().UTC().Add(-61*time.Minute))
		b.create(t, p, "Fourth")
	})
}

// TestStoreQuotaAndIdempotency checks that concurrent calls with one key use the last
// store of the quota once, and that all of them return the same store.
func TestStoreQuotaAndIdempotency(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db)
		b.UseQuotas(quotas.Limits{Stores: quotas.PerUser{Unverified: 1, Verified: 1}, StoresPerHour: 1})
		p := b.user(t)
		created, errs := atOnce(10, func(int) (Store, error) {
			return b.Create(t.Context(), p, NewStore{Name: "Bakery", IdempotencyKey: "k"})
		})
		for i, err := range errs {
			testkit.Must(t, err)
			if created[i].ID != created[0].ID {
				t.Errorf("two stores with one key: %s, %s", created[i].ID, created[0].ID)
			}
		}
	})
}
