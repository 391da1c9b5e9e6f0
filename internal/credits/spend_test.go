package credits_test

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

func TestSpendAmount(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)

		got, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 25_000, Description: "two and a half"})
		testkit.Must(t, err)

		want := credits.Transaction{
			ID: got.Transaction.ID, StoreID: b.Store, Sequence: 2, Type: credits.TypeSpend, Amount: -25_000,
			BalanceAfter: 75_000, Description: "two and a half", UserID: &b.Owner.UserID, CreatedAt: got.Transaction.CreatedAt,
		}
		if d := cmp.Diff(want, got.Transaction); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(want, b.Rows(t)[1]); d != "" {
			t.Error("stored:", d)
		}
		wantBalance := credits.Balance{
			StoreID: b.Store, Balance: 75_000, LifetimeSpent: 25_000, Seq: 2, Version: 2, UpdatedAt: want.CreatedAt,
		}
		if d := cmp.Diff(wantBalance, got.Balance); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(wantBalance, b.Balance(t)); d != "" {
			t.Error("stored:", d)
		}
	})
}

func TestSpendService(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		now := time.Now().UTC()
		b.Price(t, "paint", 3_000, now.Add(-2*time.Hour))
		b.Price(t, "paint", 5_000, now.Add(-time.Hour))
		b.Price(t, "paint", 9_000, now.Add(time.Hour))

		got, err := b.Spend(t.Context(), credits.SpendRequest{ServiceKey: "paint", Quantity: ptr(int64(3))})
		testkit.Must(t, err)
		want := credits.Transaction{
			ID: got.Transaction.ID, StoreID: b.Store, Sequence: 2, Type: credits.TypeSpend, Amount: -15_000, BalanceAfter: 85_000,
			ServiceKey: ptr("paint"), Quantity: ptr(int64(3)), UnitPrice: ptr(credits.Amount(5_000)),
			UserID: &b.Owner.UserID, CreatedAt: got.Transaction.CreatedAt,
		}
		if d := cmp.Diff(want, got.Transaction); d != "" {
			t.Error(d)
		}
		if d := cmp.Diff(want, b.Rows(t)[1]); d != "" {
			t.Error("stored:", d)
		}

		got, err = b.Spend(t.Context(), credits.SpendRequest{ServiceKey: "paint"})
		testkit.Must(t, err)
		if got.Transaction.Amount != -5_000 || *got.Transaction.Quantity != 1 {
			t.Errorf("without a quantity: %+v", got.Transaction)
		}
	})
}

func TestSpendRefusesFaults(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		b.Price(t, "free", 0, time.Now().UTC().Add(-time.Hour))
		b.Price(t, "dear", math.MaxInt64, time.Now().UTC().Add(-time.Hour))
		b.Price(t, "tomorrow", 1, time.Now().UTC().Add(24*time.Hour))
		for name, c := range map[string]struct {
			req    credits.SpendRequest
			fields []string
		}{
			"nothing":             {credits.SpendRequest{}, []string{"amount"}},
			"negative":            {credits.SpendRequest{Amount: -1}, []string{"amount"}},
			"both":                {credits.SpendRequest{Amount: 1, ServiceKey: "storage"}, []string{"amount"}},
			"quantity alone":      {credits.SpendRequest{Amount: 1, Quantity: ptr(int64(2))}, []string{"quantity"}},
			"quantity 0":          {credits.SpendRequest{ServiceKey: "storage", Quantity: ptr(int64(0))}, []string{"quantity"}},
			"unknown service":     {credits.SpendRequest{ServiceKey: "storag"}, []string{"serviceKey"}},
			"service not begun":   {credits.SpendRequest{ServiceKey: "tomorrow"}, []string{"serviceKey"}},
			"service zero byte":   {credits.SpendRequest{ServiceKey: "a\x00"}, []string{"serviceKey"}},
			"free service":        {credits.SpendRequest{ServiceKey: "free"}, []string{"serviceKey"}},
			"overflow":            {credits.SpendRequest{ServiceKey: "dear", Quantity: ptr(int64(2))}, []string{"quantity"}},
			"overflow by much":    {credits.SpendRequest{ServiceKey: "dear", Quantity: ptr(int64(math.MaxInt64))}, []string{"quantity"}},
			"description long":    {credits.SpendRequest{Amount: 1, Description: strings.Repeat("é", 501)}, []string{"description"}},
			"description invalid": {credits.SpendRequest{Amount: 1, Description: "\xff"}, []string{"description"}},
			"key long":            {credits.SpendRequest{Amount: 1, IdempotencyKey: strings.Repeat("k", 256)}, []string{"idempotencyKey"}},
			"key not ASCII":       {credits.SpendRequest{Amount: 1, IdempotencyKey: "ключ"}, []string{"idempotencyKey"}},
			"key not printable":   {credits.SpendRequest{Amount: 1, IdempotencyKey: "a\nb"}, []string{"idempotencyKey"}},
			"several": {
				credits.SpendRequest{Amount: -1, Description: strings.Repeat("a", 501), IdempotencyKey: "\x7f"},
				[]string{"amount", "description", "idempotencyKey"},
			},
		} {
			_, err := b.Spend(t.Context(), c.req)
			if got := fields(err); stoa.CodeOf(err) != stoa.InvalidRequest || !slices.Equal(got, c.fields) {
				t.Errorf("%s: %v, fields %v; want invalid_request with %v", name, err, got, c.fields)
			}
		}
		if got := len(b.Rows(t)); got != 1 {
			t.Errorf("%d rows, want only the grant", got)
		}
		// The maximum length is accepted.
		_, err := b.Spend(t.Context(), credits.SpendRequest{
			Amount: 1, Description: strings.Repeat("é", 500), IdempotencyKey: strings.Repeat("~", 255),
		})
		testkit.Must(t, err)
	})
}

func fields(err error) []string {
	var e *stoa.Error
	var out []string
	if errors.As(err, &e) {
		for _, f := range e.Fields {
			out = append(out, f.Field)
		}
	}
	return out
}

func TestSpendNeedsEnoughAvailable(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for name, c := range map[string]struct {
			set   string // the change to an account of 10 credits
			spend credits.Amount
			say   []string
		}{
			"too much":      {"updated_at = updated_at", 10*credits.Credit + 1, []string{"10.0001", " 10 "}},
			"reserved":      {"reserved = 75000", 30_000, []string{" 3 ", " 2.5 "}},
			"all reserved":  {"reserved = balance", 1, []string{"0.0001", " 0 "}},
			"debt":          {"debt = 5000, reserved = balance", 1, []string{"0.0001", "0.5"}},
			"the most ever": {"updated_at = updated_at", math.MaxInt64, []string{"922337203685477.5807"}},
		} {
			b := creditstest.New(t, db)
			b.Give(t, 10*credits.Credit)
			b.Exec(t, `UPDATE credit_balances SET `+c.set+` WHERE store_id = $1`, b.Store)
			before := b.Balance(t)

			_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: c.spend, IdempotencyKey: "k"})
			if stoa.CodeOf(err) != stoa.InsufficientCredits {
				t.Errorf("%s: %v", name, err)
				continue
			}
			for _, say := range c.say {
				if !strings.Contains(err.Error(), say) {
					t.Errorf("%s: %v: does not say %q", name, err, say)
				}
			}
			if d := cmp.Diff(before, b.Balance(t)); d != "" {
				t.Errorf("%s: changed the balance: %s", name, d)
			}
			b.CheckInvariants(t)
		}
	})
}

func TestSpendAllThatIsAvailable(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		b.Exec(t, `UPDATE credit_balances SET reserved = 75000 WHERE store_id = $1`, b.Store)
		got, err := b.Spend(t.Context(), credits.SpendRequest{Amount: 25_000})
		testkit.Must(t, err)
		if got.Balance.Available() != 0 || got.Balance.Balance != 75_000 {
			t.Errorf("%+v", got.Balance)
		}
	})
}

func TestSpendReplay(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		b.Price(t, "paint", 5_000, time.Now().UTC().Add(-time.Hour))
		req := credits.SpendRequest{ServiceKey: "paint", Description: "d", IdempotencyKey: "k"}
		first, err := b.Spend(t.Context(), req)
		testkit.Must(t, err)
		_, err = b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit})
		testkit.Must(t, err)
		// With a new price it is still the same request.
		b.Price(t, "paint", 6_000, time.Now().UTC().Add(-time.Minute))

		req.Quantity = ptr(int64(1)) // the default value, given explicitly
		again, err := b.Spend(t.Context(), req)
		testkit.Must(t, err)
		first.Replayed = true
		if d := cmp.Diff(first, again, cmpopts.IgnoreFields(credits.Balance{}, "Seq", "Version")); d != "" {
			t.Error("a replay differs:", d)
		}
		for name, change := range map[string]func(*credits.SpendRequest){
			"quantity":    func(r *credits.SpendRequest) { r.Quantity = ptr(int64(2)) },
			"service":     func(r *credits.SpendRequest) { r.ServiceKey = "storage" },
			"description": func(r *credits.SpendRequest) { r.Description = "e" },
			"amount": func(r *credits.SpendRequest) {
				r.ServiceKey, r.Quantity, r.Amount = "", nil, 5_000
			},
			"unaffordable": func(r *credits.SpendRequest) { r.Quantity = ptr(int64(1_000_000)) },
		} {
			changed := req
			change(&changed)
			if _, err := b.Spend(t.Context(), changed); stoa.CodeOf(err) != stoa.IdempotencyConflict {
				t.Errorf("another %s: %v", name, err)
			}
		}
		if got := len(b.Rows(t)); got != 3 {
			t.Errorf("%d rows, want 3", got)
		}
	})
}

func TestKeysAreTheStoresOwn(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		for range 2 {
			b := creditstest.New(t, db)
			b.Give(t, credits.Credit)
			got, err := b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "same"})
			testkit.Must(t, err)
			if got.Transaction.StoreID != b.Store {
				t.Error("answered with another store's transaction")
			}
		}
	})
}

func TestFailedSpendLeavesItsKeyFree(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b := creditstest.New(t, db)
		_, err := b.Spend(t.Context(), credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: "k"})
		wantCode(t, err, stoa.InsufficientCredits)
		b.Give(t, 3*credits.Credit)
		_, err = b.Spend(t.Context(), credits.SpendRequest{Amount: 2 * credits.Credit, IdempotencyKey: "k"})
		testkit.Must(t, err)
	})
}

func TestSpendIsForMembersWhoMay(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		b, other := creditstest.New(t, db), creditstest.New(t, db)
		b.Give(t, 10*credits.Credit)
		req := credits.SpendRequest{Amount: credits.Credit}

		_, theirs := b.Ledger.Spend(t.Context(), other.Owner, b.Store, req)
		_, nobodys := b.Ledger.Spend(t.Context(), other.Owner, stoa.NewID[stoa.StoreID](), req)
		wantCode(t, theirs, stoa.StoreNotFound)
		if d := cmp.Diff(nobodys, theirs); d != "" {
			t.Error("another's store can be told from none:", d)
		}
		_, theirs = b.Ledger.Balance(t.Context(), other.Owner, b.Store)
		wantCode(t, theirs, stoa.StoreNotFound)
		_, theirs = b.Ledger.Transactions(t.Context(), other.Owner, b.Store, credits.Filter{})
		wantCode(t, theirs, stoa.StoreNotFound)

		viewer := b.Member(t, authz.Viewer)
		_, err := b.Ledger.Spend(t.Context(), viewer, b.Store, req)
		wantCode(t, err, stoa.Forbidden)
		_, err = b.Ledger.Balance(t.Context(), viewer, b.Store)
		testkit.Must(t, err)
		_, err = b.Ledger.Transactions(t.Context(), viewer, b.Store, credits.Filter{})
		testkit.Must(t, err)

		member := b.Member(t, authz.Member)
		got, err := b.Ledger.Spend(t.Context(), member, b.Store, req)
		testkit.Must(t, err)
		if *got.Transaction.UserID != member.UserID {
			t.Error("recorded for another user")
		}
	})
}

// eachTwice runs test as masterdbtest.Each does, with a second handle on the same
// database, which has locks of its own like another process.
func eachTwice(t *testing.T, test func(t *testing.T, b creditstest.Account, ledgers [2]*credits.Ledger)) {
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			url := masterdbtest.URL(t, engine)
			b, second := creditstest.New(t, masterdbtest.Open(t, url)), masterdbtest.Open(t, url)
			test(t, b, [2]*credits.Ledger{b.Ledger, credits.New(second)})
		})
	}
}

func TestConcurrentSpends(t *testing.T) {
	t.Parallel()
	eachTwice(t, func(t *testing.T, b creditstest.Account, ledgers [2]*credits.Ledger) {
		b.Give(t, 100*credits.Credit)
		errs := concurrently(200, func(i int) error {
			_, err := ledgers[i%2].Spend(t.Context(), b.Owner, b.Store, credits.SpendRequest{Amount: credits.Credit})
			return err
		})
		count := map[stoa.Code]int{}
		for _, err := range errs {
			count[stoa.CodeOf(err)]++
			if stoa.CodeOf(err) == stoa.Internal {
				t.Error(err)
			}
		}
		if d := cmp.Diff(map[stoa.Code]int{"": 100, stoa.InsufficientCredits: 100}, count); d != "" {
			t.Error(d)
		}
		if got := b.Balance(t); got.Balance != 0 || got.LifetimeSpent != 100*credits.Credit {
			t.Errorf("%+v", got)
		}
		if got := len(b.Rows(t)); got != 101 {
			t.Errorf("%d rows, want the grant and 100 spends", got)
		}
		b.CheckInvariants(t)
	})
}

func TestConcurrentSpendsWithOneKey(t *testing.T) {
	t.Parallel()
	eachTwice(t, func(t *testing.T, b creditstest.Account, ledgers [2]*credits.Ledger) {
		b.Give(t, 10*credits.Credit)
		const rounds = 5 // in the first round few connections are open
		for round := range rounds {
			var ids [20]stoa.TransactionID
			errs := concurrently(len(ids), func(i int) error {
				got, err := ledgers[i%2].Spend(t.Context(), b.Owner, b.Store,
					credits.SpendRequest{Amount: credits.Credit, IdempotencyKey: fmt.Sprint(round)})
				ids[i] = got.Transaction.ID
				return err
			})
			testkit.Must(t, errors.Join(errs...))
			if len(slices.Compact(ids[:])) != 1 {
				t.Error("different answers to one key")
			}
		}
		if got := b.Balance(t).Balance; got != (10-rounds)*credits.Credit {
			t.Errorf("balance %s, want %d", got, 10-rounds)
		}
		b.CheckInvariants(t)
	})
}

// concurrently runs fn(0) … fn(n-1) concurrently.
func concurrently(n int, fn func(i int) error) []error {
	errs := make([]error, n)
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = fn(i)
		})
	}
	close(start)
	wg.Wait()
	return errs
}
