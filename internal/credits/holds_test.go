package credits_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestHoldOfAService(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		b.Price(t, "paint", 3_000, time.Now().UTC().Add(-time.Hour))
		held := b.Hold(t, credits.SpendRequest{ServiceKey: "paint", Quantity: ptr(int64(10)), Description: "a wall"})
		want := credits.Hold{
			ID: held.Hold.ID, StoreID: b.Store, Amount: 30_000, State: credits.HoldOpen, ServiceKey: ptr("paint"), Quantity: ptr(int64(10)),
			UnitPrice: ptr(credits.Amount(3_000)), Description: "a wall", UserID: &b.Owner.UserID,
			CreatedAt: held.Hold.CreatedAt, ExpiresAt: held.Hold.CreatedAt.Add(15 * time.Minute),
		}
		if d := cmp.Diff(want, held.Hold); d != "" {
			t.Error(d)
		}
		if got := b.Balance(t); got.Reserved != 30_000 || got.Available() != 70_000 || held.Balance.Reserved != 30_000 {
			t.Errorf("%+v", got)
		}
		// The price at the time of the hold applies.
		b.Price(t, "paint", 9_000, time.Now().UTC().Add(-time.Minute))
		got, err := b.Ledger.Capture(t.Context(), b.Owner, b.Store, held.Hold.ID, credits.CaptureRequest{Quantity: ptr(int64(7))})
		testkit.Must(t, err)
		wantRow := credits.Transaction{
			ID: got.Transaction.ID, StoreID: b.Store, Sequence: 2, Type: credits.TypeCapture, Amount: -21_000, BalanceAfter: 79_000,
			ServiceKey: ptr("paint"), Quantity: ptr(int64(7)), UnitPrice: ptr(credits.Amount(3_000)), Description: "a wall",
			UserID: &b.Owner.UserID, HoldID: &held.Hold.ID, CreatedAt: got.Transaction.CreatedAt,
		}
		if d := cmp.Diff(wantRow, *got.Transaction); d != "" {
			t.Error(d)
		}
		if got.Hold.State != credits.HoldCaptured || got.Hold.Captured != 21_000 || got.Balance.Reserved != 0 || got.Balance.LifetimeSpent != 21_000 {
			t.Errorf("%+v", got)
		}
	})
}

func TestHoldsRefuseFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, other := creditstest.New(t, db), creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		other.Give(t, 10*credits.Credit)
		theirs := other.Hold(t, credits.SpendRequest{Amount: credits.Credit}).Hold.ID
		plain := b.Hold(t, credits.SpendRequest{Amount: credits.Credit}).Hold.ID
		service := b.Hold(t, credits.SpendRequest{ServiceKey: "storage"}).Hold.ID
		before := b.Dump(t)
		viewer := b.Member(t, authz.Viewer)
		hold := func(p authz.Principal, req credits.HoldRequest) error {
			_, err := b.Ledger.Hold(t.Context(), p, b.Store, req)
			return err
		}
		one := credits.SpendRequest{Amount: credits.Credit}
		capture := func(p authz.Principal, id stoa.HoldID, req credits.CaptureRequest) error {
			_, err := b.Ledger.Capture(t.Context(), p, b.Store, id, req)
			return err
		}
		release := func(p authz.Principal, id stoa.HoldID, key string) error {
			_, err := b.Ledger.Release(t.Context(), p, b.Store, id, key)
			return err
		}
		for name, c := range map[string]struct {
			err  error
			code stoa.Code
		}{
			"a stranger holds":             {hold(other.Owner, credits.HoldRequest{SpendRequest: one}), stoa.StoreNotFound},
			"a viewer holds":               {hold(viewer, credits.HoldRequest{SpendRequest: one}), stoa.Forbidden},
			"nothing is held":              {hold(b.Owner, credits.HoldRequest{}), stoa.InvalidRequest},
			"too short":                    {hold(b.Owner, credits.HoldRequest{SpendRequest: one, ExpiresIn: time.Millisecond}), stoa.InvalidRequest},
			"in the past":                  {hold(b.Owner, credits.HoldRequest{SpendRequest: one, ExpiresIn: -time.Hour}), stoa.InvalidRequest},
			"too long":                     {hold(b.Owner, credits.HoldRequest{SpendRequest: one, ExpiresIn: 31 * 24 * time.Hour}), stoa.InvalidRequest},
			"more than there is":           {hold(b.Owner, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 9 * credits.Credit}}), stoa.InsufficientCredits},
			"an unknown service":           {hold(b.Owner, credits.HoldRequest{SpendRequest: credits.SpendRequest{ServiceKey: "none"}}), stoa.InvalidRequest},
			"a stranger captures":          {capture(other.Owner, plain, credits.CaptureRequest{}), stoa.StoreNotFound},
			"a viewer captures":            {capture(viewer, plain, credits.CaptureRequest{}), stoa.Forbidden},
			"another store's hold":         {capture(b.Owner, theirs, credits.CaptureRequest{}), stoa.HoldNotFound},
			"no hold":                      {capture(b.Owner, stoa.HoldID{}, credits.CaptureRequest{}), stoa.HoldNotFound},
			"more than is held":            {capture(b.Owner, plain, credits.CaptureRequest{Amount: credits.Credit + 1}), stoa.InvalidRequest},
			"less than nothing":            {capture(b.Owner, plain, credits.CaptureRequest{Amount: -1}), stoa.InvalidRequest},
			"an amount and a quantity":     {capture(b.Owner, service, credits.CaptureRequest{Amount: 1, Quantity: ptr(int64(1))}), stoa.InvalidRequest},
			"a quantity of nothing":        {capture(b.Owner, plain, credits.CaptureRequest{Quantity: ptr(int64(1))}), stoa.InvalidRequest},
			"no quantity":                  {capture(b.Owner, service, credits.CaptureRequest{Quantity: ptr(int64(0))}), stoa.InvalidRequest},
			"a larger quantity":            {capture(b.Owner, service, credits.CaptureRequest{Quantity: ptr(int64(2))}), stoa.InvalidRequest},
			"a quantity beyond all":        {capture(b.Owner, service, credits.CaptureRequest{Quantity: ptr(int64(1) << 62)}), stoa.InvalidRequest},
			"a stranger releases":          {release(other.Owner, plain, ""), stoa.StoreNotFound},
			"another store's is released":  {release(b.Owner, theirs, ""), stoa.HoldNotFound},
			"a key that cannot be printed": {release(b.Owner, plain, "\x00"), stoa.InvalidRequest},
		} {
			if got := stoa.CodeOf(c.err); got != c.code {
				t.Errorf("%s: %v, want %s", name, c.err, c.code)
			}
		}
		if after := b.Dump(t); after != before {
			t.Errorf("the refusals changed\n%s\nto\n%s", before, after)
		}
	})
}

// TestConcurrentResolutions checks that only one of several concurrent calls resolves a
// hold.
func TestConcurrentResolutions(t *testing.T) {
	t.Parallel()
	eachTwice(t, func(t *testing.T, b creditstest.Account, ledgers [2]*credits.Ledger) {
		b.Give(t, 100*credits.Credit)
		for round := range 5 {
			id := b.Hold(t, credits.SpendRequest{Amount: credits.Credit}).Hold.ID
			errs := concurrently(12, func(i int) error {
				if i%3 == 0 {
					_, err := ledgers[i%2].Release(t.Context(), b.Owner, b.Store, id, "")
					return err
				}
				_, err := ledgers[i%2].Capture(t.Context(), b.Owner, b.Store, id, credits.CaptureRequest{Amount: credits.Credit / 2})
				return err
			})
			won := 0
			for _, err := range errs {
				switch stoa.CodeOf(err) {
				case "":
					won++
				case stoa.HoldNotOpen:
				default:
					t.Error(err)
				}
			}
			if won != 1 {
				t.Errorf("round %d: %d of 12 resolved the hold", round, won)
			}
		}
		if got := b.Balance(t); got.Reserved != 0 {
			t.Errorf("%+v", got)
		}
		report, err := verify.Run(t.Context(), b.DB, nil)
		testkit.Must(t, err)
		if len(report.Inconsistencies) > 0 {
			t.Error(report.Inconsistencies)
		}
	})
}

// TestOverdueHolds checks that the credits of an overdue hold are available to the next
// spend, before any sweep, and that a sweep releases the other overdue holds.
func TestOverdueHolds(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, idle := creditstest.New(t, db), creditstest.New(t, db)
		var changed []stoa.StoreID
		b.Ledger.OnChange(func(id stoa.StoreID) { changed = append(changed, id) })
		for _, s := range []creditstest.Account{b, idle} {
			s.Give(t, credits.Credit)
			s.Hold(t, credits.SpendRequest{Amount: credits.Credit})
			s.Exec(t, `UPDATE credit_holds SET expires_at = $2 WHERE store_id = $1`, s.Store, time.Now().UTC().Add(-time.Second))
		}
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit})
		testkit.Must(t, err)
		if got := idle.Balance(t); got.Available() != 0 {
			t.Errorf("nobody has touched it: %+v", got)
		}
		changed = nil
		testkit.Must(t, b.Ledger.Sweep(t.Context(), credits.Sweep{}))
		testkit.Must(t, b.Ledger.Sweep(t.Context(), credits.Sweep{}))
		if got := idle.Balance(t); got.Available() != credits.Credit {
			t.Errorf("after the sweep: %+v", got)
		}
		if !slices.Equal(changed, []stoa.StoreID{idle.Store}) {
			t.Errorf("told of changes to %v, want one of %s", changed, idle.Store)
		}
		page, err := idle.Ledger.Holds(t.Context(), idle.Owner, idle.Store, credits.HoldFilter{State: credits.HoldExpired})
		testkit.Must(t, err)
		if len(page.Holds) != 1 || page.Holds[0].ResolvedAt == nil {
			t.Errorf("%+v", page)
		}
	})
}

func TestHoldsArePaged(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, other := creditstest.New(t, db), creditstest.New(t, db)
		b.Give(t, 100*credits.Credit)
		var want []stoa.HoldID
		for i := range 7 {
			h := b.Hold(t, credits.SpendRequest{Amount: credits.Credit, Description: fmt.Sprint(i)})
			want = append([]stoa.HoldID{h.Hold.ID}, want...)
		}
		var got []stoa.HoldID
		for f := (credits.HoldFilter{Limit: 3}); ; {
			page, err := b.Ledger.Holds(t.Context(), b.Owner, b.Store, f)
			testkit.Must(t, err)
			for _, h := range page.Holds {
				got = append(got, h.ID)
			}
			if page.NextCursor == nil {
				break
			}
			f.Cursor = *page.NextCursor
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, f := range []credits.HoldFilter{{State: "held"}, {Limit: 101}, {Limit: -1}, {Cursor: "x"}} {
			if _, err := b.Ledger.Holds(t.Context(), b.Owner, b.Store, f); stoa.CodeOf(err) != stoa.InvalidRequest {
				t.Errorf("%+v: %v", f, err)
			}
		}
		_, err := b.Ledger.Holds(t.Context(), other.Owner, b.Store, credits.HoldFilter{})
		wantCode(t, err, stoa.StoreNotFound)
	})
}

func TestReversalsRefuseFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		good := credits.Reversal{Type: credits.TypeRefund, Amount: 1, IdempotencyKey: "r"}
		for name, c := range map[string]struct {
			change func(*credits.Reversal)
			field  string
		}{
			"type":          {func(r *credits.Reversal) { r.Type = credits.TypeSpend }, "type"},
			"amount":        {func(r *credits.Reversal) { r.Amount = 0 }, "amount"},
			"reference":     {func(r *credits.Reversal) { r.Reference = "\x00" }, "reference"},
			"no key":        {func(r *credits.Reversal) { r.IdempotencyKey = "" }, "idempotencyKey"},
			"a spend's key": {func(r *credits.Reversal) { r.IdempotencyKey = "spend:x" }, "idempotencyKey"},
		} {
			r := good
			c.change(&r)
			for _, move := range []func(*masterdb.Tx) error{
				func(tx *masterdb.Tx) error { _, err := b.Ledger.ClawBack(t.Context(), tx, b.Store, r); return err },
				func(tx *masterdb.Tx) error { _, err := b.Ledger.Reinstate(t.Context(), tx, b.Store, r); return err },
			} {
				if err := db.Tx(t.Context(), move); !slices.Equal(fields(err), []string{c.field}) {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			for _, err := range []error{
				b.Ledger.Freeze(t.Context(), tx, b.Store, "", 1), b.Ledger.Freeze(t.Context(), tx, b.Store, "d", 0),
			} {
				if stoa.CodeOf(err) != stoa.InvalidRequest {
					t.Errorf("got %v", err)
				}
			}
			return errors.Join(b.Ledger.Unfreeze(t.Context(), tx, b.Store, "unknown"))
		}))
		// A debt blocks spending. The next credits of any kind repay it first.
		testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
			_, err := b.Ledger.ClawBack(t.Context(), tx, b.Store, credits.Reversal{Type: credits.TypeDispute, Amount: 3 * credits.Credit, IdempotencyKey: "d"})
			return err
		}))
		b.Give(t, credits.Credit)
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 1})
		wantCode(t, err, stoa.InsufficientCredits)
		b.Give(t, 3*credits.Credit)
		if got := b.Balance(t); got.Debt != 0 || got.Balance != credits.Credit {
			t.Errorf("%+v", got)
		}
		b.CheckInvariants(t)
	})
}
