package app_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/cli"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// counter is a master database with stores, on which an operator runs commands.
type counter struct {
	t      testing.TB
	db     *masterdb.DB
	ledger *credits.Ledger
	flags  []string
}

func newCounter(t testing.TB, engine masterdb.Engine) counter {
	t.Helper()
	url := masterdbtest.URL(t, engine)
	db := masterdbtest.Open(t, url)
	return counter{t, db, credits.New(db), []string{"--data-dir=" + t.TempDir(), "--master-db-url=" + url}}
}

// eachCounter runs test on every available master engine.
func eachCounter(t *testing.T, test func(counter)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(newCounter(t, engine))
		})
	}
}

func (c counter) stoa(args ...string) (status int, out, errOut string) {
	c.t.Helper()
	return command(c.t, append(args, c.flags...)...)
}

func (c counter) tx(fn func(context.Context, *masterdb.Tx) error) {
	c.t.Helper()
	if err := c.db.Tx(c.t.Context(), func(tx *masterdb.Tx) error { return fn(c.t.Context(), tx) }); err != nil {
		c.t.Fatal(err)
	}
}

// store creates a store with a credit account only.
func (c counter) store(slug, status string) stoa.StoreID {
	c.t.Helper()
	id, owner := stoa.NewID[stoa.StoreID](), stoa.NewID[stoa.UserID]()
	c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		if _, err := tx.Exec(ctx, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, $2, 'x', 'Olive', 'Owner', $3, $3)`, owner, slug+"@example.com", tx.Now); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', $3, $4, $5, $5)`, id, slug, status, owner, tx.Now); err != nil {
			return err
		}
		return c.ledger.Open(ctx, tx, id)
	})
	return id
}

func (c counter) balance(id stoa.StoreID) credits.Balance {
	c.t.Helper()
	b, err := c.ledger.ReadBalance(c.t.Context(), c.db, id)
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

// grant runs 'stoa credits grant --json', which must succeed.
func (c counter) grant(args ...string) cli.Granted {
	c.t.Helper()
	status, out, errOut := c.stoa(append([]string{"credits", "grant", "--json"}, args...)...)
	var g cli.Granted
	if err := json.Unmarshal([]byte(out), &g); err != nil || status != 0 {
		c.t.Fatalf("%v: status %d, %v: %s%s", args, status, err, out, errOut)
	}
	return g
}

func TestCreditsGrant(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(c counter) {
		id := c.store("shop", "active")
		status, out, errOut := c.stoa("credits", "grant", "shop", "12.5", "--reason=Sorry for Tuesday", "--bonus", "--expires=30d")
		if status != 0 || !strings.Contains(out, "Granted 12.5 credits (bonus, until ") || !strings.Contains(out, "12.5 are available of a balance of 12.5") {
			c.t.Errorf("status %d: %s%s", status, out, errOut)
		}
		var row struct {
			Type, Description string
			ExpiresAt         *time.Time
		}
		if err := c.db.Get(c.t.Context(), &row, `SELECT t.type, t.description, l.expires_at FROM credit_transactions t
			JOIN credit_lots l ON l.store_id = t.store_id AND l.seq = t.seq WHERE t.store_id = $1`, id); err != nil {
			c.t.Fatal(err)
		}
		if in := time.Until(*row.ExpiresAt); row.Type != "bonus" || row.Description != "Sorry for Tuesday" || in < 29*24*time.Hour || in > 30*24*time.Hour {
			c.t.Errorf("recorded %+v", row)
		}

		// The command printed on stderr repeats the grant when its result is unknown.
		_, hint, found := strings.Cut(strings.TrimSpace(errOut), "answer: ")
		repeat := append([]string{"shop", "12.5", "--reason=Sorry for Tuesday", "--bonus"}, strings.Fields(hint)...)
		if g := c.grant(repeat...); !found || !g.Replayed || g.Balance.Balance.String() != "12.5" {
			c.t.Errorf("the repetition with %q: %+v", hint, g)
		}
		if status, out, _ := c.stoa(append([]string{"credits", "grant"}, repeat...)...); status != 0 || !strings.Contains(out, "Nothing was changed: at ") {
			c.t.Errorf("status %d: %s", status, out)
		}

		g := c.grant(strings.ToUpper(id.String()), "0.0001", "--reason=x", "--type=adjustment", "--priority=-100")
		if g.Replayed || g.Store != id || g.Transaction.Sequence != 2 || g.Transaction.Type != credits.TypeAdjustment || g.Transaction.ExpiresAt != nil ||
			g.Transaction.BalanceAfter.String() != "12.5001" || len(g.Key) < 20 {
			c.t.Errorf("%+v", g)
		}
		if b := c.balance(id); b.Balance != 125_001 || b.Seq != 2 {
			c.t.Errorf("%+v", b)
		}
		// The same key in another store is a different key.
		other := c.store("other", "pending_database")
		for range 2 {
			c.grant("other", "1", "--reason=x", "--key="+g.Key)
		}
		if b := c.balance(other); b.Balance != credits.Credit {
			c.t.Errorf("%+v", b)
		}
		if status, out, errOut := c.stoa("credits", "verify"); status != 0 || !strings.Contains(out, "3 transactions of 2 accounts: everything adds up.") {
			c.t.Errorf("status %d: %s%s", status, out, errOut)
		}
	})
}

// TestCreditsGrantRepaysDebt checks that a debt reduces the balance after a grant.
func TestCreditsGrantRepaysDebt(t *testing.T) {
	t.Parallel()
	c := newCounter(t, masterdb.SQLite)
	id := c.store("shop", "active")
	c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := c.ledger.ClawBack(ctx, tx, id, credits.Reversal{Type: credits.TypeRefund, Amount: 7 * credits.Credit, IdempotencyKey: "r"})
		return err
	})
	status, out, _ := c.stoa("credits", "grant", "shop", "5", "--reason=x")
	if status != 0 || !strings.Contains(out, "0 are available of a balance of 0, and 2 are owed") {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestCreditsGrantAtOnce checks that concurrent commands with one key make one grant.
func TestCreditsGrantAtOnce(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(c counter) {
		id := c.store("shop", "active")
		var mu sync.Mutex
		fresh := 0
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				g := c.grant("shop", "5", "--reason=x", "--key=case 17")
				mu.Lock()
				defer mu.Unlock()
				if !g.Replayed {
					fresh++
				}
			})
		}
		wg.Wait()
		if b := c.balance(id); fresh != 1 || b.Balance != 5*credits.Credit || b.Seq != 1 {
			c.t.Errorf("%d grants: %+v", fresh, b)
		}
	})
}

// TestCreditsGrantRefused checks that invalid input is named and changes nothing.
func TestCreditsGrantRefused(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(c counter) {
		c.store("shop", "active")
		c.store("gone", "deleted")
		c.grant("shop", "1", "--reason=x", "--key=used")
		reason := "--reason=x"
		for _, tt := range []struct {
			args   []string
			status int
			want   string
		}{
			{nil, 2, "--reason"},
			{[]string{"shop", "1"}, 2, "--reason"},
			{[]string{"shop", "1", "--reason="}, 1, "--reason must not be empty"},
			{[]string{"shop", "1", "--reason= \t\n"}, 1, "--reason must not be empty"},
			{[]string{"shop", "1", "--reason=" + strings.Repeat("é", 501)}, 1, "--reason must be text of at most 500 characters"},
			{[]string{"shop", "1", "--reason=a\x00b"}, 1, "--reason must be text"},
			{[]string{"shop", "0", reason}, 1, "AMOUNT must be above 0"},
			{[]string{"shop", "-1", reason}, 2, "-1"},
			{[]string{reason, "--", "shop", "-1"}, 2, ""}, // after it come the flags that the test adds
			{[]string{"shop", "1e3", reason}, 2, "plain decimal number"},
			{[]string{"shop", "1,5", reason}, 2, "plain decimal number"},
			{[]string{"shop", "", reason}, 2, "plain decimal number"},
			{[]string{"shop", "0.00001", reason}, 2, "plain decimal number"},
			{[]string{"shop", "NaN", reason}, 2, "plain decimal number"},
			{[]string{"shop", strings.Repeat("9", 400), reason}, 2, "too large"},
			{[]string{"shop", "922337203685477.5807", reason}, 1, "AMOUNT is more than an account can hold"},
			{[]string{"shop", "1", reason, "--type=purchase"}, 2, "--type"},
			{[]string{"shop", "1", reason, "--type=adjustment", "--bonus"}, 1, "cannot be used together"},
			{[]string{"shop", "1", reason, "--expires=2020-01-01"}, 1, "--expires must be in the future"},
			{[]string{"shop", "1", reason, "--expires=soon"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires=-1h"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires=0d"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires=99999999999d"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires=36501d"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires=2027-02-30"}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--expires="}, 2, "--expires"},
			{[]string{"shop", "1", reason, "--priority=101"}, 1, "--priority must be between -100 and 100"},
			{[]string{"shop", "1", reason, "--priority=x"}, 2, "--priority"},
			{[]string{"shop", "1", reason, "--key="}, 1, "--key must have 1 to 200 characters"},
			{[]string{"shop", "1", reason, "--key=" + strings.Repeat("k", 201)}, 1, "--key must have"},
			{[]string{"shop", "1", reason, "--key=schlüssel"}, 1, "--key must consist of printable ASCII"},
			{[]string{"shop", "1", reason, "--key=k", "--expires=30d"}, 1, "give --expires as a date"},
			{[]string{"shop", "2", reason, "--key=used"}, 1, "has granted something else"},
			{[]string{"shop", "1", reason, "--key=used", "--bonus"}, 1, "has granted something else"},
			{[]string{"nobody", "1", reason}, 1, "No store has"},
			{[]string{"", "1", reason}, 1, "No store has"},
			{[]string{"' OR 1=1 --", "1", reason}, 1, "No store has"},
			{[]string{strings.Repeat("x", 1<<16), "1", reason}, 1, "No store has"},
			{[]string{"gone", "1", reason}, 1, "gone is deleted"},
		} {
			status, out, errOut := c.stoa(append([]string{"credits", "grant"}, tt.args...)...)
			if status != tt.status || out != "" || !strings.Contains(errOut, tt.want) || len(errOut) > 2000 {
				c.t.Errorf("%.200q: status %d, want %d and %q: %.2000s%.2000s", tt.args, status, tt.status, tt.want, out, errOut)
			}
		}
		var rows int
		if err := c.db.Get(c.t.Context(), &rows, `SELECT count(*) FROM credit_transactions`); err != nil || rows != 1 {
			c.t.Errorf("%d rows, %v", rows, err)
		}
	})
}

// TestCreditsGrantInterrupted checks that after a lost answer the command says how to
// find out the result, and that its advice works.
func TestCreditsGrantInterrupted(t *testing.T) {
	t.Parallel()
	c := newCounter(t, masterdb.SQLite)
	id := c.store("shop", "active")
	// Another transaction blocks the command until its timeout.
	locked, release := make(chan struct{}), make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		c.tx(func(context.Context, *masterdb.Tx) error {
			close(locked)
			<-release
			return nil
		})
	})
	<-locked
	ctx, cancel := context.WithCancel(t.Context())
	var out, errOut syncBuffer
	done := make(chan int, 1)
	go func() {
		done <- cli.Run(ctx, append([]string{"credits", "grant", "shop", "5", "--reason=x"}, c.flags...), &out, &errOut)
	}()
	testkit.Eventually(t, testkit.Timeout, "the key is printed", func() bool { return strings.Contains(errOut.String(), "--key") })
	cancel()
	close(release)
	writer.Wait()
	status := <-done
	_, key, _ := strings.Cut(strings.TrimSpace(errOut.String()), "is not known: run this again with --key ")
	if status == 0 { // the command ended before the interruption
		_, key, _ = strings.Cut(strings.TrimSpace(out.String()), "Key: ")
	}
	c.grant("shop", "5", "--reason=x", "--key="+key)
	if b := c.balance(id); key == "" || b.Balance != 5*credits.Credit {
		t.Errorf("status %d, key %q, %+v: %s", status, key, b, errOut.String())
	}
}

func TestCreditsVerify(t *testing.T) {
	t.Parallel()
	eachCounter(t, func(c counter) {
		if status, out, _ := c.stoa("credits", "verify"); status != 0 || !strings.Contains(out, "0 transactions of 0 accounts: everything adds up.") {
			c.t.Errorf("an empty ledger: status %d: %s", status, out)
		}
		good, bad := c.store("good", "active"), c.store("bad", "deleted")
		for _, id := range []stoa.StoreID{good, bad} {
			c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
				_, err := c.ledger.Grant(ctx, tx, id, credits.Grant{Type: credits.TypePurchase, Amount: credits.Credit, IdempotencyKey: "g"})
				return err
			})
		}
		c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE credit_balances SET balance = balance + 1, lifetime_spent = 5 WHERE store_id = $1`, bad)
			return err
		})
		status, out, errOut := c.stoa("credits", "verify")
		want := "store " + bad.String() + ", balance: balance is 1.0001, but its transactions add up to 1\n"
		if status != 1 || !strings.HasPrefix(out, want) || strings.Contains(out, good.String()) ||
			!strings.Contains(out, "2 transactions of 2 accounts: 1 of them are wrong.") || !strings.Contains(errOut, "2/2 accounts, 2 transactions, 1 faulty") {
			c.t.Errorf("status %d: %s%s", status, out, errOut)
		}
		status, out, errOut = c.stoa("credits", "verify", "--json")
		var v cli.Verification
		if err := json.Unmarshal([]byte(out), &v); err != nil || status != 1 || v.OK || !v.Complete || v.Accounts != 2 || v.Transactions != 2 ||
			len(v.Faults) != 1 || v.Faults[0].Store != bad || v.Faults[0].Row != "balance" || strings.Contains(errOut, "accounts,") {
			c.t.Errorf("status %d, %v: %s%s", status, err, out, errOut)
		}
		if status, _, errOut := c.stoa("credits", "verify", "everything"); status != 2 {
			c.t.Errorf("status %d: %s", status, errOut)
		}
	})
}

// TestCreditsVerifyGivesUp checks that verify reports an incomplete check when it finds
// too many faults.
func TestCreditsVerifyGivesUp(t *testing.T) {
	t.Parallel()
	c := newCounter(t, masterdb.SQLite)
	for i := range 101 {
		c.store(fmt.Sprintf("shop-%d", i), "active")
	}
	c.tx(func(ctx context.Context, tx *masterdb.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE credit_balances SET seq = 1`)
		return err
	})
	status, out, _ := c.stoa("credits", "verify")
	if status != 1 || strings.Count(out, "store ") != 100 || !strings.Contains(out, "100 of them are wrong; of 101 accounts the others were not looked at.") {
		t.Errorf("status %d: %s", status, out)
	}
}

// TestServeEndsWhatIsOver checks that a running server ends an overdue hold and an
// expired lot without a call on their accounts.
func TestServeEndsWhatIsOver(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			cfg := testConfig(t, engine)
			before := startServer(t, cfg)
			c, id := register(t, before, "owner@example.com")
			store, err := stoa.ParseID[stoa.StoreID](id)
			if err != nil {
				t.Fatal(err)
			}
			p, err := before.Accounts.Authenticate(t.Context(), c.token)
			if err != nil {
				t.Fatal(err)
			}
			k := counter{t, before.Master, before.Ledger, []string{"--data-dir=" + cfg.DataDir, "--master-db-url=" + cfg.MasterDBURL.Reveal()}}
			k.grant(id, "10", "--reason=x", "--expires=1h")
			k.grant(id, "5", "--reason=x")
			held, err := before.Ledger.Hold(t.Context(), p, store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: 3 * credits.Credit}})
			if err != nil {
				t.Fatal(err)
			}
			// The server's first sweep must be over, or it would do the work of the
			// next one.
			testkit.Eventually(t, testkit.Timeout, "the first sweep", func() bool { return k.sweeps() == 1 })
			past := time.Now().UTC().Add(-time.Hour)
			k.tx(func(ctx context.Context, tx *masterdb.Tx) error {
				for _, table := range []string{"credit_holds", "credit_lots"} {
					if _, err := tx.Exec(ctx, `UPDATE `+table+` SET expires_at = $2 WHERE store_id = $1`, store, past); err != nil {
						return err
					}
				}
				return before.Queue.Enqueue(ctx, tx, credits.Sweep{}) // as the server does every minute
			})
			testkit.Eventually(t, testkit.Timeout, "what is over has ended", func() bool {
				b := k.balance(store)
				return b.Balance == 5*credits.Credit && b.Reserved == 0
			})
			var state string
			if err := k.db.Get(t.Context(), &state, `SELECT state FROM credit_holds WHERE id = $1`, held.Hold.ID); err != nil || state != "expired" {
				t.Errorf("the hold is %s, %v", state, err)
			}
			var lost credits.Amount
			if err := k.db.Get(t.Context(), &lost, `SELECT amount FROM credit_transactions WHERE store_id = $1 AND type = 'expiry'`, store); err != nil || lost != -10*credits.Credit {
				t.Errorf("%s expired, %v", lost, err)
			}
			if status, out, _ := k.stoa("credits", "verify"); status != 0 {
				t.Errorf("status %d: %s", status, out)
			}
		})
	}
}

// sweeps returns the number of completed sweeps.
func (c counter) sweeps() (n int) {
	c.t.Helper()
	if err := c.db.Get(c.t.Context(), &n, `SELECT count(*) FROM river_job WHERE kind = $1 AND CAST(state AS text) = 'completed'`, credits.Sweep{}.Kind()); err != nil {
		c.t.Fatal(err)
	}
	return n
}
