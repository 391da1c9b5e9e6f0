package credits_test

import (
	"context"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/credits"
	"github.com/stoahq/stoa/masterdb"
)

// bench is one store with its owner and, on demand, more people.
type bench struct {
	db     *masterdb.DB
	ledger *credits.Ledger
	store  stoa.StoreID
	owner  access.Principal
}

func setup(t testing.TB, db *masterdb.DB) bench {
	t.Helper()
	b := bench{db: db, ledger: credits.New(db), store: stoa.NewID[stoa.StoreID]()}
	b.owner = access.Principal{UserID: stoa.NewID[stoa.UserID]()}
	must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := insertUser(t.Context(), tx, b.owner.UserID); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`, b.store, b.store.String(), b.owner.UserID, tx.Now)
		if err != nil {
			return err
		}
		if err := access.Grant(t.Context(), tx, b.store, b.owner.UserID, access.Owner); err != nil {
			return err
		}
		return b.ledger.Open(t.Context(), tx, b.store)
	}))
	return b
}

func insertUser(ctx context.Context, tx *masterdb.Tx, id stoa.UserID) error {
	_, err := tx.Exec(ctx, `
		INSERT INTO users (id, email, password_hash, first_name, last_name, email_verified, created_at, updated_at)
		VALUES ($1, $2, 'x', 'A', 'B', true, $3, $3)`, id, id.String()+"@example.com", tx.Now)
	return err
}

// member adds a person with that role to the store.
func (b bench) member(t testing.TB, role access.Role) access.Principal {
	t.Helper()
	p := access.Principal{UserID: stoa.NewID[stoa.UserID]()}
	must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		if err := insertUser(t.Context(), tx, p.UserID); err != nil {
			return err
		}
		return access.Grant(t.Context(), tx, b.store, p.UserID, role)
	}))
	return p
}

func (b bench) grant(ctx context.Context, g credits.Grant) (t credits.Transaction, err error) {
	err = b.db.Tx(ctx, func(tx *masterdb.Tx) error {
		t, err = b.ledger.Grant(ctx, tx, b.store, g)
		return err
	})
	return t, err
}

// give grants a bonus under a key of its own.
func (b bench) give(t testing.TB, amount credits.Amount) {
	t.Helper()
	_, err := b.grant(t.Context(), credits.Grant{
		Type: credits.TypeBonus, Amount: amount, IdempotencyKey: stoa.NewID[stoa.TransactionID]().String(),
	})
	must(t, err)
}

func (b bench) spend(ctx context.Context, req credits.SpendRequest) (credits.SpendResult, error) {
	return b.ledger.Spend(ctx, b.owner, b.store, req)
}

func (b bench) balance(t testing.TB) credits.Balance {
	t.Helper()
	got, err := b.ledger.Balance(t.Context(), b.owner, b.store)
	must(t, err)
	return got
}

// rows returns the whole ledger of the store, oldest first, straight from
// the table.
func (b bench) rows(t testing.TB) []credits.Transaction {
	t.Helper()
	var out []credits.Transaction
	must(t, b.db.Select(t.Context(), &out, `
		SELECT id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price, description, reference, user_id, created_at
		FROM credit_transactions WHERE store_id = $1 ORDER BY seq`, b.store))
	return out
}

// checkInvariants: the sequence has no gap, each balance follows from the
// one before, and the amounts add up to the balance.
func (b bench) checkInvariants(t testing.TB) {
	t.Helper()
	var sum credits.Amount
	for i, row := range b.rows(t) {
		sum += row.Amount
		if row.Sequence != int64(i+1) || row.BalanceAfter != sum {
			t.Fatalf("row %d: seq %d, balance after %s, want seq %d, balance after %s",
				i, row.Sequence, row.BalanceAfter, i+1, sum)
		}
	}
	if got := b.balance(t).Balance; got != sum {
		t.Fatalf("balance %s, the amounts add up to %s", got, sum)
	}
}

// price puts a service on the list.
func (b bench) price(t testing.TB, service string, unit credits.Amount, from time.Time) {
	t.Helper()
	must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `
			INSERT INTO service_credit_costs (service_key, effective_from, unit_price, unit, description)
			VALUES ($1, $2, $3, 'item', 'A service')`, service, from, unit)
		return err
	}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantCode(t testing.TB, err error, want stoa.Code) {
	t.Helper()
	if got := stoa.CodeOf(err); got != want {
		t.Fatalf("got %q (%v), want %q", got, err, want)
	}
}

func ptr[T any](v T) *T { return &v }
