package tenantdb_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestManagerUnderStress checks that no concurrent caller gets an error or a
// closed pool, and that nothing remains open at the end.
func TestManagerUnderStress(t *testing.T) {
	master := masterdbtest.Open(t, masterdbtest.URL(t, masterdb.SQLite))
	h := setupOn(t, master, tenantdb.Options{MaxOpen: 5})
	var stores []stoa.StoreID
	for range 20 {
		store := h.embedded(t)
		stores = append(stores, store)
		l := h.lease(t, store)
		_, err := l.Exec(t.Context(), `CREATE TABLE me (id text)`)
		testkit.Must(t, err)
		_, err = l.Exec(t.Context(), `INSERT INTO me (id) VALUES (?)`, store.String())
		testkit.Must(t, err)
		l.Release()
	}
	testkit.Must(t, h.Close(t.Context()))
	before := runtime.NumGoroutine()

	rapid.Check(t, func(rt *rapid.T) {
		type step struct {
			store  int
			action int
		}
		walks := rapid.SliceOfN(rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) step {
			return step{rapid.IntRange(0, 19).Draw(rt, "store"), rapid.IntRange(0, 9).Draw(rt, "action")}
		}), 1, 20), 2, 12).Draw(rt, "walks")
		m := tenantdb.NewManager(master, h.ring, tenantdb.Options{DataDir: h.dir, MaxOpen: 5, ConnsPerStore: 2})
		errs := make(chan error, len(walks))
		for _, walk := range walks {
			go func() {
				var held []tenantdb.Lease
				var err error
				for _, s := range walk {
					switch store := stores[s.store]; s.action {
					case 0:
						m.Forget(store)
					case 1:
						m.EvictIdleSince(time.Now())
					case 2, 3:
						for _, l := range held {
							l.Release()
						}
						held = nil
					case 4: // a cancelled caller
						ctx, cancel := context.WithCancel(context.Background())
						cancel()
						if l, canceled := m.Acquire(ctx, store); canceled == nil {
							l.Release()
						}
					default:
						l, failed := m.Acquire(context.Background(), store)
						if failed != nil {
							err = errors.Join(err, failed)
							continue
						}
						held = append(held, l)
						var id string
						if failed := l.Get(context.Background(), &id, `SELECT id FROM me`); failed != nil || id != store.String() {
							err = errors.Join(err, fmt.Errorf("store %v read %q: %w", store, id, failed))
						}
					}
				}
				for _, l := range held {
					var id string // after all these operations
					err = errors.Join(err, l.Get(context.Background(), &id, `SELECT id FROM me`))
					l.Release()
				}
				errs <- err
			}()
		}
		for range walks {
			if err := <-errs; err != nil {
				rt.Error(err)
			}
		}
		if n := m.Open(); n > 5 {
			rt.Errorf("%d pools open with nobody there", n)
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := m.Close(ctx); err != nil {
			rt.Error(err)
		}
		if n := m.Open(); n != 0 {
			rt.Errorf("%d pools open after Close", n)
		}
	})
	testkit.Eventually(t, testkit.Timeout, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before })
}
