package credits

import (
	"cmp"
	"slices"
	"time"

	"github.com/stoahq/stoa"
)

// account is a store's account as the transaction that locked it has read it.
// Its methods only change memory and never fail: they keep what is to be
// written until flush writes it all. Callers check first.
//
// Four things hold after each method: 0 <= reserved <= balance, a debt means
// that nothing is available, the lots hold Lotted, and what has expired and
// is not held is gone.
type account struct {
	Balance
	Lotted Amount // the part of the balance that is in lots

	now     time.Time
	lots    []*lot    // with something left
	overdue []dueHold // open holds whose time has passed

	entries []entry
	uses    []lotUse
	ended   []dueHold
	changed bool // something is to be written
}

// dueHold is an open hold whose time has passed.
type dueHold struct {
	ID     stoa.HoldID
	Amount Amount
}

// lot is credits that expire, or are spent before or after others.
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

// lotUse is what one transaction took from one lot.
type lotUse struct {
	lot    lotID
	seq    int64
	amount Amount
}

// entry is a movement about to be written: a Transaction without what the
// account gives it, and the key that makes it happen once.
type entry struct {
	Transaction
	key, hash string // both empty: not idempotent
}

func (l *lot) expired(now time.Time) bool { return l.ExpiresAt != nil && !l.ExpiresAt.After(now) }

// compareLots gives the order in which credits are spent: priority, then
// expiry, then age.
func compareLots(a, b *lot) int {
	return cmp.Or(cmp.Compare(a.Priority, b.Priority), compareExpiry(a.ExpiresAt, b.ExpiresAt), cmp.Compare(a.Seq, b.Seq))
}

// compareExpiry: what never expires comes last.
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

// post appends e and moves the balance, the debt and the lots.
func (a *account) post(e entry) Transaction { return a.postFrom(nil, e) }

// postFrom is post for what leaves one certain lot.
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
	default: // neither bought nor spent
	}
	e.ID, e.StoreID, e.Sequence = stoa.NewID[stoa.TransactionID](), a.StoreID, a.Seq
	e.BalanceAfter, e.CreatedAt = a.Balance.Balance, a.now
	a.entries = append(a.entries, e)
	a.touch()
	return e.Transaction
}

// touch says that there is something to write.
func (a *account) touch() {
	if !a.changed {
		a.Version++
	}
	a.changed, a.UpdatedAt = true, a.now
}

// consume takes amount from the lots in their order, with the credits that
// are in no lot between them: those have priority 0 and never expire.
//
// Held credits are taken to be the ones that expire first. So a capture takes
// expired ones first, and nothing else takes them at all.
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
	case TypeRefund, TypeDispute: // money that went back takes its own credits back
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
	a.uses = append(a.uses, lotUse{l.ID, a.Seq, part})
}

// reserve sets credits aside, or with a negative amount gives them back.
func (a *account) reserve(amount Amount) {
	a.Reserved += amount
	a.touch()
}

// settle does what is due before and after anything else: overdue holds end,
// lots expire, and a debt is repaid from what is available.
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

// expire ends the lots whose time has come, as far as nothing holds them.
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
