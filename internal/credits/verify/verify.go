// Package verify checks the ledger: that the rows of every account satisfy the invariants
// that package credits documents.
package verify

import (
	"bytes"
	"context"
	"fmt"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
)

// Report is the result of a verification.
type Report struct {
	Of              int64 // how many accounts there are
	Accounts        int64 // how many were read; fewer than Of when maxInconsistencies ended the verification
	Transactions    int64
	Inconsistencies []Inconsistency // the first of each account, ordered by store; about maxInconsistencies at most
}

// Inconsistency is a row of the ledger that breaks a rule.
type Inconsistency struct {
	StoreID stoa.StoreID
	Row     string // which row, such as "transaction 17 (0198…)" or "balance"
	Message string // the actual and the expected value
}

func (i Inconsistency) String() string {
	return fmt.Sprintf("store %s, %s: %s", i.StoreID, i.Row, i.Message)
}

// maxInconsistencies is the number of inconsistencies that ends a verification.
const maxInconsistencies = 100

// Run reads the whole ledger in db in one snapshot and checks every rule. It keeps a few
// thousand rows in memory, whatever the size of the ledger. After every account it calls
// progress, which may be nil, with the report so far.
func Run(ctx context.Context, db *masterdb.DB, progress func(Report)) (Report, error) {
	var report Report
	err := db.Snapshot(ctx, func(tx *masterdb.Tx) error {
		if err := tx.Get(ctx, &report.Of, `SELECT count(*) FROM stores`); err != nil {
			return err
		}
		v := newVerifier(tx)
		for len(report.Inconsistencies) < maxInconsistencies {
			account, err := v.next(ctx)
			report.Inconsistencies = append(report.Inconsistencies, v.orphans...)
			v.orphans = nil
			if err != nil || account == nil {
				return err
			}
			report.Accounts++
			report.Transactions += account.rows
			if account.first != nil {
				report.Inconsistencies = append(report.Inconsistencies, *account.first)
			}
			if progress != nil {
				progress(report)
			}
		}
		return nil
	})
	return report, err
}

// verifier reads all tables of the ledger in parallel, ordered by store.
type verifier struct {
	stores   rowReader[checkedStore]
	rows     rowReader[checkedRow]
	holds    rowReader[checkedHold]
	freezes  rowReader[checkedFreeze]
	lots     rowReader[checkedLot]
	payments rowReader[checkedPayment]

	orphans []Inconsistency // transactions whose store does not exist, found since the last account
}

// The rows of the tables, each with the values computed from related rows.
type (
	checkedStore struct {
		StoreID stoa.StoreID
		Missing bool // there is no balance row
		Balance, Reserved, Debt,
		LifetimePurchased, LifetimeSpent, Lotted credits.Amount
		Seq int64
	}
	checkedRow struct {
		credits.Transaction
		HoldState    *credits.HoldState
		HoldCaptured *credits.Amount
		FromLots     credits.Amount
	}
	checkedHold struct {
		StoreID  stoa.StoreID
		ID       stoa.HoldID
		State    credits.HoldState
		Amount   credits.Amount
		Captured credits.Amount
		Captures int64 // transactions that refer to the hold
	}
	checkedFreeze struct {
		StoreID   stoa.StoreID
		Reference string
		Amount    credits.Amount // 0 when the freeze has ended
	}
	checkedLot struct {
		StoreID   stoa.StoreID
		Seq       int64
		Amount    credits.Amount
		Remaining credits.Amount
		Used      credits.Amount
		Granted   credits.Amount // by the transaction that created the lot
	}
	checkedPayment struct { // the credits granted under one reference
		StoreID   stoa.StoreID
		Reference string
		Granted   credits.Amount
		Reversed  credits.Amount // clawed back minus reinstated
	}
)

// amount returns the destination of a column: to scan into a named type costs five times as much.
func amount(a *credits.Amount) *int64 { return (*int64)(a) }

func newVerifier(tx *masterdb.Tx) *verifier {
	return &verifier{
		stores: newRowReader(tx, `
			SELECT s.id AS store_id, b.store_id IS NULL AS missing, coalesce(b.balance, 0) AS balance, coalesce(b.reserved, 0) AS reserved,
				coalesce(b.debt, 0) AS debt, coalesce(b.lifetime_purchased, 0) AS lifetime_purchased,
				coalesce(b.lifetime_spent, 0) AS lifetime_spent, coalesce(b.lotted, 0) AS lotted, coalesce(b.seq, 0) AS seq
			FROM stores s LEFT JOIN credit_balances b ON b.store_id = s.id
			WHERE s.id > $1 ORDER BY s.id`,
			func(r *checkedStore) []any {
				return []any{&r.StoreID, &r.Missing, amount(&r.Balance), amount(&r.Reserved), amount(&r.Debt), amount(&r.LifetimePurchased), amount(&r.LifetimeSpent), amount(&r.Lotted), &r.Seq}
			},
			func(r checkedStore) []any { return []any{r.StoreID} }, stoa.StoreID{}),
		rows: newRowReader(tx, `
			SELECT t.id, t.store_id, t.seq, t.type, t.amount, t.balance_after, t.debt_change, t.quantity, t.unit_price, t.hold_id,
				h.state AS hold_state, h.captured AS hold_captured,
				CAST(coalesce((SELECT sum(u.amount) FROM credit_lot_uses u WHERE u.store_id = t.store_id AND u.seq = t.seq), 0) AS bigint) AS from_lots
			FROM credit_transactions t LEFT JOIN credit_holds h ON h.id = t.hold_id AND h.store_id = t.store_id
			WHERE (t.store_id, t.seq) > ($1, $2) ORDER BY t.store_id, t.seq`,
			func(r *checkedRow) []any {
				return []any{
					&r.ID, &r.StoreID, &r.Sequence, (*string)(&r.Type), amount(&r.Amount), amount(&r.BalanceAfter), amount(&r.DebtChange), &r.Quantity, &r.UnitPrice, &r.HoldID,
					&r.HoldState, &r.HoldCaptured, amount(&r.FromLots),
				}
			},
			func(r checkedRow) []any { return []any{r.StoreID, r.Sequence} }, stoa.StoreID{}, 0),
		holds: newRowReader(tx, `
			SELECT h.store_id, h.id, h.state, h.amount, h.captured,
				(SELECT count(*) FROM credit_transactions t WHERE t.hold_id = h.id) AS captures
			FROM credit_holds h WHERE (h.store_id, h.id) > ($1, $2) ORDER BY h.store_id, h.id`,
			func(r *checkedHold) []any {
				return []any{&r.StoreID, &r.ID, (*string)(&r.State), amount(&r.Amount), amount(&r.Captured), &r.Captures}
			},
			func(r checkedHold) []any { return []any{r.StoreID, r.ID} }, stoa.StoreID{}, stoa.HoldID{}),
		freezes: newRowReader(tx, `
			SELECT store_id, reference, CASE WHEN resolved_at IS NULL THEN amount ELSE 0 END AS amount
			FROM credit_freezes WHERE (store_id, reference) > ($1, $2) ORDER BY store_id, reference`,
			func(r *checkedFreeze) []any {
				return []any{&r.StoreID, &r.Reference, amount(&r.Amount)}
			},
			func(r checkedFreeze) []any { return []any{r.StoreID, r.Reference} }, stoa.StoreID{}, ""),
		lots: newRowReader(tx, `
			SELECT l.store_id, l.seq, l.amount, l.remaining, t.amount AS granted,
				CAST(coalesce((SELECT sum(u.amount) FROM credit_lot_uses u WHERE u.lot_id = l.id), 0) AS bigint) AS used
			FROM credit_lots l JOIN credit_transactions t ON t.store_id = l.store_id AND t.seq = l.seq
			WHERE (l.store_id, l.seq) > ($1, $2) ORDER BY l.store_id, l.seq`,
			func(r *checkedLot) []any {
				return []any{&r.StoreID, &r.Seq, amount(&r.Amount), amount(&r.Remaining), amount(&r.Granted), amount(&r.Used)}
			},
			func(r checkedLot) []any { return []any{r.StoreID, r.Seq} }, stoa.StoreID{}, 0),
		payments: newRowReader(tx, `
			SELECT store_id, reference,
				CAST(sum(CASE WHEN type = 'purchase' THEN amount ELSE 0 END) AS bigint) AS granted,
				CAST(sum(CASE WHEN type = 'purchase' THEN 0 ELSE debt_change - amount END) AS bigint) AS reversed
			FROM credit_transactions
			WHERE type IN ('purchase', 'refund', 'dispute') AND reference IS NOT NULL AND (store_id, reference) > ($1, $2)
			GROUP BY store_id, reference ORDER BY store_id, reference`,
			func(r *checkedPayment) []any {
				return []any{&r.StoreID, &r.Reference, amount(&r.Granted), amount(&r.Reversed)}
			},
			func(r checkedPayment) []any { return []any{r.StoreID, r.Reference} }, stoa.StoreID{}, ""),
	}
}

// checkedAccount is one account that has been checked.
type checkedAccount struct {
	store checkedStore
	rows  int64          // transactions read
	first *Inconsistency // nil when the account is consistent
}

// report keeps the first inconsistency. It does nothing when wrong is false.
func (a *checkedAccount) report(wrong bool, row, format string, args ...any) {
	if wrong && a.first == nil {
		a.first = &Inconsistency{StoreID: a.store.StoreID, Row: row, Message: fmt.Sprintf(format, args...)}
	}
}

// next checks the next account. It returns nil after the last one.
func (v *verifier) next(ctx context.Context) (*checkedAccount, error) {
	store, ok, err := v.stores.next(ctx, func(checkedStore) bool { return true })
	if err != nil {
		return nil, err
	}
	// All rows that remain after the last store are orphans.
	isOrphan := func(r checkedRow) bool { return !ok || bytes.Compare(r.StoreID[:], store.StoreID[:]) < 0 }
	if err := v.skipOrphans(ctx, isOrphan); err != nil || !ok {
		return nil, err
	}
	a := &checkedAccount{store: store}
	a.report(store.Missing, "balance", "there is none")
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
		got, want credits.Amount
		of        string
	}{
		{name: "balance", got: store.Balance, want: sums.balance, of: "its transactions add up to"},
		{name: "debt", got: store.Debt, want: sums.debt, of: "its transactions add up to"},
		{name: "lifetime_purchased", got: store.LifetimePurchased, want: sums.purchased, of: "its purchases add up to"},
		{name: "lifetime_spent", got: store.LifetimeSpent, want: sums.spent, of: "its spends and captures add up to"},
		{name: "reserved", got: store.Reserved, want: reserved, of: "its open holds and freezes add up to"},
		{name: "lotted", got: store.Lotted, want: lotted, of: "its lots hold"},
	} {
		a.report(c.got != c.want, "balance", "%s is %s, but %s %s", c.name, c.got, c.of, c.want)
	}
	a.report(store.Seq != a.rows, "balance", "seq is %d, but there are %d transactions", store.Seq, a.rows)
	a.report(store.Reserved > store.Balance, "balance", "reserved is %s, more than the balance of %s", store.Reserved, store.Balance)
	a.report(store.Debt > 0 && store.Balance > store.Reserved, "balance", "%s are available although %s are owed", store.Balance-store.Reserved, store.Debt)
	return a, nil
}

// skipOrphans reads the transactions that come before the next store. It keeps the first
// one of each store that does not exist. No foreign key prevents such rows.
func (v *verifier) skipOrphans(ctx context.Context, isOrphan func(checkedRow) bool) error {
	for len(v.orphans) < maxInconsistencies {
		row, ok, err := v.rows.next(ctx, isOrphan)
		if err != nil || !ok {
			return err
		}
		if n := len(v.orphans); n == 0 || v.orphans[n-1].StoreID != row.StoreID {
			v.orphans = append(v.orphans, Inconsistency{
				StoreID: row.StoreID, Row: fmt.Sprintf("transaction %d (%s)", row.Sequence, row.ID), Message: "there is no such store",
			})
		}
	}
	return nil
}

type rowSums struct{ balance, debt, purchased, spent credits.Amount }

func (v *verifier) checkRows(ctx context.Context, a *checkedAccount) (rowSums, error) {
	var sums rowSums
	for {
		row, ok, err := v.rows.next(ctx, func(r checkedRow) bool { return r.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return sums, err
		}
		a.rows++
		sums.balance += row.Amount
		sums.debt += row.DebtChange
		switch row.Type {
		case credits.TypePurchase:
			sums.purchased += row.Amount
		case credits.TypeSpend, credits.TypeCapture:
			sums.spent -= row.Amount
		default:
		}
		if fault := row.fault(a.rows, sums); fault != "" && a.first == nil {
			a.first = &Inconsistency{StoreID: a.store.StoreID, Row: fmt.Sprintf("transaction %d (%s)", row.Sequence, row.ID), Message: fault}
		}
	}
}

// fault returns the first rule that a transaction breaks, or "". number is its place among the
// store's, and sums are those up to it. Nothing is formatted for a row that is right, of which
// there are millions.
func (r checkedRow) fault(number int64, sums rowSums) string {
	switch {
	case r.Sequence != number:
		return fmt.Sprintf("its sequence should be %d", number)
	case r.BalanceAfter != sums.balance:
		return fmt.Sprintf("balance_after is %s, but the one before plus the amount is %s", r.BalanceAfter, sums.balance)
	case sums.balance < 0:
		return "the balance is below zero"
	case sums.debt < 0:
		return "more is repaid than was owed"
	case !r.signsFit():
		return fmt.Sprintf("a %s cannot be of %s credits and change the debt by %s", r.Type, r.Amount, r.DebtChange)
	case !r.priceFits():
		return "its amount is not its quantity times its unit price"
	case r.FromLots > max(0, -r.Amount):
		return fmt.Sprintf("it took %s out of lots, more than its amount", r.FromLots)
	case (r.Type == credits.TypeCapture) != (r.HoldID != nil):
		return "a capture, and nothing else, has a hold"
	case r.HoldID != nil && (r.HoldState == nil || *r.HoldState != credits.HoldCaptured || *r.HoldCaptured != -r.Amount):
		return "its hold does not say that it was captured with this amount"
	}
	return ""
}

// signsFit reports whether the signs of the amount and of the debt change are possible
// for the type.
func (r checkedRow) signsFit() bool {
	switch r.Type {
	case credits.TypePurchase, credits.TypeBonus:
		return r.Amount > 0 && r.DebtChange == 0
	case credits.TypeSpend, credits.TypeCapture, credits.TypeExpiry:
		return r.Amount < 0 && r.DebtChange == 0
	case credits.TypeRefund, credits.TypeDispute: // clawed back, possibly in part as a debt, or reinstated
		return r.Amount <= 0 && r.DebtChange >= 0 || r.Amount > 0 && r.DebtChange == 0
	default: // an adjustment adds credits, or repays a debt with some
		return r.DebtChange == 0 || r.DebtChange == r.Amount && r.Amount < 0
	}
}

// priceFits reports whether a spend or capture of a service has the amount that
// its quantity and unit price give.
func (r checkedRow) priceFits() bool {
	if r.UnitPrice == nil || r.Quantity == nil || r.Type != credits.TypeSpend && r.Type != credits.TypeCapture {
		return true
	}
	total, ok := r.UnitPrice.Times(max(1, *r.Quantity))
	return ok && total == -r.Amount
}

func (v *verifier) checkHolds(ctx context.Context, a *checkedAccount) (reserved credits.Amount, err error) {
	for {
		h, ok, err := v.holds.next(ctx, func(h checkedHold) bool { return h.StoreID == a.store.StoreID })
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		captured := h.State == credits.HoldCaptured
		a.report(captured != (h.Captures == 1) || captured != (h.Captured > 0) || h.Captured > h.Amount, "hold "+h.ID.String(),
			"it is %s, %s of %s credits are captured, by %d transactions", h.State, h.Captured, h.Amount, h.Captures)
		if h.State == credits.HoldOpen {
			reserved += h.Amount
		}
	}
	for {
		f, ok, err := v.freezes.next(ctx, func(f checkedFreeze) bool { return f.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return reserved, err
		}
		reserved += f.Amount
	}
}

func (v *verifier) checkLots(ctx context.Context, a *checkedAccount) (lotted credits.Amount, err error) {
	for {
		l, ok, err := v.lots.next(ctx, func(l checkedLot) bool { return l.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return lotted, err
		}
		lotted += l.Remaining
		name := fmt.Sprintf("the lot of transaction %d", l.Seq)
		a.report(l.Remaining != l.Amount-l.Used, name, "%s of %s credits remain, but %s were taken out", l.Remaining, l.Amount, l.Used)
		a.report(l.Amount != l.Granted, name, "it began with %s credits, its transaction granted %s", l.Amount, l.Granted)
	}
}

// checkPayments checks for each payment that granted − clawed back + reinstated
// is between 0 and what was granted.
func (v *verifier) checkPayments(ctx context.Context, a *checkedAccount) error {
	for {
		p, ok, err := v.payments.next(ctx, func(p checkedPayment) bool { return p.StoreID == a.store.StoreID })
		if err != nil || !ok {
			return err
		}
		a.report(p.Reversed < 0 || p.Reversed > p.Granted, "payment "+p.Reference,
			"%s credits were granted and %s of them taken back", p.Granted, p.Reversed)
	}
}
