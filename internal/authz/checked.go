package authz

import (
	"context"
	"errors"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
)

// CheckedRows reads a row of a store along with the check of the caller's right to it.
// Calls that wait at the same time are one statement, as masterdb.Lookup tells.
type CheckedRows[R checkedRow] struct {
	db     *masterdb.DB
	lookup *masterdb.Lookup[caller, R]
}

// Checked holds what the check needs. It is embedded in the rows of CheckedRows.
type Checked struct {
	CheckedStore stoa.StoreID
	CheckedUser  stoa.UserID
	access
}

func (c Checked) checked() Checked { return c }

type checkedRow interface{ checked() Checked }

// caller is who wants the row of which store.
type caller = masterdb.Pair[stoa.StoreID, stoa.UserID]

// NewCheckedRows returns the CheckedRows with these columns, of tables that are joined to the
// store s: "JOIN … ON … = s.id". The parameters $3 and following are what args returns when
// a statement is sent; nil if there are none.
func NewCheckedRows[R checkedRow](db *masterdb.DB, columns, joins string, args func() []any) *CheckedRows[R] {
	return &CheckedRows[R]{db, masterdb.NewPairLookup(db, `
		SELECT s.id AS checked_store, u.id AS checked_user, `+accessColumns+`, `+columns+`
		FROM keys JOIN stores s ON s.id = keys.first AND s.status <> 'deleted' JOIN users u ON u.id = keys.second
		LEFT JOIN store_members m ON m.store_id = s.id AND m.user_id = u.id `+joins,
		func(row R) caller {
			return caller{First: row.checked().CheckedStore, Second: row.checked().CheckedUser}
		}, args)}
}

// Get returns the row of the store, and fails as Check does.
func (r *CheckedRows[R]) Get(ctx context.Context, p Principal, store stoa.StoreID, a Action) (R, error) {
	var none R
	if err := p.Within(store, a); err != nil {
		return none, err
	}
	row, err := r.lookup.Get(ctx, caller{First: store, Second: p.UserID})
	if err != nil && !errors.Is(err, masterdb.ErrNotFound) {
		return none, err
	}
	// An access of nobody is refused.
	if _, err := row.checked().check(ctx, r.db, p, store, a); err != nil {
		return none, err
	}
	return row, nil
}
