package credits

import (
	"bytes"
	"context"
	"fmt"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
)

// Report is what Verify found.
type Report struct {
	Of           int64 // how many accounts there are
	Accounts     int64 // how many were read: fewer when it ended early, see maxFaults
	Transactions int64
	Faults       []Fault // the first of each account that has any, by store; at most maxFaults
}

// Fault is a row of the ledger that breaks a rule.
type Fault struct {
	StoreID stoa.StoreID
	Row     string // which row, such as "transaction 17 (0198…)" or "balance"
	Message string // what it says and what it should say
}

func (f Fault) String() string { return fmt.Sprintf("store %s, %s: %s", f.StoreID, f.Row, f.Message) }

// maxFaults ends a verification in which everything is wrong.
const maxFaults = 100

// Verify reads the whole ledger as it is at one moment and checks every rule
// that always holds. It keeps a few thousand rows in memory, however large the
// ledger is. Progress, which may be nil, is told of the report so far after
// every account.
func (l *Ledger) Verify(ctx context.Context, progress func(Report)) (Report, error) {
	var report Report
	err := l.db.Snapshot(ctx, func(q masterdb.Querier) error {
		if err := q.Get(ctx, &report.Of, `SELECT count(*) FROM stores`); err != nil {
			return err
		}
		v := newVerifier(q)
		for len(report.Faults) < maxFaults {
			account, err := v.next(ctx)
			report.Faults = append(report.Faults, v.strays...)
			v.strays = nil
			if err != nil || account == nil {
				return err
			}
			report.Accounts++
			report.Transactions += account.rows
			if account.fault != nil {
				report.Faults = append(report.Faults, *account.fault)
			}
			if progress != nil {
				progress(report)
			}
		}
		return nil
	})
	return report, err
}

// verifier walks through all tables of the ledger side by side, store after
// store.
type verifier struct {
	stores   stream[checkedStore]
	rows     stream[checkedRow]
	holds    stream[checkedHold]
	freezes  stream[checkedFreeze]
	lots     stream[checkedLot]
	payments stream[checkedPayment]

	strays []Fault // transactions passed by, whose store there is not
}

// The rows, each with what its neighbours say about the same thing.
type (
	checkedStore struct {
		StoreID stoa.StoreID
		Missing bool // there is no balance
		Balance, Reserved, Debt,
		LifetimePurchased, LifetimeSpent, Lotted Amount
		Seq int64
	}
	checkedRow struct {
		Transaction
		HoldState    *HoldState
		HoldCaptured *Amount
		FromLots     Amount
	}
	checkedHold struct {
		StoreID  stoa.StoreID
		ID       stoa.HoldID
		State    HoldState
		Amount   Amount
		Captured Amount
		Captures int64 // transactions that name it
	}
	checkedFreeze struct {
		StoreID   stoa.StoreID
		Reference string
		Amount    Amount // 0 when it has ended
	}
	checkedLot struct {
		StoreID   stoa.StoreID
		Seq       int64
		Amount    Amount
		Remaining Amount
		Used      Amount
		Granted   Amount // by its transaction
	}
	checkedPayment struct { // the credits of one reference
		StoreID   stoa.StoreID
		Reference string
		Granted   Amount
		Reversed  Amount // clawed back less reinstated
	}
)

func newVerifier(q masterdb.Querier) *verifier {
	v := &verifier{
		stores: newStream(q, `
			SELECT s.id AS store_id, b.store_id IS NULL AS missing, coalesce(b.balance, 0) AS balance, coalesce(b.reserved, 0) AS reserved,
				coalesce(b.debt, 0) AS debt, coalesce(b.lifetime_purchased, 0) AS lifetime_purchased,
				coalesce(b.lifetime_spent, 0) AS lifetime_spent, coalesce(b.lotted, 0) AS lotted, coalesce(b.seq, 0) AS seq
			FROM stores s LEFT JOIN credit_balances b ON b.store_id = s.id
			WHERE s.id > $1 ORDER BY s.id`,
			func(r checkedStore) []any { return []any{r.StoreID} }, stoa.StoreID{}),
		rows: newStream(q, `
			SELECT t.id, t.store_id, t.seq, t.type, t.amount, t.balance_after, t.debt_change, t.quantity, t.unit_price, t.hold_id,
				h.state AS hold_state, h.captured AS hold_captured,
				CAST(coalesce((SELECT sum(u.amount) FROM credit_lot_uses u WHERE u.store_id = t.store_id AND u.seq = t.seq), 0) AS bigint) AS from_lots
			FROM credit_transactions t LEFT JOIN credit_holds h ON h.id = t.hold_id AND h.store_id = t.store_id
			WHERE (t.store_id, t.seq) > ($1, $2) ORDER BY t.store_id, t.seq`,
			func(r checkedRow) []any { return []any{r.StoreID, r.Sequence} }, stoa.StoreID{}, 0),
		holds: newStream(q, `
			SELECT h.store_id, h.id, h.state, h.amount, h.captured,
				(SELECT count(*) FROM credit_transactions t WHERE t.hold_id = h.id) AS captures
			FROM credit_holds h WHERE (h.store_id, h.id) > ($1, $2) ORDER BY h.store_id, h.id`,
			func(r checkedHold) []any { return []any{r.StoreID, r.ID} }, stoa.StoreID{}, stoa.HoldID{}),
		freezes: newStream(q, `
			SELECT store_id, reference, CASE WHEN resolved_at IS NULL THEN amount ELSE 0 END AS amount
			FROM credit_freezes WHERE (store_id, reference) > ($1, $2) ORDER BY store_id, reference`,
			func(r checkedFreeze) []any { return []any{r.StoreID, r.Reference} }, stoa.StoreID{}, ""),
		lots: newStream(q, `
			SELECT l.store_id, l.seq, l.amount, l.remaining, t.amount AS granted,
				CAST(coalesce((SELECT sum(u.amount) FROM credit_lot_uses u WHERE u.lot_id = l.id), 0) AS bigint) AS used
			FROM credit_lots l JOIN credit_transactions t ON t.store_id = l.store_id AND t.seq = l.seq
			WHERE (l.store_id, l.seq) > ($1, $2) ORDER BY l.store_id, l.seq`,
			func(r checkedLot) []any { return []any{r.StoreID, r.Seq} }, stoa.StoreID{}, 0),
		payments: newStream(q, `
			SELECT store_id, reference,
				CAST(sum(CASE WHEN type = 'purchase' THEN amount ELSE 0 END) AS bigint) AS granted,
				CAST(sum(CASE WHEN type = 'purchase' THEN 0 ELSE debt_change - amount END) AS bigint) AS reversed
			FROM credit_transactions
			WHERE type IN ('purchase', 'refund', 'dispute') AND reference IS NOT NULL AND (store_id, reference) > ($1, $2)
			GROUP BY store_id, reference ORDER BY store_id, reference`,
			func(r checkedPayment) []any { return []any{r.StoreID, r.Reference} }, stoa.StoreID{}, ""),
	}
	return v
}

// verified is one account that has been checked.
type verified struct {
	store checkedStore
	rows  int64
	fault *Fault
}

// say keeps the first fault.
func (v *verified) say(wrong bool, row, format string, args ...any) {
	if wrong && v.fault == nil {
		v.fault = &Fault{v.store.StoreID, row, fmt.Sprintf(format, args...)}
	}
}

// next checks the next account. It returns nil after the last.
func (v *verifier) next(ctx context.Context) (*verified, error) {
	store, ok, err := v.stores.take(ctx, func(checkedStore) bool { return true })
	if err != nil {
		return nil, err
	}
	// After the last store, every row that is left is a stray.
	isStray := func(r checkedRow) bool { return !ok || bytes.Compare(r.StoreID[:], store.StoreID[:]) < 0 }
	if err := v.passStrays(ctx, isStray); err != nil || !ok {
		return nil, err
	}
	a := &verified{store: store}
	a.say(store.Missing, "balance", "there is none")
	sums, err := v.checkRows(ctx, a)
	if err != nil {
		return nil, err
	}
	reserved, err := v.checkHolds(ctx, a)
	if err != nil {
		return nil, err
	}
	lotted, err := v.checkLots(ctx, a)
	if err != nil {
		return nil, err
	}
	if err := v.checkPayments(ctx, a); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		name      string
		got, want Amount
		of        string
	}{
		{"balance", store.Balance, sums.balance, "its transactions add up to"},
		{"debt", store.Debt, sums.debt, "its transactions add up to"},
		{"lifetime_purchased", store.LifetimePurchased, sums.purchased, "its purchases add up to"},
		{"lifetime_spent", store.LifetimeSpent, sums.spent, "its spends and captures add up to"},
		{"reserved", store.Reserved, reserved, "its open holds and freezes add up to"},
		{"lotted", store.Lotted, lotted, "its lots hold"},
	} {
		a.say(c.got != c.want, "balance", "%s is %s, but %s %s", c.name, c.got, c.of, c.want)
	}
	a.say(store.Seq != a.rows, "balance", "seq is %d, but there are %d transactions", store.Seq, a.rows)
	a.say(store.Reserved > store.Balance, "balance", "reserved is %s, more than the balance of %s", store.Reserved, store.Balance)
	a.say(store.Debt > 0 && store.Balance > store.Reserved, "balance", "%s are available although %s are owed", store.Balance-store.Reserved, store.Debt)
	return a, nil
}

// passStrays takes the transactions that come before the next store, and keeps
// the first of each store that there is not: no foreign key keeps them out.
func (v *verifier) passStrays(ctx context.Context, isStray func(checkedRow) bool) error {
	for len(v.strays) < maxFaults {
		row, ok, err := v.rows.take(ctx, isStray)
		if err != nil || !ok {
			return err
		}
		if n := len(v.strays); n == 0 || v.strays[n-1].StoreID != row.StoreID {
			v.strays = append(v.strays, Fault{row.StoreID, fmt.Sprintf("transaction %d (%s)", row.Sequence, row.ID), "there is no such store"})
		}
	}
	return nil
}

type rowSums struct{ balance, debt, purchased, spent Amount }

func (v *verifier) checkRows(ctx context.Context, a *verified) (rowSums, error) {
	var sums rowSums
	for {
		row, ok, err := v.rows.take(ctx, func(r checkedRow) bool { return r.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return sums, err
		}
		a.rows++
		sums.balance += row.Amount
		sums.debt += row.DebtChange
		switch row.Type {
		case TypePurchase:
			sums.purchased += row.Amount
		case TypeSpend, TypeCapture:
			sums.spent -= row.Amount
		default:
		}
		name := fmt.Sprintf("transaction %d (%s)", row.Sequence, row.ID)
		a.say(row.Sequence != a.rows, name, "its sequence should be %d", a.rows)
		a.say(row.BalanceAfter != sums.balance, name, "balance_after is %s, but the one before plus the amount is %s", row.BalanceAfter, sums.balance)
		a.say(sums.balance < 0, name, "the balance is below zero")
		a.say(sums.debt < 0, name, "more is repaid than was owed")
		a.say(!row.signsFit(), name, "a %s cannot be of %s credits and change the debt by %s", row.Type, row.Amount, row.DebtChange)
		a.say(!row.priceFits(), name, "its amount is not its quantity times its unit price")
		a.say(row.FromLots > max(0, -row.Amount), name, "it took %s out of lots, more than its amount", row.FromLots)
		a.say((row.Type == TypeCapture) != (row.HoldID != nil), name, "a capture, and nothing else, has a hold")
		a.say(row.HoldID != nil && (row.HoldState == nil || *row.HoldState != HoldCaptured || *row.HoldCaptured != -row.Amount),
			name, "its hold does not say that it was captured with this amount")
	}
}

// signsFit: which types add, which take, and which may change the debt.
func (r checkedRow) signsFit() bool {
	switch r.Type {
	case TypePurchase, TypeBonus:
		return r.Amount > 0 && r.DebtChange == 0
	case TypeSpend, TypeCapture, TypeExpiry:
		return r.Amount < 0 && r.DebtChange == 0
	case TypeRefund, TypeDispute: // clawed back, some of it as a debt, or reinstated
		return r.Amount <= 0 && r.DebtChange >= 0 || r.Amount > 0 && r.DebtChange == 0
	default: // an adjustment adds, or takes to repay a debt
		return r.DebtChange == 0 || r.DebtChange == r.Amount && r.Amount < 0
	}
}

func (r checkedRow) priceFits() bool {
	if r.UnitPrice == nil || r.Quantity == nil || r.Type != TypeSpend && r.Type != TypeCapture {
		return true
	}
	total, ok := r.UnitPrice.times(max(1, *r.Quantity))
	return ok && total == -r.Amount
}

func (v *verifier) checkHolds(ctx context.Context, a *verified) (reserved Amount, err error) {
	for {
		h, ok, err := v.holds.take(ctx, func(h checkedHold) bool { return h.StoreID == a.store.StoreID })
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		captured := h.State == HoldCaptured
		a.say(captured != (h.Captures == 1) || captured != (h.Captured > 0) || h.Captured > h.Amount, "hold "+h.ID.String(),
			"it is %s, %s of %s credits are captured, by %d transactions", h.State, h.Captured, h.Amount, h.Captures)
		if h.State == HoldOpen {
			reserved += h.Amount
		}
	}
	for {
		f, ok, err := v.freezes.take(ctx, func(f checkedFreeze) bool { return f.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return reserved, err
		}
		reserved += f.Amount
	}
}

func (v *verifier) checkLots(ctx context.Context, a *verified) (lotted Amount, err error) {
	for {
		l, ok, err := v.lots.take(ctx, func(l checkedLot) bool { return l.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return lotted, err
		}
		lotted += l.Remaining
		name := fmt.Sprintf("the lot of transaction %d", l.Seq)
		a.say(l.Remaining != l.Amount-l.Used, name, "%s of %s credits remain, but %s were taken out", l.Remaining, l.Amount, l.Used)
		a.say(l.Amount != l.Granted, name, "it began with %s credits, its transaction granted %s", l.Amount, l.Granted)
	}
}

// checkPayments: granted − clawed back + reinstated is between nothing and
// what was paid for.
func (v *verifier) checkPayments(ctx context.Context, a *verified) error {
	for {
		p, ok, err := v.payments.take(ctx, func(p checkedPayment) bool { return p.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return err
		}
		a.say(p.Reversed < 0 || p.Reversed > p.Granted, "payment "+p.Reference,
			"%s credits were granted and %s of them taken back", p.Granted, p.Reversed)
	}
}
