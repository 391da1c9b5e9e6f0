package credits

import (
	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
)

// Three rules decide about a spend: whether the caller may spend, whether the idempotency
// key is new, and whether enough is available. They exist in two forms, and both are in
// this file. The Go form decides about calls on an account that the transaction has
// locked (spendChecks, account.covers). The SQL form is the condition of the spend
// statements, which carry out most spends in one round trip. The SQL form refuses
// whatever it cannot decide, and the Go form then decides about it. TestSpendFormsAgree
// compares the two.

// maySpendSQL is the SQL form of "may the caller spend": a condition. store and
// user are SQL expressions.
func maySpendSQL(store, user string) string {
	return authz.MaySQL(authz.SpendCredits, store, user)
}

// keyUsedSQL is the SQL form of "is the idempotency key used": a query that has
// a row if it is. store and key are SQL expressions.
func keyUsedSQL(store, key string) string {
	return `SELECT 1 FROM credit_transactions t WHERE t.store_id = ` + store + ` AND t.idempotency_key = ` + key
}

// coversSQL is the SQL form of account.covers: a condition about the row b of
// credit_balances. amount is an SQL expression and above 0. An account in debt has
// nothing available, so the condition does not mention the debt. An account with lots is
// refused, since the Go form chooses the lots.
func coversSQL(amount string) string {
	return `b.balance - b.reserved >= ` + amount + ` AND b.lotted = 0`
}

// covers returns insufficient_credits when the account cannot pay amount.
func (a *account) covers(amount Amount) error {
	if a.Debt > 0 {
		return stoa.Errorf(stoa.InsufficientCredits,
			"This needs %s credits, but the store owes %s from a payment that was reversed. Buy credits to settle it.", amount, a.Debt)
	}
	if amount > a.Available() {
		return stoa.Errorf(stoa.InsufficientCredits,
			"This needs %s credits and %s are available. Buy credits and try again.", amount, a.Available())
	}
	if !a.LifetimeSpent.canAdd(amount) {
		return stoa.Errorf(stoa.InsufficientCredits, "This account has spent all that an account can count.")
	}
	return nil
}

// spendChecks is what the Go form reads about one account before it decides
// about the account's calls.
type spendChecks struct {
	refused map[stoa.UserID]error  // why a caller may not spend; nil for one who may
	used    map[string]firstAnswer // what a key was used for, by key
	prices  map[string]Amount      // unit prices in force, by service
}

// spend decides about call and carries it out on the loaded account. It reports
// whether credits moved, and adds the key of a call that moved credits to used.
func (c spendChecks) spend(a *account, call *spendCall) (out spendOutcome, moved bool) {
	if err := c.refused[call.user.UserID]; err != nil {
		return spendOutcome{err: err}, false
	}
	if first, used := c.used[call.key]; used && call.key != "" {
		if first.RequestHash != call.hash {
			return spendOutcome{err: ErrIdempotencyConflict()}, false
		}
		then, err := a.accountAsOf(first.AccountAfter, first.CreatedAt)
		return spendOutcome{result: SpendResult{Transaction: first.Transaction, Balance: then, Replayed: true}, err: err}, false
	}
	result, err := a.spend(call, c.prices)
	if err != nil {
		return spendOutcome{err: err}, false
	}
	if call.key != "" {
		c.used[call.key] = firstAnswer{Transaction: result.Transaction, RequestHash: call.hash, AccountAfter: a.accountAfter()}
	}
	return spendOutcome{result: result}, true
}

// spend posts the transaction of call, whose caller and key have been checked.
func (a *account) spend(call *spendCall, prices map[string]Amount) (SpendResult, error) {
	t, err := call.req.price(prices)
	if err != nil {
		return SpendResult{}, err
	}
	if err := a.covers(t.Amount); err != nil {
		return SpendResult{}, err
	}
	t.Type, t.Amount, t.Description, t.UserID = TypeSpend, -t.Amount, call.req.Description, &call.user.UserID
	t = a.post(entry{Transaction: t, key: call.key, hash: call.hash})
	return SpendResult{Transaction: t, Balance: a.Balance}, nil
}
