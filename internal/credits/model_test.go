package credits_test

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestLedgerModel runs random operations against a ledger and against a model of a few
// variables. Many operations are impossible, and some use keys of earlier ones. After
// each operation the account equals the model. A refused operation has changed nothing.
// At the end Verify finds nothing.
func TestLedgerModel(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		rapid.Check(t, func(r *rapid.T) {
			m := &model{Account: creditstest.New(t, db), used: map[string]used{}}
			m.freezes, m.paid = map[string]credits.Amount{}, map[string]credits.Amount{}
			steps := []func(*rapid.T) outcome{
				m.doGrant, m.doGrant, m.doSpend, m.doSpend, m.doHold, m.doCapture, m.doRelease,
				m.doClawBack, m.doReinstate, m.doFreeze, m.doUnfreeze, m.passTime, m.doSweep,
			}
			// rapid's Repeat is not used, since its 30 steps per run take half a minute
			// of commits.
			for range rapid.IntRange(1, 20).Draw(r, "steps") {
				before := m.Dump(t)
				out := rapid.SampledFrom(steps).Draw(r, "step")(r)
				if got := m.Dump(t); out == refused && got != before {
					r.Fatalf("a refusal changed\n%s\nto\n%s", before, got)
				}
				m.compare(r, t)
			}
			report, err := verify.Run(r.Context(), m.DB, nil)
			testkit.Must(t, err)
			for _, fault := range report.Inconsistencies {
				r.Errorf("verify: %s", fault)
			}
		})
	})
}

// outcome is the result of an operation.
type outcome int

const (
	done    outcome = iota
	refused         // or replayed: nothing may have changed
)

// state is the complete state of an account in the model.
type state struct {
	loose            credits.Amount // credits that are in no lot
	lots             []modelLot
	holds            []modelHold // the open ones
	freezes          map[string]credits.Amount
	debt             credits.Amount
	purchased, spent credits.Amount
	paid             map[string]credits.Amount // by reference, minus what was clawed back
	grants           int                       // the number of grants so far, which gives the age of lots
}

type modelLot struct {
	age, priority int
	expires       int // the order of expiry; 0 for never
	gone          bool
	reference     string
	remaining     credits.Amount
}

type modelHold struct {
	id      stoa.HoldID
	amount  credits.Amount
	overdue bool
}

func (s state) clone() state {
	s.lots, s.holds = slices.Clone(s.lots), slices.Clone(s.holds)
	s.freezes, s.paid = maps.Clone(s.freezes), maps.Clone(s.paid)
	return s
}

func (s state) lotted() (sum credits.Amount) {
	for _, l := range s.lots {
		sum += l.remaining
	}
	return sum
}

func (s state) balance() credits.Amount { return s.loose + s.lotted() }

func (s state) reserved() (sum credits.Amount) {
	for _, h := range s.holds {
		sum += h.amount
	}
	for _, f := range s.freezes {
		sum += f
	}
	return sum
}

func (s state) available() credits.Amount { return s.balance() - s.reserved() }

// settle expires overdue holds and, as far as they are not reserved, expired lots, and
// repays a debt.
func (s *state) settle() {
	s.holds = slices.DeleteFunc(s.holds, func(h modelHold) bool { return h.overdue })
	due := -s.reserved()
	for _, l := range s.lots {
		if l.gone {
			due += l.remaining
		}
	}
	for i := range s.lots {
		if part := min(due, s.lots[i].remaining); part > 0 && s.lots[i].gone {
			due -= part
			s.lots[i].remaining -= part
		}
	}
	pay := min(s.debt, s.available())
	s.take(pay, func(l modelLot) int { return 0 }, false)
	s.debt -= pay
}

// take removes credits from the lots in their order. rank comes before that order.
func (s *state) take(amount credits.Amount, rank func(modelLot) int, expired bool) {
	const loose = -1
	order := []int{loose}
	for i, l := range s.lots {
		if expired || !l.gone {
			order = append(order, i)
		}
	}
	at := func(i int) modelLot {
		if i == loose {
			return modelLot{}
		}
		return s.lots[i]
	}
	never := func(expires int) int { // lots that never expire come last
		if expires == 0 {
			return 1 << 30
		}
		return expires
	}
	slices.SortFunc(order, func(i, j int) int {
		a, b := at(i), at(j)
		return cmp.Or(rank(a)-rank(b), a.priority-b.priority, never(a.expires)-never(b.expires), a.age-b.age)
	})
	for _, i := range order {
		if i == loose {
			part := min(amount, s.loose)
			s.loose, amount = s.loose-part, amount-part
			continue
		}
		part := min(amount, s.lots[i].remaining)
		s.lots[i].remaining -= part
		amount -= part
	}
}

// used is the request that a key was used for, and its answer.
type used struct{ request, answer string }

type model struct {
	creditstest.Account
	state
	used map[string]used
	keys int
}

var (
	amounts    = rapid.Map(rapid.Int64Range(1, 50_000), func(n int64) credits.Amount { return credits.Amount(n) })
	keys       = rapid.SampledFrom([]string{"a", "b", "c"})
	references = rapid.SampledFrom([]string{"p", "q"})
)

// compare requires that the account equals the model.
func (m *model) compare(r *rapid.T, t *testing.T) {
	got := m.Balance(t)
	want := credits.Balance{
		StoreID: m.Store, Balance: m.balance(), Reserved: m.reserved(), Debt: m.debt,
		LifetimePurchased: m.purchased, LifetimeSpent: m.spent,
		Seq: got.Seq, Version: got.Version, UpdatedAt: got.UpdatedAt, ExpiresSoon: got.ExpiresSoon,
	}
	if got != want {
		r.Fatalf("got %+v, want %+v", got, want)
	}
	var lots []credits.Amount
	testkit.Must(t, m.DB.Select(t.Context(), &lots, `SELECT remaining FROM credit_lots WHERE store_id = $1 ORDER BY seq`, m.Store))
	for i, l := range m.lots {
		if lots[i] != l.remaining {
			r.Fatalf("lot %d has %s left, want %s", i, lots[i], l.remaining)
		}
	}
	m.CheckInvariants(t)
}

// run carries out one operation. call runs it on the ledger. apply applies it to the
// model, or returns false when it has to be refused with code. key is its idempotency
// key, "" for none.
func (m *model) run(r *rapid.T, key, request string, call func() (answer string, err error), code stoa.Code, apply func(*state) bool) outcome {
	return m.runWith((*state).settle, r, key, request, call, code, apply)
}

// runWith is run for an operation before and after which not everything that is due is
// settled.
func (m *model) runWith(settle func(*state), r *rapid.T, key, request string, call func() (answer string, err error), code stoa.Code, apply func(*state) bool) outcome {
	next := m.clone()
	settle(&next)
	possible := apply(&next)
	settle(&next)
	answer, err := call()
	first, known := m.used[key]
	switch {
	case known && first.request != request:
		if stoa.CodeOf(err) != stoa.IdempotencyConflict {
			r.Fatalf("%s under the key of %s: %v", request, first.request, err)
		}
		return refused
	case known:
		if err != nil || answer != first.answer {
			r.Fatalf("replay of %s: %v, %s, want %s", request, err, answer, first.answer)
		}
		return refused
	case !possible:
		if stoa.CodeOf(err) != code {
			r.Fatalf("%s: %v, want %s", request, err, code)
		}
		return refused
	case err != nil:
		r.Fatalf("%s: %v", request, err)
	}
	if key != "" {
		m.used[key] = used{request, answer}
	}
	m.state = next
	return done
}

func (m *model) inTx(ctx context.Context, fn func(*masterdb.Tx) (credits.Transaction, error)) (string, error) {
	var t credits.Transaction
	err := m.DB.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		t, err = fn(tx)
		return err
	})
	return fmt.Sprint(t.ID, t.Amount, t.BalanceAfter, t.DebtChange), err
}

// accountAnswer is the answer of a call with the account as a caller sees it.
func accountAnswer(of any, b credits.Balance) string {
	return fmt.Sprint(of, b.Balance, b.Reserved, b.Debt, b.LifetimePurchased, b.LifetimeSpent, b.UpdatedAt)
}

func (m *model) doGrant(r *rapid.T) outcome {
	g := credits.Grant{
		Type:   rapid.SampledFrom([]credits.Type{credits.TypePurchase, credits.TypeBonus, credits.TypeAdjustment}).Draw(r, "type"),
		Amount: amounts.Draw(r, "amount"), Reference: references.Draw(r, "reference"), IdempotencyKey: "grant:" + keys.Draw(r, "key"),
		Priority: rapid.SampledFrom([]int{0, 0, -1, 1}).Draw(r, "priority"),
	}
	days := rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(r, "days")
	if days > 0 {
		at := time.Date(2100, 1, days, 0, 0, 0, 0, time.UTC)
		g.ExpiresAt = &at
	}
	return m.run(r, g.IdempotencyKey, fmt.Sprint("grant", g.Type, g.Amount, g.Reference, g.Priority, days), func() (string, error) {
		return m.inTx(r.Context(), func(tx *masterdb.Tx) (credits.Transaction, error) { return m.Ledger.Grant(r.Context(), tx, m.Store, g) })
	}, "", func(s *state) bool {
		s.grants++
		if g.Type == credits.TypePurchase {
			s.purchased += g.Amount
			s.paid[g.Reference] += g.Amount
		}
		if days == 0 && g.Priority == 0 {
			s.loose += g.Amount
		} else {
			s.lots = append(s.lots, modelLot{age: s.grants, priority: g.Priority, expires: days, reference: g.Reference, remaining: g.Amount})
		}
		return true
	})
}

func (m *model) doSpend(r *rapid.T) outcome {
	req := credits.SpendRequest{Amount: amounts.Draw(r, "amount"), IdempotencyKey: rapid.OneOf(keys, rapid.Just("")).Draw(r, "key")}
	key := req.IdempotencyKey
	if key != "" {
		key = "spend:" + key
	}
	settle := (*state).settle
	if m.DB.Engine == masterdb.Postgres && m.lotted() == 0 && m.available() >= req.Amount {
		settle = func(*state) {} // one statement carries out the spend, and leaves overdue holds to the next change
	}
	return m.runWith(settle, r, key, fmt.Sprint("spend", req.Amount), func() (string, error) {
		got, err := m.Spend(r.Context(), req)
		return accountAnswer(got.Transaction.ID, got.Balance), err
	}, stoa.InsufficientCredits, func(s *state) bool {
		if req.Amount > s.available() {
			return false
		}
		s.take(req.Amount, func(modelLot) int { return 0 }, false)
		s.spent += req.Amount
		return true
	})
}

func (m *model) doHold(r *rapid.T) outcome {
	req := credits.HoldRequest{}
	req.Amount, req.IdempotencyKey = amounts.Draw(r, "amount"), rapid.OneOf(keys, rapid.Just("")).Draw(r, "key")
	key := req.IdempotencyKey
	if key != "" {
		key = "hold:" + key
	}
	var held credits.HoldResult
	out := m.run(r, key, fmt.Sprint("hold", req.Amount), func() (_ string, err error) {
		held, err = m.Ledger.Hold(r.Context(), m.Owner, m.Store, req)
		return accountAnswer(held.Hold.ID, held.Balance), err
	}, stoa.InsufficientCredits, func(s *state) bool {
		if req.Amount > s.available() {
			return false
		}
		s.holds = append(s.holds, modelHold{amount: req.Amount})
		return true
	})
	if out == done {
		m.holds[len(m.holds)-1].id = held.Hold.ID
	}
	return out
}

// someHold returns an open hold, an overdue one, or one that does not exist.
func (m *model) someHold(r *rapid.T) modelHold {
	all := append(slices.Clone(m.holds), modelHold{id: stoa.NewID[stoa.HoldID]()})
	return rapid.SampledFrom(all).Draw(r, "hold")
}

func (m *model) doCapture(r *rapid.T) outcome {
	h := m.someHold(r)
	req := credits.CaptureRequest{Amount: rapid.OneOf(amounts, rapid.Just(credits.Amount(0))).Draw(r, "amount"), IdempotencyKey: keys.Draw(r, "key")}
	amount := req.Amount
	if amount == 0 {
		amount = h.amount
	}
	code := stoa.InvalidRequest
	switch {
	case h.overdue:
		code = stoa.HoldNotOpen
	case h.amount == 0:
		code = stoa.HoldNotFound
	}
	return m.run(r, "capture:"+req.IdempotencyKey, fmt.Sprint("capture", h.id, req.Amount), func() (string, error) {
		got, err := m.Ledger.Capture(r.Context(), m.Owner, m.Store, h.id, req)
		if err != nil {
			return "", err
		}
		return accountAnswer(fmt.Sprint(got.Hold.ID, got.Hold.Captured, got.Transaction.ID), got.Balance), nil
	}, code, func(s *state) bool {
		if h.overdue || h.amount == 0 || amount > h.amount {
			return false
		}
		s.holds = slices.DeleteFunc(s.holds, func(o modelHold) bool { return o.id == h.id })
		s.take(amount, func(l modelLot) int {
			if l.gone {
				return 0
			}
			return 1
		}, true)
		s.spent += amount
		return true
	})
}

func (m *model) doRelease(r *rapid.T) outcome {
	h, key := m.someHold(r), keys.Draw(r, "key")
	code := stoa.HoldNotFound
	if h.overdue {
		code = stoa.HoldNotOpen
	}
	return m.run(r, "release:"+key, fmt.Sprint("release", h.id), func() (string, error) {
		got, err := m.Ledger.Release(r.Context(), m.Owner, m.Store, h.id, key)
		return accountAnswer(got.Hold.ID, got.Balance), err
	}, code, func(s *state) bool {
		if h.overdue || h.amount == 0 {
			return false
		}
		s.holds = slices.DeleteFunc(s.holds, func(o modelHold) bool { return o.id == h.id })
		return true
	})
}

// doClawBack claws back at most what is left of a payment, as package payments does, or
// credits that belong to no payment.
func (m *model) doClawBack(r *rapid.T) outcome {
	rev := credits.Reversal{Type: credits.TypeRefund, Amount: amounts.Draw(r, "amount"), IdempotencyKey: m.fresh()}
	if ref := references.Draw(r, "reference"); m.paid[ref] > 0 {
		rev.Reference, rev.Amount = ref, min(rev.Amount, m.paid[ref])
	}
	return m.run(r, rev.IdempotencyKey, fmt.Sprint("clawback", rev.Amount), func() (string, error) {
		return m.inTx(r.Context(), func(tx *masterdb.Tx) (credits.Transaction, error) {
			return m.Ledger.ClawBack(r.Context(), tx, m.Store, rev)
		})
	}, "", func(s *state) bool {
		taken := min(rev.Amount, s.available())
		s.take(taken, func(l modelLot) int {
			if rev.Reference != "" && l.reference == rev.Reference {
				return 0
			}
			return 1
		}, false)
		if rev.Reference != "" {
			s.paid[rev.Reference] -= rev.Amount
		}
		s.debt += rev.Amount - taken
		return true
	})
}

func (m *model) doReinstate(r *rapid.T) outcome {
	rev := credits.Reversal{Type: credits.TypeDispute, Amount: amounts.Draw(r, "amount"), IdempotencyKey: m.fresh()}
	return m.run(r, rev.IdempotencyKey, fmt.Sprint("reinstate", rev.Amount), func() (string, error) {
		return m.inTx(r.Context(), func(tx *masterdb.Tx) (credits.Transaction, error) {
			return m.Ledger.Reinstate(r.Context(), tx, m.Store, rev)
		})
	}, "", func(s *state) bool {
		s.loose += rev.Amount
		return true
	})
}

func (m *model) fresh() string {
	m.keys++ // a key that was never used
	return fmt.Sprint("own:", m.keys)
}

func (m *model) doFreeze(r *rapid.T) outcome {
	ref, amount := references.Draw(r, "reference"), amounts.Draw(r, "amount")
	_, known := m.used["freeze:"+ref]
	err := m.DB.Tx(r.Context(), func(tx *masterdb.Tx) error { return m.Ledger.Freeze(r.Context(), tx, m.Store, ref, amount) })
	if err != nil {
		r.Fatal(err)
	}
	if known {
		return refused
	}
	m.used["freeze:"+ref] = used{}
	m.settle()
	m.freezes[ref] = min(amount, m.available())
	m.settle()
	return done
}

func (m *model) doUnfreeze(r *rapid.T) outcome {
	ref := references.Draw(r, "reference")
	err := m.DB.Tx(r.Context(), func(tx *masterdb.Tx) error { return m.Ledger.Unfreeze(r.Context(), tx, m.Store, ref) })
	if err != nil {
		r.Fatal(err)
	}
	if _, open := m.freezes[ref]; !open {
		return refused
	}
	m.settle()
	delete(m.freezes, ref)
	m.settle()
	return done
}

// passTime makes a hold or the lots of a day expire. Nothing is settled yet: the next
// change of the account has to do it.
func (m *model) passTime(r *rapid.T) outcome {
	past := time.Now().UTC().Add(-time.Hour)
	if rapid.Bool().Draw(r, "lots") {
		m.pass(r, `UPDATE credit_lots SET expires_at = $2 WHERE store_id = $1 AND expires_at < $3`, past.Add(-time.Hour), time.Date(2100, 1, 2, 0, 0, 0, 0, time.UTC))
		for i := range m.lots {
			m.lots[i].gone = m.lots[i].gone || m.lots[i].expires == 1
		}
		return done
	}
	for i := range m.holds {
		m.pass(r, `UPDATE credit_holds SET expires_at = $3 WHERE store_id = $1 AND id = $2`, m.holds[i].id, past)
		m.holds[i].overdue = true
	}
	return done
}

func (m *model) pass(r *rapid.T, query string, args ...any) {
	err := m.DB.Tx(r.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(r.Context(), query, append([]any{m.Store}, args...)...)
		return err
	})
	if err != nil {
		r.Fatal(err)
	}
}

func (m *model) doSweep(r *rapid.T) outcome {
	if err := m.Ledger.Sweep(r.Context(), credits.Sweep{}); err != nil {
		r.Fatal(err)
	}
	due := slices.ContainsFunc(m.holds, func(h modelHold) bool { return h.overdue }) ||
		m.available() > 0 && slices.ContainsFunc(m.lots, func(l modelLot) bool { return l.gone && l.remaining > 0 })
	if due {
		m.settle()
	}
	return done
}
