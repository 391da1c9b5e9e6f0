package masterdb_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMigrateByManyReplicas checks that several processes can migrate at once. Each handle
// stands for one starting process.
func TestMigrateByManyReplicas(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			const replicas = 6
			url := emptyURL(t, engine)
			var applied [replicas]int
			start := make(chan struct{})
			var wg sync.WaitGroup
			for i := range applied {
				wg.Go(func() {
					<-start
					db, err := masterdb.Open(t.Context(), url)
					if err != nil {
						t.Error(err)
						return
					}
					defer db.Close()
					if applied[i], err = db.Migrate(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			close(start)
			wg.Wait()

			db := masterdbtest.Open(t, url)
			schema, err := db.Schema(t.Context())
			if err != nil || schema.Check() != nil || schema.Binary < 21 {
				t.Errorf("the schema is %+v, %v", schema, err)
			}
			sum := 0
			for _, n := range applied {
				sum += n
			}
			files, err := fs.ReadDir(masterdb.Migrations, "migrations/sqlite")
			if err != nil || sum != len(files) {
				t.Errorf("the replicas applied %v migrations, want %d together, %v", applied, len(files), err)
			}
			if n, err := db.Migrate(t.Context()); n != 0 || err != nil {
				t.Errorf("a further Migrate = %d, %v, want that nothing is left", n, err)
			}
			if _, err := insertUser(t, db, "olive@example.com"); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSchemaVersionOfAnEmptyDatabase(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			schema, err := db.Schema(t.Context())
			if err != nil || schema.Version != 0 || schema.Binary < 21 || !errors.Is(schema.Check(), masterdb.ErrSchemaTooOld) {
				t.Errorf("Schema = %+v, %v, want 0 and what the binary brings", schema, err)
			}
		})
	}
}

// TestRangesNeedANewMaster checks that transactions are published as ranges, which no earlier
// release reads, on a master that this release has made; never on one that an earlier release
// may still run on.
func TestRangesNeedANewMaster(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		for made, want := range map[int64]bool{0: true, 43: false} {
			t.Run(fmt.Sprintf("%s from %d", engine, made), func(t *testing.T) {
				t.Parallel()
				db := masterdbtest.Open(t, emptyURL(t, engine))
				if made > 0 {
					testkit.Must(t, db.MigrateTo(t.Context(), made))
				}
				_, err := db.Migrate(t.Context())
				testkit.Must(t, err)
				schema, err := db.Schema(t.Context())
				testkit.Must(t, err)
				var ranges bool
				testkit.Must(t, db.Get(t.Context(), &ranges, `SELECT ranges FROM event_stream`))
				if refusesEarlier := schema.OldestBinary > 43; ranges != want || refusesEarlier != want {
					t.Errorf("ranges %v, oldest release %d", ranges, schema.OldestBinary)
				}
			})
		}
	}
}

// TestMigrationKeepsTheLedger checks migration 00007, which recreates the ledger's table on
// SQLite: every row is unchanged afterwards, and is still protected against changes and
// duplicates.
func TestMigrationKeepsTheLedger(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			testkit.Must(t, db.MigrateTo(t.Context(), 6))
			store, user := newStore(t, db)
			const at = `(SELECT created_at FROM stores)`
			testkit.Must(t, exec(t, db, `INSERT INTO credit_balances (store_id, balance, seq, lifetime_purchased, lifetime_spent, updated_at)
				VALUES ($1, 7, 2, 10, 3, `+at+`)`, store))
			testkit.Must(t, exec(t, db, `
				INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, description, reference, user_id, created_at)
				VALUES ($1, $1, 1, 'purchase', 10, 10, 'Käse', 'p', $2, `+at+`)`, store, user))
			testkit.Must(t, exec(t, db, `
				INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, service_key, quantity, unit_price,
					idempotency_key, request_hash, created_at)
				VALUES ($1, $2, 2, 'spend', -3, 7, 'paint', 3, 1, 'spend:k', 'h', `+at+`)`, user, store))
			dump := func() (rows []map[string]any) {
				testkit.Must(t, db.Select(t.Context(), &rows, `
					SELECT t.id, t.store_id, t.seq, t.type, t.amount, t.balance_after, t.service_key, t.quantity, t.unit_price, t.description,
						t.reference, t.user_id, t.idempotency_key, t.request_hash, t.created_at, b.balance, b.reserved, b.debt, b.seq AS last,
						b.lifetime_purchased, b.lifetime_spent
					FROM credit_transactions t JOIN credit_balances b ON b.store_id = t.store_id ORDER BY t.seq`))
				return rows
			}
			before := dump()
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)
			if diff := cmp.Diff(before, dump()); diff != "" || len(before) != 2 {
				t.Errorf("%d rows before: %s", len(before), diff)
			}
			const again = `INSERT INTO credit_transactions (id, store_id, seq, type, amount, balance_after, idempotency_key, created_at)
				SELECT '0198a000-0000-7000-8000-000000000001', store_id, `
			for _, change := range []string{
				`UPDATE credit_transactions SET description = 'forged'`,
				`DELETE FROM credit_transactions`,
				again + `seq, 'bonus', 1, 8, NULL, created_at FROM credit_transactions WHERE seq = 2`,
				again + `3, 'bonus', 1, 8, 'spend:k', created_at FROM credit_transactions WHERE seq = 2`,
				again + `3, 'bonus', 0, 7, NULL, created_at FROM credit_transactions WHERE seq = 2`,
			} {
				if exec(t, db, change) == nil {
					t.Errorf("%s was accepted", change)
				}
			}
			testkit.Must(t, exec(t, db, again+`3, 'bonus', 1, 8, NULL, created_at FROM credit_transactions WHERE seq = 2`))
		})
	}
}

// TestMigrationKeepsPurchases checks migration 00008, which recreates tables on SQLite: the
// purchases and payments are there afterwards, and are still protected against changes.
func TestMigrationKeepsPurchases(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			testkit.Must(t, db.MigrateTo(t.Context(), 7))
			store, user := newStore(t, db)
			const at = `(SELECT created_at FROM stores)`
			for i, id := range []string{"0198a000-0000-7000-8000-000000000001", "0198a000-0000-7000-8000-000000000002"} {
				testkit.Must(t, exec(t, db, `
					INSERT INTO purchases (id, store_id, user_id, provider, provider_ref, status, credits, amount_minor, currency, checkout_url, created_at, updated_at)
					VALUES ($1, $2, $3, 'sandbox', $4, 'pending', 10, 5, 'EUR', 'http://x', `+at+`, `+at+`)`, id, store, user, string(rune('a'+i))))
			}
			testkit.Must(t, exec(t, db, `
				INSERT INTO billing_transactions (id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at)
				VALUES ($1, $2, '0198a000-0000-7000-8000-000000000001', 'payment', 5, 'EUR', 'sandbox', 'pi_1', `+at+`)`, store, store))
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)

			var rows []struct {
				ProviderRef string
				PaymentRef  *string
				Paid        int64
			}
			testkit.Must(t, db.Select(t.Context(), &rows, `
				SELECT p.provider_ref, p.payment_ref, count(b.id) AS paid
				FROM purchases p LEFT JOIN billing_transactions b ON b.purchase_id = p.id
				GROUP BY p.id, p.provider_ref, p.payment_ref ORDER BY p.id`))
			if len(rows) != 2 || rows[0].PaymentRef == nil || *rows[0].PaymentRef != "pi_1" || rows[0].Paid != 1 || rows[1].PaymentRef != nil || rows[1].Paid != 0 {
				t.Errorf("%+v", rows)
			}
			for _, change := range []string{
				`DELETE FROM purchases WHERE provider_ref = 'a'`, // its payment references it
				`UPDATE billing_transactions SET amount_minor = 1`,
				`DELETE FROM billing_transactions`,
				`UPDATE purchases SET provider_ref = 'a'`,
				`UPDATE purchases SET payment_ref = 'pi_1'`,
				`UPDATE purchases SET clawed_back = 11`,
				`UPDATE purchases SET clawed_back = 6, frozen = 5`,
				`UPDATE purchases SET reversed_minor = 6`,
			} {
				if exec(t, db, change) == nil {
					t.Errorf("%s was accepted", change)
				}
			}
			testkit.Must(t, exec(t, db, `DELETE FROM purchases WHERE provider_ref = 'b'`))
		})
	}
}

// TestMigrationKeepsPayments checks migration 00020, which recreates the tables of payments
// on SQLite: every row and every constraint is there afterwards.
func TestMigrationKeepsPayments(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			testkit.Must(t, db.MigrateTo(t.Context(), 19))
			store, user := newStore(t, db)
			const at = `(SELECT created_at FROM stores)`
			purchases := []string{"0198a000-0000-7000-8000-000000000001", "0198a000-0000-7000-8000-000000000002", "0198a000-0000-7000-8000-000000000003"}
			for i, id := range purchases {
				testkit.Must(t, exec(t, db, `
					INSERT INTO purchases (id, store_id, user_id, provider, provider_ref, payment_ref, attempt, version, automatic, status, credits, amount_minor,
						currency, checkout_url, reversed_minor, clawed_back, frozen, freezes, idempotency_key, request_hash, created_at, updated_at, paid_at)
					VALUES ($1, $2, $3, 'stripe', $4, $5, 2, 7, $6, $7, 100000, 10, 'EUR', 'http://x', 5, 50000, 10000, 3, $8, 'h', `+at+`, `+at+`, `+at+`)`,
					id, store, user, fmt.Sprint("cs_", i), fmt.Sprint("pi_", i), i == 1, []string{"paid", "pending", "pending"}[i], fmt.Sprint("key", i)))
			}
			testkit.Must(t, exec(t, db, `
				INSERT INTO billing_transactions (id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at)
				VALUES ($1, $2, $3, 'payment', 10, 'EUR', 'stripe', 'pi_0', `+at+`)`, purchases[0], store, purchases[0]))
			testkit.Must(t, exec(t, db, `
				INSERT INTO purchase_reversals (provider, provider_ref, purchase_id, type, taken_minor, disputed_minor, changes, created_at, updated_at)
				VALUES ('stripe', 're_1', $1, 'refund', 5, 1, 2, `+at+`, `+at+`)`, purchases[0]))
			testkit.Must(t, exec(t, db, `
				INSERT INTO auto_recharges (store_id, user_id, enabled, threshold, credits, monthly_cap, customer_ref, card_ref, card_brand, card_last4,
					card_expires, card_saved_at, updated_at)
				VALUES ($1, $2, true, 1, 2, 3, 'cus_1', 'pm_1', 'visa', '4242', '2031-04', `+at+`, `+at+`)`, store, user))
			dump := func() (rows []string) {
				for table, columns := range map[string]string{
					"purchases": `id, store_id, user_id, provider, provider_ref, payment_ref, attempt, version, automatic, status, credits, amount_minor, currency,
						checkout_url, reversed_minor, clawed_back, frozen, freezes, idempotency_key, request_hash, created_at, updated_at, paid_at`,
					"billing_transactions": `id, store_id, purchase_id, type, amount_minor, currency, provider, provider_ref, created_at`,
					"purchase_reversals":   `provider, provider_ref, purchase_id, type, taken_minor, disputed_minor, changes, created_at, updated_at`,
					"auto_recharges": `store_id, user_id, enabled, threshold, credits, monthly_cap, stopped_reason, stopped_at, customer_ref, card_ref, card_brand,
						card_last4, card_expires, card_saved_at, updated_at`,
				} {
					var found []string
					texts := strings.Split(columns, ",")
					for i, column := range texts {
						texts[i] = "coalesce(CAST(" + strings.TrimSpace(column) + " AS text), 'null')"
					}
					testkit.Must(t, db.Select(t.Context(), &found, `SELECT `+strings.Join(texts, ` || '|' || `)+` FROM `+table))
					for _, row := range found {
						rows = append(rows, table+": "+row)
					}
				}
				slices.Sort(rows)
				return rows
			}
			before := dump()
			testkit.Must(t, db.MigrateTo(t.Context(), 20))
			if diff := cmp.Diff(before, dump()); diff != "" || len(before) != 6 {
				t.Errorf("%d rows before: %s", len(before), diff)
			}
			for _, change := range []string{
				`DELETE FROM purchases WHERE provider_ref = 'cs_0'`,
				`UPDATE billing_transactions SET amount_minor = 1`,
				`DELETE FROM billing_transactions`,
				`UPDATE purchases SET status = 'mismatched' WHERE provider_ref = 'cs_2'`, // without the mismatched amount
				`UPDATE purchases SET status = 'nonsense' WHERE provider_ref = 'cs_2'`,
				`UPDATE purchases SET paid_minor = 9, paid_currency = 'EUR' WHERE provider_ref = 'cs_2'`, // it has granted credits, so it cannot be mismatched
				`UPDATE purchases SET paid_minor = 9, clawed_back = 0, frozen = 0, paid_at = NULL WHERE provider_ref = 'cs_2'`,
				`UPDATE purchases SET automatic = true WHERE provider_ref = 'cs_2'`, // only one automatic purchase at a time
				`UPDATE purchases SET reversed_minor = 11`,
				`UPDATE purchases SET clawed_back = 100001`,
				`UPDATE purchases SET payment_ref = 'pi_0'`,
				`UPDATE purchases SET idempotency_key = 'key0'`,
				`UPDATE auto_recharges SET stopped_reason = 'mismatched'`, // it is still enabled
				`UPDATE auto_recharges SET enabled = false, stopped_reason = 'nonsense'`,
				`UPDATE auto_recharges SET card_ref = NULL`,
			} {
				if exec(t, db, change) == nil {
					t.Errorf("%s was accepted", change)
				}
			}
			testkit.Must(t, exec(t, db, `UPDATE purchases SET status = 'mismatched', paid_minor = 900, paid_currency = 'USD', reversed_minor = 900, clawed_back = 0, frozen = 0, paid_at = NULL
				WHERE provider_ref = 'cs_2'`))
			testkit.Must(t, exec(t, db, `UPDATE auto_recharges SET enabled = false, stopped_reason = 'mismatched'`))
		})
	}
}

// TestMigrationKeepsPeople checks that migration 00017 changes addresses to lower case,
// leaves non-ASCII addresses unchanged, and merges no users.
func TestMigrationKeepsPeople(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			testkit.Must(t, db.MigrateTo(t.Context(), 14))
			for _, email := range []string{"Olive@Example.com", "sam@example.com", "\u017fam@example.com", "änne@example.com"} {
				_, err := insertUser(t, db, email)
				testkit.Must(t, err)
			}
			_, err := db.Migrate(t.Context())
			testkit.Must(t, err)
			var got []string
			testkit.Must(t, db.Select(t.Context(), &got, `SELECT email FROM users ORDER BY created_at, id`))
			want := []string{"olive@example.com", "sam@example.com", "\u017fam@example.com", "änne@example.com"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("addresses (-want +got):\n%s", diff)
			}
			for _, again := range append(want, "SAM@example.com") {
				if _, err := insertUser(t, db, again); !masterdb.IsUnique(err) {
					t.Errorf("%s a second time: %v", again, err)
				}
			}
		})
	}
}
