package moves

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// engines are those of the matrix. SQLite is always there.
func engines() []credential.EngineName {
	var out []credential.EngineName
	for _, e := range tenantdbtest.Engines() {
		if e != credential.Supabase {
			out = append(out, e)
		}
	}
	return out
}

// trial is a move between two databases without a master.
type trial struct {
	pair
	move   stoa.MoveID
	own    credential.Credentials
	writer *tenantdb.DB // of the source, in another pool
}

func newTrial(t *testing.T, from, to credential.EngineName) *trial {
	t.Helper()
	c := tenantdbtest.Create(t, from)
	tables, err := archive.Tables(t.Context(), tenantdb.LatestVersion())
	testkit.Must(t, err)
	tr := &trial{move: stoa.NewID[stoa.MoveID](), own: c, writer: tenantdbtest.Open(t, c), pair: pair{
		from: side{tenantdbtest.Open(t, c), source}, to: side{tenantdbtest.Open(t, tenantdbtest.Create(t, to)), target},
		store: stoa.NewID[stoa.StoreID](), tables: tables,
	}}
	_, err = tr.from.Migrate(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, storedata.CreateStore(t.Context(), tr.writer, storedata.Profile{ID: tr.store, ProfileValues: storedata.ProfileValues{Name: "Bakery", Slug: "bakery"}}))
	return tr
}

// begin does the steps before the first round of catching up.
func (tr *trial) begin(t *testing.T) {
	t.Helper()
	testkit.Must(t, tr.from.begin(t.Context(), tr.move, tr.tables))
	testkit.Must(t, tr.to.begin(t.Context(), tr.move, tr.tables))
	testkit.Must(t, tr.from.record(t.Context(), tr.tables))
	_, err := archive.Copy(t.Context(), tr.from.DB, tr.to.DB, tr.store, archive.CopyOptions{})
	testkit.Must(t, err)
	testkit.Must(t, tr.to.record(t.Context(), tr.tables))
}

func mustExec(t *testing.T, db *tenantdb.DB, query string, args ...any) {
	t.Helper()
	if _, err := db.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%.80s: %v", query, err)
	}
}

var now = time.Date(2026, 11, 27, 12, 0, 0, 123456000, time.UTC)

func insertProduct(ctx context.Context, db *tenantdb.DB, id, slug string) error {
	_, err := db.Exec(ctx, `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at)
		VALUES (?, 'Brot', ?, 'mit 😀', 'EUR', 'draft', ?, ?)`, id, slug, now, now)
	return err
}

// load writes until stop is closed or the database is fenced. It returns what the database
// has acknowledged: the slug of each product, "" for a deleted one.
func load(ctx context.Context, db *tenantdb.DB, name string, stop <-chan struct{}) (acknowledged map[string]string, fault error) {
	acknowledged = map[string]string{}
	var ids []string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-stop:
			return acknowledged, nil
		case <-tick.C:
		}
		id, slug := uuid.NewString(), fmt.Sprintf("%s-%d", name, n)
		err := db.Tx(ctx, func(tx *tenantdb.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO products (id, name, slug, description, currency, status, created_at, updated_at)
				VALUES (?, 'Brot', ?, '', 'EUR', 'draft', ?, ?)`, id, slug, now, now); err != nil {
				return err
			}
			_, err := tx.Exec(ctx, `INSERT INTO product_variants (id, product_id, name, price_minor, created_at, updated_at) VALUES (?, ?, 'v', ?, ?, ?)`, uuid.NewString(), id, n, now, now)
			return err
		})
		if err == nil {
			acknowledged[id], ids = slug, append(ids, id)
			switch old := ids[n/2%len(ids)]; n % 3 {
			case 1:
				if _, err = db.Exec(ctx, `UPDATE products SET slug = ? WHERE id = ?`, slug+"-renamed", id); err == nil {
					acknowledged[id] += "-renamed"
				}
			case 2:
				if _, err = db.Exec(ctx, `DELETE FROM products WHERE id = ?`, old); err == nil {
					acknowledged[old] = ""
				}
			}
		}
		if tenantdb.IsFenced(err) {
			return acknowledged, nil
		}
		if err != nil {
			return acknowledged, err
		}
	}
}

// check compares what was acknowledged with what the database has.
func check(t *testing.T, db *tenantdb.DB, all []map[string]string) {
	t.Helper()
	const page = 5000
	found := map[string]string{}
	for after, full := uuid.Nil.String(), true; full; {
		var rows []struct {
			ID   string
			Slug string
		}
		testkit.Must(t, db.Select(t.Context(), &rows, `SELECT id, slug FROM products WHERE id > ? ORDER BY id LIMIT ?`, after, page))
		for _, r := range rows {
			found[r.ID], after = r.Slug, r.ID
		}
		full = len(rows) == page
	}
	n := 0
	for _, acknowledged := range all {
		for id, slug := range acknowledged {
			if found[id] != slug {
				t.Errorf("the product %s has the slug %q, want %q", id, found[id], slug)
			}
			delete(found, id)
			n++
		}
	}
	if len(found) > 0 {
		t.Errorf("%d products that nobody has written", len(found))
	}
	t.Logf("%d acknowledged products", n)
}

// TestMoveBetweenEngines moves a database between each pair of engines while several writers
// change it and a reader reads it, and back again.
func TestMoveBetweenEngines(t *testing.T) {
	t.Parallel()
	for _, from := range engines() {
		for _, to := range engines() {
			if testing.Short() && from != to {
				continue // TestMove has the others
			}
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				t.Parallel()
				tr := newTrial(t, from, to)
				stop := make(chan struct{})
				all, wg := make([]map[string]string, 4), sync.WaitGroup{}
				for i := range all {
					wg.Go(func() {
						var err error
						if all[i], err = load(t.Context(), tr.writer, fmt.Sprint("w", i), stop); err != nil {
							t.Errorf("writer %d: %v", i, err)
						}
					})
				}
				var reads atomic.Int64
				reading, endReads := context.WithCancel(t.Context())
				defer endReads()
				wg.Go(func() {
					for reading.Err() == nil {
						var n int
						if err := tr.writer.Get(t.Context(), &n, `SELECT count(*) FROM products`); err != nil {
							t.Errorf("read: %v", err)
							return
						}
						reads.Add(1)
						testkit.Must(t, wait(t.Context(), time.Millisecond))
					}
				})
				tr.begin(t)
				err := tr.fence(t.Context(), func(took time.Duration, err error) { t.Logf("freeze: %s, %v", took, err) })
				close(stop)
				endReads()
				wg.Wait()
				testkit.Must(t, err)
				testkit.Must(t, tr.to.unfence(t.Context()))
				if err := insertProduct(t.Context(), tr.writer, uuid.NewString(), "late"); !tenantdb.IsFenced(err) {
					t.Errorf("a late write: %v, want a fence", err)
				}
				check(t, tr.to.DB, all)
				t.Logf("%d reads", reads.Load())

				more, err := load(t.Context(), tr.to.DB, "after", closedSoon(t))
				testkit.Must(t, err)
				back := pair{from: tr.to, to: tr.from, store: tr.store, tables: tr.tables}
				testkit.Must(t, back.fence(t.Context(), func(took time.Duration, err error) { t.Logf("freeze on the way back: %s, %v", took, err) }))
				testkit.Must(t, tr.from.unfence(t.Context()))
				check(t, tr.from.DB, append(all, more))
				testkit.Must(t, errors.Join(tr.from.end(t.Context(), tr.tables), tr.to.end(t.Context(), tr.tables)))
				for _, s := range []side{tr.from, tr.to} {
					there, err := s.tables(t.Context())
					testkit.Must(t, err)
					if there[controlTable] || there[journalTable] {
						t.Errorf("the %s has tables of the move after its end", s.role)
					}
				}
				testkit.Must(t, insertProduct(t.Context(), tr.writer, uuid.NewString(), "at-last"))
			})
		}
	}
}

// closedSoon returns a channel that is closed after a moment.
func closedSoon(t *testing.T) <-chan struct{} {
	t.Helper()
	stop := make(chan struct{})
	timer := time.AfterFunc(200*time.Millisecond, func() { close(stop) })
	t.Cleanup(func() { timer.Stop() })
	return stop
}

func uuidOf() string { return uuid.NewString() }
