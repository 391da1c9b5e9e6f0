package app_test

import (
	"hash/maphash"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// The model of one account for porcupine. The check searches for an order of all calls
// that respects when each began and ended, and in which every answer is correct.

// bankKind is the kind of a call.
type bankKind int

const (
	bankRead bankKind = iota
	bankGrant
	bankSpend
	bankHold
	bankCapture
	bankRelease
)

// bankCall is one call. Amounts are in units.
type bankCall struct {
	kind   bankKind
	amount int64 // of a capture: the amount captured
	held   int64 // of a capture and a release: the amount held
	hold   int   // the hold's number, below 64
	key    int   // a key that several calls share, from 1 to 64; 0 for a key of its own
}

// bankAnswer is the answer to a call. The account in the answer to a repetition is not
// compared: it is the account at the first call.
type bankAnswer struct {
	unknown, refused  bool
	recorded          bool // seq and after belong to the call's own row
	seq, after        int64
	seen              bool // balance and reserved are the values right after the call
	balance, reserved int64
}

// bankState is the state of the account.
type bankState struct {
	balance, reserved, seq int64
	opened, closed         uint64 // holds
	used                   uint64 // shared keys
}

var bankSeed = maphash.MakeSeed()

var bankModel = porcupine.Model{
	Init: func() any { return bankState{} },
	Step: func(state, input, output any) (bool, any) {
		return state.(bankState).step(input.(bankCall), output.(bankAnswer))
	},
	Hash: func(state any) uint64 { return maphash.Comparable(bankSeed, state.(bankState)) },
}

// step applies the call. It reports whether the answer is correct. A call without an
// answer may have taken effect at any time or never: its end is open, so it may come
// after all others, where no call observes it.
func (s bankState) step(c bankCall, a bankAnswer) (bool, bankState) {
	if c.key > 0 && s.used&(1<<(c.key-1)) != 0 { // a repetition changes nothing
		return a.unknown || !a.refused, s
	}
	next, done := s.apply(c)
	switch {
	case !done:
		return a.unknown || a.refused, s
	case a.unknown:
		return true, next
	case a.refused,
		a.recorded && (a.seq != next.seq || a.after != next.balance),
		a.seen && (a.balance != next.balance || a.reserved != next.reserved):
		return false, s
	}
	return true, next
}

// apply applies the call, or returns false when the call must be refused.
func (s bankState) apply(c bankCall) (bankState, bool) {
	bit := uint64(1) << c.hold
	switch c.kind {
	case bankRead:
	case bankGrant:
		s.balance += c.amount
		s.seq++
	case bankSpend:
		if c.amount > s.balance-s.reserved {
			return s, false
		}
		s.balance -= c.amount
		s.seq++
	case bankHold:
		if c.amount > s.balance-s.reserved {
			return s, false
		}
		s.reserved += c.amount
		s.opened |= bit
	case bankCapture, bankRelease:
		if s.opened&bit == 0 || s.closed&bit != 0 {
			return s, false
		}
		s.closed |= bit
		s.reserved -= c.held
		if c.kind == bankCapture {
			s.balance -= c.amount
			s.seq++
		}
	}
	if c.key > 0 {
		s.used |= 1 << (c.key - 1)
	}
	return s, true
}

// never is the end time of a call without an answer.
const never = math.MaxInt64

// checkBank fails the test unless the history is linearizable.
func checkBank(t *testing.T, history []porcupine.Operation) {
	t.Helper()
	began := time.Now()
	if got := porcupine.CheckOperationsTimeout(bankModel, history, 2*time.Minute); got != porcupine.Ok {
		t.Errorf("%d calls: %s", len(history), got)
	}
	t.Logf("%d calls checked in %v", len(history), time.Since(began))
}

// TestBankModelRefuses checks that the model rejects impossible histories.
func TestBankModelRefuses(t *testing.T) {
	t.Parallel()
	at := func(from, to int64, c bankCall, a bankAnswer) porcupine.Operation {
		return porcupine.Operation{Input: c, Call: from, Output: a, Return: to}
	}
	grant := at(0, 1, bankCall{kind: bankGrant, amount: 10}, bankAnswer{recorded: true, seq: 1, after: 10})
	spend := func(amount int64) bankCall { return bankCall{kind: bankSpend, amount: amount} }
	row := func(seq, after int64) bankAnswer { return bankAnswer{recorded: true, seq: seq, after: after} }
	saw := func(balance, reserved int64) bankAnswer {
		return bankAnswer{seen: true, balance: balance, reserved: reserved}
	}
	read, hold := bankCall{}, bankCall{kind: bankHold, amount: 6, hold: 3}
	capture := bankCall{kind: bankCapture, amount: 4, held: 6, hold: 3}
	keyed := bankCall{kind: bankSpend, amount: 7, key: 1}
	for name, c := range map[string]struct {
		history []porcupine.Operation
		want    bool
	}{
		"one after the other":         {[]porcupine.Operation{grant, at(2, 3, spend(4), row(2, 6)), at(4, 5, read, saw(6, 0))}, true},
		"at the same time":            {[]porcupine.Operation{grant, at(2, 9, spend(7), bankAnswer{refused: true}), at(2, 9, spend(4), row(2, 6))}, true},
		"a spend that is lost":        {[]porcupine.Operation{grant, at(2, 3, spend(4), row(2, 6)), at(4, 5, read, saw(10, 0))}, false},
		"a spend that is doubled":     {[]porcupine.Operation{grant, at(2, 3, spend(4), row(2, 6)), at(4, 5, read, saw(2, 0))}, false},
		"a key that spends twice":     {[]porcupine.Operation{grant, at(2, 3, keyed, row(2, 3)), at(4, 5, keyed, bankAnswer{refused: true})}, false},
		"a key that spends once":      {[]porcupine.Operation{grant, at(2, 3, keyed, row(2, 3)), at(4, 5, keyed, row(2, 3))}, true},
		"two that see the same":       {[]porcupine.Operation{grant, at(2, 9, spend(4), row(2, 6)), at(2, 9, spend(4), row(2, 6))}, false},
		"two from one balance":        {[]porcupine.Operation{grant, at(2, 9, spend(7), bankAnswer{}), at(2, 9, spend(7), bankAnswer{})}, false},
		"a refusal without a cause":   {[]porcupine.Operation{grant, at(2, 3, spend(4), bankAnswer{refused: true})}, false},
		"held credits spent":          {[]porcupine.Operation{grant, at(2, 3, hold, saw(10, 6)), at(4, 5, spend(5), row(2, 5))}, false},
		"a hold captured twice":       {[]porcupine.Operation{grant, at(2, 3, hold, saw(10, 6)), at(4, 9, capture, row(2, 6)), at(4, 9, capture, row(3, 2))}, false},
		"captured or released":        {[]porcupine.Operation{grant, at(2, 3, hold, saw(10, 6)), at(4, 9, capture, bankAnswer{refused: true}), at(4, 9, bankCall{kind: bankRelease, held: 6, hold: 3}, saw(10, 0))}, true},
		"captured and released":       {[]porcupine.Operation{grant, at(2, 3, hold, saw(10, 6)), at(4, 9, capture, row(2, 6)), at(4, 9, bankCall{kind: bankRelease, held: 6, hold: 3}, bankAnswer{})}, false},
		"an answer from the past":     {[]porcupine.Operation{grant, at(2, 3, spend(4), row(2, 6)), at(4, 5, spend(1), row(3, 5)), at(6, 7, read, saw(6, 0))}, false},
		"unknown, and it happened":    {[]porcupine.Operation{grant, at(2, never, spend(4), bankAnswer{unknown: true}), at(4, 5, read, saw(6, 0))}, true},
		"unknown, and it did not":     {[]porcupine.Operation{grant, at(2, never, spend(4), bankAnswer{unknown: true}), at(4, 5, read, saw(10, 0))}, true},
		"unknown, and it did by half": {[]porcupine.Operation{grant, at(2, never, spend(4), bankAnswer{unknown: true}), at(4, 5, read, saw(8, 0))}, false},
		"unknown before it began":     {[]porcupine.Operation{grant, at(2, 3, read, saw(6, 0)), at(4, never, spend(4), bankAnswer{unknown: true})}, false},
	} {
		for range 2 { // in either order of recording
			if got := porcupine.CheckOperations(bankModel, c.history); got != c.want {
				t.Errorf("%s: %v, want %v", name, got, c.want)
			}
			slices.Reverse(c.history)
		}
	}
}
