package credits

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// The account as a call left it is stored with the call's idempotency key, so that a replay
// gets the first answer and not the balance of its own time. It is a JSON array of the
// balance, the reserved credits, the debt, and what was ever purchased and spent, in units.

// accountAfter returns the account for the replays of the call that has just changed it.
func (b Balance) accountAfter() *string {
	text := fmt.Sprintf("[%d, %d, %d, %d, %d]", b.Balance, b.Reserved, b.Debt, b.LifetimePurchased, b.LifetimeSpent)
	return &text
}

// accountAfterSQL is the SQL form of accountAfter. PostgreSQL only.
func accountAfterSQL(columns ...string) string {
	return `json_build_array(` + strings.Join(columns, ", ") + `)::text`
}

// accountAsOf returns the account as stored in after, at the time of the first call. Calls
// from before version 43 of the schema have stored nothing: their replays get the account
// as it is.
func (b Balance) accountAsOf(after *string, at time.Time) (Balance, error) {
	if after == nil {
		return b, nil
	}
	var stored [5]int64
	if err := json.Unmarshal([]byte(*after), &stored); err != nil {
		return Balance{}, fmt.Errorf("account stored with an idempotency key: %w", err)
	}
	b.Balance, b.Reserved, b.Debt = Amount(stored[0]), Amount(stored[1]), Amount(stored[2])
	b.LifetimePurchased, b.LifetimeSpent, b.UpdatedAt = Amount(stored[3]), Amount(stored[4]), at
	return b, nil
}
