package credits

import (
	"strconv"
	"time"
)

// ColumnNames are the names of a transaction's columns in a table.
var ColumnNames = []string{
	"sequence", "id", "createdAt", "type", "amount", "balanceAfter", "debtChange", "serviceKey", "quantity", "unitPrice", "description", "reference",
}

// Columns returns the transaction as a row of a table, with escape applied to texts that
// a user may have chosen.
func (t Transaction) Columns(escape func(string) string) []string {
	row := []string{
		strconv.FormatInt(t.Sequence, 10), t.ID.String(), t.CreatedAt.UTC().Format(time.RFC3339Nano), string(t.Type), t.Amount.String(),
		t.BalanceAfter.String(), t.DebtChange.String(), "", "", "", escape(t.Description), "",
	}
	if t.ServiceKey != nil {
		row[7] = escape(*t.ServiceKey)
	}
	if t.Quantity != nil {
		row[8] = strconv.FormatInt(*t.Quantity, 10)
	}
	if t.UnitPrice != nil {
		row[9] = t.UnitPrice.String()
	}
	if t.Reference != nil {
		row[11] = escape(*t.Reference)
	}
	return row
}
