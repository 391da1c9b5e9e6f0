package operations_test

import (
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/testkit"
)

// last returns the last verification, which must exist.
func (b fixture) last(t *testing.T) operations.Verification {
	t.Helper()
	v, err := b.LastVerification(t.Context(), b.operator)
	testkit.Must(t, err)
	if v == nil {
		t.Fatal("there is no verification")
	}
	return *v
}

func TestVerify(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		if v, err := b.LastVerification(t.Context(), b.operator); v != nil || err != nil {
			t.Errorf("before the first one: %+v, %v", v, err)
		}
		b.account.Give(t, 10*credits.Credit)
		var together sync.WaitGroup
		for range 5 { // five clicks at once start one
			together.Go(func() {
				if err := b.Verify(t.Context(), b.operator); err != nil {
					t.Error(err)
				}
			})
		}
		together.Wait()
		v := b.last(t)
		if n := b.queued(t, "credits.verify"); n != 1 || v.State != operations.VerificationRunning || v.FinishedAt != nil || b.audited(t, audit.CreditsVerified) != 1 {
			t.Errorf("%d jobs, %d entries, %+v", n, b.audited(t, audit.CreditsVerified), v)
		}
		for range 2 { // a job that runs again changes nothing
			testkit.Must(t, b.RunVerification(t.Context(), operations.VerifyLedger{ID: v.ID}))
		}
		v = b.last(t)
		if v.State != operations.VerificationFinished || v.FinishedAt == nil || v.Email != "operator@example.com" || v.Report.Accounts != 1 ||
			v.Report.Of != 1 || v.Report.Transactions != 1 || len(v.Report.Inconsistencies) != 0 || b.audited(t, audit.CreditsVerified) != 2 {
			t.Errorf("%d entries, %+v", b.audited(t, audit.CreditsVerified), v)
		}

		b.exec(t, `UPDATE credit_balances SET lifetime_spent = 1 WHERE store_id = $1`, b.account.Store)
		testkit.Must(t, b.Verify(t.Context(), b.operator))
		testkit.Must(t, b.RunVerification(t.Context(), operations.VerifyLedger{ID: b.last(t).ID}))
		v = b.last(t)
		if v.State != operations.VerificationFinished || len(v.Report.Inconsistencies) != 1 || v.Report.Inconsistencies[0].StoreID != b.account.Store {
			t.Errorf("a fault of the ledger: %+v", v)
		}
		var outcome string
		testkit.Must(t, db.Get(t.Context(), &outcome, `SELECT outcome FROM audit_events WHERE action = $1 ORDER BY id DESC LIMIT 1`, audit.CreditsVerified))
		if outcome != string(audit.Failed) {
			t.Errorf("the audit log says %s of a fault", outcome)
		}
	})
}

// TestVerifyAfterAnInterruption checks that a verification which nobody continues makes
// room for the next one, and cannot record a result any more.
func TestVerifyAfterAnInterruption(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := setup(t, db, fleet.Options{})
		testkit.Must(t, b.Verify(t.Context(), b.operator))
		first := b.last(t)
		if first.Stalled(db.Now()) {
			t.Error("a verification that has begun is taken for stalled")
		}
		b.exec(t, `UPDATE ledger_verifications SET updated_at = $1, created_at = $1`, db.Now().UTC().Add(-time.Hour))
		if !b.last(t).Stalled(db.Now()) {
			t.Error("a verification without progress is not taken for stalled")
		}
		testkit.Must(t, b.Verify(t.Context(), b.operator))
		second := b.last(t)
		if second.ID == first.ID || second.State != operations.VerificationRunning {
			t.Fatalf("the next one: %+v", second)
		}
		testkit.Must(t, b.RunVerification(t.Context(), operations.VerifyLedger{ID: first.ID}))
		testkit.Must(t, b.RunVerification(t.Context(), operations.VerifyLedger{ID: second.ID}))
		var failed int
		testkit.Must(t, db.Get(t.Context(), &failed, `SELECT count(*) FROM ledger_verifications WHERE state = 'failed' AND error <> '' AND finished_at IS NOT NULL`))
		if v := b.last(t); failed != 1 || v.ID != second.ID || v.State != operations.VerificationFinished {
			t.Errorf("%d failed, the last is %+v", failed, v)
		}
	})
}
