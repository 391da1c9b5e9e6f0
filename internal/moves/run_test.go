package moves

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/hostnames"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/provisioning"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/supabase"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// replica is one process: a service with its dependencies.
type replica struct {
	*Service
	owner authz.Principal
	dir   string // of embedded databases
	cloud *link.Service
}

func newReplica(t *testing.T, db *masterdb.DB) *replica {
	t.Helper()
	return newReplicaAt(t, db, nil)
}

// newReplicaAt returns a replica with a stand-in for Supabase, unless sb is nil.
func newReplicaAt(t *testing.T, db *masterdb.DB, sb *supabasetest.Server) *replica {
	t.Helper()
	rules := tenantdbtest.SupabaseRules()
	if sb != nil {
		rules = sb.Rules()
	}
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
	queue, err := jobs.New(db, log, jobs.Options{})
	testkit.Must(t, err)
	dir := t.TempDir()
	tenants := tenantdb.NewManager(db, ring, tenantdb.Options{DataDir: dir, Dialer: dial.Dialer{Allow: dial.Loopback}, Supabase: rules})
	t.Cleanup(func() { testkit.Must(t, tenants.Close(context.Background())) })
	registry := stores.New(db, credits.New(db), tenants, queue, hostnames.New(db, "shops.test", log), log)
	var cloud *link.Service
	if sb != nil {
		cloud = link.New(db, ring, tenants, link.Options{
			API:      supabase.New(supabase.Options{URL: sb.URL, ClientID: supabasetest.ClientID, ClientSecret: keyring.NewSecret(supabasetest.ClientSecret)}),
			Redirect: "http://localhost:3000/api/supabase/callback", Poll: 10 * time.Millisecond, ReadyTimeout: 10 * time.Second, Log: log,
		})
	}
	databases := provisioning.New(db, registry, tenants, queue, log, provisioning.Options{Lease: 5 * time.Minute, Cloud: cloud})
	s := New(db, registry, tenants, databases, queue, log, Options{Lease: time.Minute})
	jobs.Handle(queue, provisioning.Timeout, databases.Provision)
	jobs.Handle(queue, Timeout, s.Run)
	testkit.Must(t, queue.Start(t.Context()))
	t.Cleanup(func() { testkit.Must(t, queue.Stop(context.Background())) })
	r := &replica{Service: s, owner: authz.Principal{UserID: stoa.NewID[stoa.UserID](), RecentlyAuthenticated: true}, dir: dir, cloud: cloud}
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at) VALUES ($1, $2, 'x', 'Olive', 'Owner', $3, $3)`,
			r.owner.UserID, r.owner.UserID.String()+"@example.com", tx.Now)
		return err
	}))
	return r
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", p[:len(p)-1])
	}
	return len(p), nil
}

// database returns credentials of an empty database, or those of a managed one.
func database(t *testing.T, engine credential.EngineName) credential.Credentials {
	t.Helper()
	if engine == credential.SQLite {
		return credential.Credentials{Kind: credential.Managed}
	}
	return tenantdbtest.Create(t, engine)
}

func targetOf(t *testing.T, engine credential.EngineName) Target {
	t.Helper()
	if engine == credential.SQLite {
		return Target{Managed: engine}
	}
	return Target{Credentials: tenantdbtest.Create(t, engine)}
}

// connected returns a store with a database of the engine.
func (r *replica) connected(t *testing.T, engine credential.EngineName) stoa.StoreID {
	t.Helper()
	s, err := r.registry.Create(t.Context(), r.owner, stores.NewStore{Name: "Bakery"})
	testkit.Must(t, err)
	run, err := r.databases.Connect(t.Context(), r.owner, s.ID, database(t, engine))
	testkit.Must(t, err)
	run, err = r.databases.Wait(t.Context(), run.ID, time.Minute)
	testkit.Must(t, err)
	if run.State != provisioning.Succeeded {
		t.Fatalf("the store is not connected: %+v", run.Fault)
	}
	return s.ID
}

// await waits until the move is in a state that ok accepts.
func (r *replica) await(t *testing.T, m Move, ok func(Move) bool) Move {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); time.Now().Before(deadline); {
		now, err := r.GetByOperator(t.Context(), m.StoreID, m.ID)
		testkit.Must(t, err)
		if ok(now) {
			return now
		}
		testkit.Must(t, wait(t.Context(), 20*time.Millisecond))
	}
	t.Fatalf("the move is not there in time: %+v", m)
	return m
}

func inState(states ...State) func(Move) bool {
	return func(m Move) bool {
		for _, s := range states {
			if m.State == s && (m.Step == stepKeep || m.Done()) {
				return true
			}
		}
		return false
	}
}

// traffic writes to and reads from a store through leases, as requests do.
type traffic struct {
	wg           sync.WaitGroup
	stop         chan struct{}
	once         sync.Once
	acknowledged []map[string]string
	reads        atomic.Int64
	writes       atomic.Int64 // acknowledged
}

func (r *replica) traffic(t *testing.T, store stoa.StoreID) *traffic {
	t.Helper()
	return r.trafficOf(t, store, 4)
}

// trafficOf has a number of writers, which write about as much as four.
func (r *replica) trafficOf(t *testing.T, store stoa.StoreID, writers int) *traffic {
	t.Helper()
	tr := &traffic{stop: make(chan struct{}), acknowledged: make([]map[string]string, writers)}
	t.Cleanup(func() { tr.end() })
	for i := range tr.acknowledged {
		tr.acknowledged[i] = map[string]string{}
		tr.wg.Go(func() { r.write(t, store, tr, i) })
	}
	tr.wg.Go(func() {
		for n := 0; !tr.stopped(); n++ {
			err := r.leased(t.Context(), store, func(db *tenantdb.DB) error {
				var n int
				return db.Get(t.Context(), &n, `SELECT count(*) FROM products`)
			})
			if err != nil && t.Context().Err() == nil {
				t.Errorf("read: %v", err)
			}
			tr.reads.Add(1)
			_ = wait(t.Context(), 2*time.Millisecond)
		}
	})
	return tr
}

func (tr *traffic) stopped() bool {
	select {
	case <-tr.stop:
		return true
	default:
		return false
	}
}

func (tr *traffic) end() []map[string]string {
	tr.once.Do(func() { close(tr.stop) })
	tr.wg.Wait()
	return tr.acknowledged
}

func (r *replica) leased(ctx context.Context, store stoa.StoreID, fn func(*tenantdb.DB) error) error {
	lease, err := r.tenants.Acquire(ctx, store)
	if err != nil {
		return err
	}
	defer lease.Release()
	return fn(lease.DB)
}

// write never accepts a failure: a writer that meets the fence continues in the new database.
func (r *replica) write(t *testing.T, store stoa.StoreID, tr *traffic, writer int) {
	for n := 0; !tr.stopped(); n++ {
		id, slug := uuidOf(), fmt.Sprintf("w%d-%d", writer, n)
		err := r.leased(t.Context(), store, func(db *tenantdb.DB) error { return insertProduct(t.Context(), db, id, slug) })
		if err == nil {
			tr.acknowledged[writer][id] = slug
			tr.writes.Add(1)
			err = r.leased(t.Context(), store, func(db *tenantdb.DB) error {
				n, err := db.Exec(t.Context(), `UPDATE products SET slug = ? WHERE id = ?`, slug+"-renamed", id)
				if err == nil && n != 1 {
					err = fmt.Errorf("%d rows changed", n)
				}
				return err
			})
			if err == nil {
				tr.acknowledged[writer][id] += "-renamed"
				tr.writes.Add(1)
			}
		}
		if err != nil {
			t.Errorf("writer %d: %v", writer, err)
			return
		}
		_ = wait(t.Context(), time.Duration(len(tr.acknowledged))*4*time.Millisecond)
	}
}

func (r *replica) check(t *testing.T, store stoa.StoreID, engine credential.EngineName, all []map[string]string) {
	t.Helper()
	testkit.Must(t, r.leased(t.Context(), store, func(db *tenantdb.DB) error {
		if db.Engine != engine {
			t.Errorf("the store is on %s, want %s", db.Engine, engine)
		}
		check(t, db, all)
		there, err := side{db, source}.tables(t.Context())
		if there[controlTable] {
			var c control
			testkit.Must(t, db.Get(t.Context(), &c, `SELECT move_id, role, fenced FROM `+controlTable))
			if c.Fenced {
				t.Error("the database is fenced")
			}
		}
		return err
	}))
}

// TestMove moves a store between engines under a load of writers that never fail, and back.
func TestMove(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		for _, from := range engines() {
			for _, to := range engines() {
				// An embedded database has one place. The short form has each pair on one master.
				if from == credential.SQLite && to == credential.SQLite || testing.Short() && (db.Engine == masterdb.SQLite) != (from == credential.SQLite) {
					continue
				}
				t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
					store := r.connected(t, from)
					load := r.traffic(t, store)
					m, err := r.Start(t.Context(), r.owner, store, targetOf(t, to))
					testkit.Must(t, err)
					m = r.await(t, m, inState(Kept, Failed, Aborted))
					if m.State != Kept {
						t.Fatalf("the move is %s: %v", m.State, m.Fault.Err())
					}
					_ = wait(t.Context(), 200*time.Millisecond)
					_, err = r.Rollback(t.Context(), r.owner, store, m.ID)
					testkit.Must(t, err)
					m = r.await(t, m, inState(RolledBack, Succeeded))
					all := load.end()
					r.check(t, store, from, all)
					t.Logf("%s, frozen for %d ms, %d rows, %d changes, %d reads", m.State, *m.FrozenMs, m.RowsCopied, m.Changes, load.reads.Load())
				})
			}
		}
	})
}

// TestInterruptedMove interrupts a move once before each of its steps, or when the work of
// each step is done but not recorded. It always goes on, and no writer fails.
func TestInterruptedMove(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		at := map[bool]string{true: "", false: "end of "}[db.Engine == masterdb.SQLite]
		seen := map[string]int{}
		r.interrupt = func(step string) error {
			if seen[step]++; seen[step] == 1 && strings.HasPrefix(step, "end of ") == (at != "") {
				return errors.New("interrupted by the test")
			}
			return nil
		}
		store := r.connected(t, engines()[len(engines())-1])
		load := r.traffic(t, store)
		m, err := r.Start(t.Context(), r.owner, store, Target{Managed: credential.SQLite})
		testkit.Must(t, err)
		m = r.await(t, m, inState(Kept, Failed, Aborted))
		if m.State != Kept {
			t.Fatalf("the move is %s: %v", m.State, m.Fault.Err())
		}
		all := load.end()
		r.check(t, store, credential.SQLite, all)
		for _, step := range []string{stepPrepare, stepCopy, stepCatchUp, stepFreeze, stepSwap} {
			if seen[at+step] < 2 {
				t.Errorf("the step %s was not repeated", step)
			}
		}
	})
}

// TestAbortedMove aborts a move at each of its steps before the swap. The source stays in
// charge, and nothing is left of the move.
func TestAbortedMove(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		var aborts atomic.Pointer[func(string) error]
		r.interrupt = func(step string) error { return (*aborts.Load())(step) }
		for i, step := range []string{stepPrepare, stepCopy, stepCatchUp, stepFreeze, stepSwap} {
			t.Run(step, func(t *testing.T) {
				engine := engines()[i%len(engines())]
				store := r.connected(t, engine)
				var m Move
				abort := func(now string) error {
					if now != step {
						return nil
					}
					_, err := r.Abort(t.Context(), r.owner, store, m.ID)
					return err
				}
				aborts.Store(&abort)
				load := r.traffic(t, store)
				to := database(t, engines()[(i+1)%len(engines())])
				// The job must not begin before m is set.
				testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) (err error) {
					if to.Kind == credential.Managed {
						to = credential.ManagedSQLite(store)
					}
					m, err = r.start(t.Context(), tx, r.owner, store, to)
					return err
				}))
				end := r.await(t, m, Move.Done)
				if end.State != Aborted {
					t.Errorf("the move is %s: %v", end.State, end.Fault.Err())
				}
				r.check(t, store, engine, load.end())
				testkit.Must(t, r.leased(t.Context(), store, func(db *tenantdb.DB) error {
					there, err := side{db, source}.tables(t.Context())
					if there[controlTable] || there[journalTable] {
						t.Error("the source has tables of the move after its end")
					}
					return err
				}))
				if to.Engine != credential.SQLite { // whose file is gone
					in, err := tenantdbtest.Open(t, to).Inspect(t.Context())
					testkit.Must(t, err)
					if len(in.Tables) > 0 {
						t.Errorf("the target has the tables %v", in.Tables)
					}
				}
			})
		}
	})
}
