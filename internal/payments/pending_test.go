package payments_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/payments"
	"github.com/stoahq/stoa/internal/quotas"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestPendingPurchasesAreBounded checks that a store can create a limited number of
// purchases without paying them, also concurrently. A repeated request creates none.
func TestPendingPurchasesAreBounded(t *testing.T) {
	t.Parallel()
	const limit = 100
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		s := setup(t, db, sandbox())
		errs := make([]error, limit+20)
		var running sync.WaitGroup
		for i := range errs {
			running.Go(func() {
				_, errs[i] = s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: 5 * credits.Credit, IdempotencyKey: fmt.Sprint(i)})
			})
		}
		running.Wait()
		begun := 0
		for i, err := range errs {
			if err == nil {
				begun++
				_, err := s.Purchase(t.Context(), s.owner, s.store, payments.PurchaseRequest{Credits: 5 * credits.Credit, IdempotencyKey: fmt.Sprint(i)})
				testkit.Must(t, err)
				continue
			}
			var e *stoa.Error
			if !errors.As(err, &e) || e.Code != stoa.QuotaExceeded || *e.Quota != (stoa.Quota{Name: quotas.PendingPurchases, Limit: limit, Used: limit}) {
				t.Errorf("%v", err)
			}
		}
		if n := s.count(t, `SELECT count(*) FROM purchases`); begun != limit || n != limit {
			t.Errorf("%d purchases begun, %d rows, want %d", begun, n, limit)
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE purchases SET created_at = $1`, time.Now().UTC().Add(-25*time.Hour))
			return err
		}))
		s.buy(t, 5)
	})
}
