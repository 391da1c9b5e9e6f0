package credits

import (
	"cmp"
	"slices"
	"time"

	"github.com/stoahq/stoa"
)

// account is a store's account as read by the transaction that locked it. Its methods
// change memory only and never fail. flush writes the changes. Callers check the rules
// before they change the account.
//
// Each method keeps four invariants: 0 <= reserved <= balance, an account in debt has
// nothing available, the lots add up to Lotted, and credits that have expired and are not
// reserved are removed.
type account struct {
	Balance
	Lotted Amount // the part of the balance that is in lots

	now     time.Time
	lots    []*lot    // with something left
	overdue []dueHold // open holds that have expired

	entries []entry
	uses    []lotUse
	ended   []dueHold
	changed bool // there are changes to write
}

// dueHold is an open hold that has expired.
type dueHold struct {
	ID     stoa.HoldID
	Amount Amount
}

// lot is credits that expire or have a priority.
type lot struct {
	ID        lotID
	Seq       int64 // of the transaction that granted them
	Priority  int
	ExpiresAt *time.Time
	Amount    Amount
	Remaining Amount
	Reference *string // of that transaction

	fresh, touched bool
}

type (
	lotKind struct{}
	lotID   = stoa.ID[lotKind]
)

// lotUse is the amount that one transaction took from one lot.
type lotUse struct {
	lot    lotID
	seq    int64
	amount Amount
}

// entry is a transaction to be written, with its idempotency key. post fills in
// the fields that follow from the account.
type entry struct {
	Transaction
	key, hash    string  // both empty when the entry is not idempotent
	accountAfter *string // for the replays of a key; nil without one
}

func (l *lot) expired(now time.Time) bool { return l.ExpiresAt != nil && !l.ExpiresAt.After(now) }

// compareLots orders lots as they are spent: by priority, then expiry, then age.
func compareLots(a, b *lot) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), compareExpiry(a.ExpiresAt, b.ExpiresAt), cmp.Compare(a.Seq, b.Seq))
}

// compareExpiry orders expiry times. nil, which never expires, comes last.
func compareExpiry(a, b *time.Time) int {
	switch {
	case a == nil && b == nil:
		return 0
	case a == nil:
		return 1
	case b == nil:
		return -1
	}
	return a.Compare(*b)
}

// post appends e and changes the balance, the debt and the lots.
func (a *account) post(e entry) Transaction { return a.postFrom(nil, e) }

// postFrom is post for an amount that is taken from lot l.
func (a *account) postFrom(l *lot, e entry) Transaction {
	a.Seq++
	switch {
	case l != nil:
		a.take(l, -e.Amount)
	case e.Amount < 0:
		a.consume(-e.Amount, e)
	}
	a.Balance.Balance += e.Amount
	a.Debt += e.DebtChange
	switch e.Type {
	case TypePurchase:
		a.LifetimePurchased += e.Amount
	case TypeSpend, TypeCapture:
		a.LifetimeSpent -= e.Amount
	default: // neither purchased nor spent
	}
	e.ID, e.StoreID, e.Sequence = stoa.NewID[stoa.TransactionID](), a.StoreID, a.Seq
	e.BalanceAfter, e.CreatedAt = a.Balance.Balance, a.now
	a.touch()
	if e.key != "" {
		e.accountAfter = a.accountAfter()
	}
	a.entries = append(a.entries, e)
	return e.Transaction
}

// touch marks the account as changed.
func (a *account) touch() {
	if !a.changed {
		a.Version++
	}
	a.changed, a.UpdatedAt = true, a.now
}

// consume takes amount from the lots in their order. Credits that are in no lot
// count as a lot with priority 0 that never expires.
//
// Reserved credits are those that expire first. So a capture takes expired lots
// first, and no other transaction takes from them.
func (a *account) consume(amount Amount, e entry) {
	if a.Lotted == 0 {
		return
	}
	loose := &lot{Remaining: a.Balance.Balance - a.Lotted}
	order := append(slices.Clone(a.lots), loose)
	slices.SortStableFunc(order, compareLots)
	switch e.Type {
	case TypeCapture:
		slices.SortStableFunc(order, func(x, y *lot) int { return preferFirst(x.expired(a.now), y.expired(a.now)) })
	case TypeRefund, TypeDispute: // a reversed payment takes back the credits that it has granted
		slices.SortStableFunc(order, func(x, y *lot) int { return preferFirst(x.of(e.Reference), y.of(e.Reference)) })
		fallthrough
	default:
		order = slices.DeleteFunc(order, func(l *lot) bool { return l.expired(a.now) })
	}
	for _, l := range order {
		part := min(amount, l.Remaining)
		amount -= part
		if l != loose && part > 0 {
			a.take(l, part)
		}
	}
}

func preferFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

func (l *lot) of(reference *string) bool {
	return l.Reference != nil && reference != nil && *l.Reference == *reference
}

// take records that the transaction now being posted uses part of l.
func (a *account) take(l *lot, part Amount) {
	l.Remaining -= part
	l.touched = true
	a.Lotted -= part
	a.uses = append(a.uses, lotUse{lot: l.ID, seq: a.Seq, amount: part})
}

// reserve reserves credits, or with a negative amount releases them.
func (a *account) reserve(amount Amount) {
	a.Reserved += amount
	a.touch()
}

// settle applies what is due: overdue holds expire, lots expire, and a debt is repaid
// from what is available. It runs before and after each change.
func (a *account) settle() {
	for _, h := range a.overdue {
		a.reserve(-h.Amount)
	}
	a.ended, a.overdue = append(a.ended, a.overdue...), nil
	a.expire()
	if pay := min(a.Debt, a.Available()); pay > 0 {
		a.post(entry{Transaction: Transaction{
			Type: TypeAdjustment, Amount: -pay, DebtChange: -pay, Description: "Repayment of what a reversed payment left owing",
		}})
	}
}

// expire expires due lots, as far as their credits are not reserved.
func (a *account) expire() {
	var due Amount
	for _, l := range a.lots {
		if l.expired(a.now) {
			due += l.Remaining
		}
	}
	due -= a.Reserved
	for _, l := range a.lots {
		part := min(due, l.Remaining)
		if part <= 0 || !l.expired(a.now) {
			continue
		}
		due -= part
		a.postFrom(l, entry{Transaction: Transaction{Type: TypeExpiry, Amount: -part, Description: "Credits expired", Reference: l.Reference}})
	}
}
