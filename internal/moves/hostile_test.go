package moves

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestDisturbedMove has somebody else change the source or the target while a store is moved,
// in a way that a move cannot follow. The move fails with a clear reason, and the store
// continues in the database that it had.
func TestDisturbedMove(t *testing.T) {
	t.Parallel()
	refuse := map[credential.EngineName][]string{
		credential.PostgreSQL: {`CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''no room''; END'`,
			`CREATE TRIGGER full_disk BEFORE INSERT OR UPDATE ON products FOR EACH ROW EXECUTE FUNCTION full_disk()`},
		credential.MySQL: {`CREATE TRIGGER full_disk BEFORE INSERT ON products FOR EACH ROW SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no room'`},
	}
	cases := []struct {
		name  string
		step  string // before which it happens
		where role
		do    func(engine credential.EngineName) []string
		says  string
	}{
		{"a foreign table", stepPrepare, source, func(credential.EngineName) []string { return []string{`CREATE TABLE zz_mine (id integer PRIMARY KEY)`} }, "zz_mine"},
		{"a foreign table later", stepFreeze, source, func(credential.EngineName) []string { return []string{`CREATE TABLE zz_mine (id integer PRIMARY KEY)`} }, "zz_mine"},
		{"a foreign column", stepFreeze, source, func(credential.EngineName) []string { return []string{`ALTER TABLE pages ADD COLUMN mine integer`} }, "mine"},
		{"a truncated table", stepFreeze, source, func(credential.EngineName) []string { return []string{`TRUNCATE TABLE order_items`} }, "order_items"},
		{"a table that is gone", stepFreeze, source, func(credential.EngineName) []string { return []string{`DROP TABLE order_items`} }, "order_items"},
		{"a row in the target", stepFreeze, target, func(credential.EngineName) []string {
			return []string{`DELETE FROM stoa_move_journal`, `UPDATE stoa_move_control SET fenced = false`, `DELETE FROM orders`, `UPDATE stoa_move_control SET fenced = true`}
		}, "orders"},
		{"a target that is full", stepCatchUp, target, func(e credential.EngineName) []string { return refuse[e] }, ""},
		{"a target with a table", stepPrepare, target, func(credential.EngineName) []string { return []string{`CREATE TABLE zz_mine (id integer PRIMARY KEY)`} }, "zz_mine"},
	}
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		var mu sync.Mutex
		var disturb func(step string)
		r.interrupt = func(step string) error {
			mu.Lock()
			defer mu.Unlock()
			disturb(step)
			return nil
		}
		for i, engine := range engines()[1:] {
			if testing.Short() && (db.Engine == masterdb.SQLite) != (i == 0) {
				continue // each engine on one master
			}
			for _, c := range cases {
				t.Run(string(engine)+" with "+c.name, func(t *testing.T) {
					store := r.connected(t, engine)
					own, err := r.tenants.Load(t.Context(), db, store)
					testkit.Must(t, err)
					to := tenantdbtest.Create(t, engine)
					fill(t, tenantdbtest.Open(t, own))
					load := r.traffic(t, store)
					mu.Lock()
					disturb = func(step string) {
						if step != c.step {
							return
						}
						disturb = func(string) {}
						if c.where == source {
							tenantdbtest.Exec(t, own, c.do(engine)...)
						} else {
							tenantdbtest.Exec(t, to, c.do(engine)...)
						}
					}
					mu.Unlock()
					m, err := r.Start(t.Context(), r.owner, store, Target{Credentials: to})
					testkit.Must(t, err)
					m = r.await(t, m, inState(Kept, Failed, Aborted))
					all := load.end()
					if m.State != Failed || m.Fault == nil || m.Fault.Code == stoa.Internal || !strings.Contains(m.Fault.Message, c.says) {
						t.Errorf("the move is %s: %v", m.State, m.Fault.Err())
					}
					t.Log(m.Fault.Err())
					r.check(t, store, engine, all)
				})
			}
		}
	})
}

// TestMoveIsBounded moves a store with more rows than may be copied.
func TestMoveIsBounded(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		r.opts.MaxContent = 100
		for _, engine := range engines()[1:] {
			store := r.connected(t, credential.SQLite)
			m, err := r.Start(t.Context(), r.owner, store, Target{Credentials: tenantdbtest.Create(t, engine)})
			testkit.Must(t, err)
			m = r.await(t, m, inState(Kept, Failed, Aborted))
			if m.State != Failed || m.Fault == nil || m.Fault.Code != stoa.ArchiveRefused || !strings.Contains(m.Fault.Message, "100 bytes") {
				t.Errorf("%s: the move is %s: %v", engine, m.State, m.Fault.Err())
			}
		}
	})
}

// fill gives a database an order with an item.
func fill(t *testing.T, db *tenantdb.DB) {
	t.Helper()
	order := uuidOf()
	mustExec(t, db, `INSERT INTO orders (id, order_number, email, status, payment_status, shipping_status, currency, subtotal_minor, total_minor, billing_address, shipping_address, placed_at, created_at, updated_at)
		VALUES (?, ?, 'a@example.com', 'pending', 'unpaid', 'unshipped', 'EUR', 1, 1, '{}', '{}', ?, ?, ?)`, order, order, now, now, now)
	mustExec(t, db, `INSERT INTO order_items (id, order_id, product_name, variant_name, quantity, unit_price_minor, total_minor) VALUES (?, ?, 'Brot', '', 1, 1, 1)`, uuidOf(), order)
}

// TestLockedTable has somebody else lock a table for a while. Writers and the move wait for
// them, not for each other, and the move goes on afterwards.
func TestLockedTable(t *testing.T) {
	t.Parallel()
	for _, engine := range engines()[1:] {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			tr := newTrial(t, engine, credential.SQLite)
			other := tenantdbtest.Open(t, tr.own)
			locked, release := make(chan struct{}), make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				err := other.Tx(t.Context(), func(tx *tenantdb.Tx) error {
					if _, err := tx.Exec(t.Context(), `UPDATE stores SET description = 'locked' WHERE id = ?`, tr.store); err != nil {
						return err
					}
					close(locked)
					<-release
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			<-locked
			begun := time.Now()
			timer := time.AfterFunc(3*time.Second, func() { close(release) })
			defer timer.Stop()
			tr.begin(t)
			wg.Wait()
			if time.Since(begun) < 2*time.Second {
				t.Error("the triggers were created while a transaction without them was open")
			}
			testkit.Must(t, tr.fence(t.Context(), func(time.Duration, error) {}))
			sums, err := tr.to.sums(t.Context(), tr.tables, nil, nil)
			testkit.Must(t, err)
			testkit.Must(t, tr.equals(t.Context(), mustSums(t, tr.from, tr.tables), nil))
			if stores := sums["stores"]; stores.Summary("").Rows != 1 {
				t.Errorf("%d stores", stores.Summary("").Rows)
			}
		})
	}
}

func mustSums(t *testing.T, s side, tables []archive.Table) map[string]archive.Sums {
	t.Helper()
	sums, err := s.sums(t.Context(), tables, nil, nil)
	testkit.Must(t, err)
	return sums
}

// TestEndlessTarget compares a store with a target that sends rows without an end: those that
// the store does not have, and those of a key that is not compared.
func TestEndlessTarget(t *testing.T) {
	t.Parallel()
	for _, engine := range engines()[1:] {
		for _, ownKeys := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, own keys: %v", engine, ownKeys), func(t *testing.T) {
				t.Parallel()
				tr := newTrial(t, credential.SQLite, engine)
				tr.begin(t)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				tenantdbtest.EndlessSettings(t, tr.to.DB, ownKeys)
				except := map[string]map[archive.Key]bool{"settings": {`["k"]`: true}}
				err := tr.equals(ctx, mustSums(t, tr.from, tr.tables), except)
				if stoa.CodeOf(err) != stoa.MoveRefused || !strings.Contains(err.Error(), "settings") {
					t.Errorf("the error is %v", err)
				}
			})
		}
	}
}
