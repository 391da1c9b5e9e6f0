package moves

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// moved returns a store that was moved from an embedded database to one of its own.
func (r *replica) moved(t *testing.T) (stoa.StoreID, Move, credential.Credentials) {
	t.Helper()
	store := r.connected(t, credential.SQLite)
	engine := engines()[len(engines())-1]
	to := tenantdbtest.Create(t, engine)
	m, err := r.Start(t.Context(), r.owner, store, Target{Credentials: to})
	testkit.Must(t, err)
	m = r.await(t, m, inState(Kept, Failed, Aborted))
	if m.State != Kept {
		t.Fatalf("the move is %s: %v", m.State, m.Fault.Err())
	}
	return store, m, to
}

// ended checks that nothing is left of a move but the store in its new database.
func (r *replica) ended(t *testing.T, m Move, to credential.Credentials) {
	t.Helper()
	if m = r.await(t, m, Move.Done); m.State != Succeeded {
		t.Errorf("the move is %s: %v", m.State, m.Fault.Err())
	}
	there, err := side{tenantdbtest.Open(t, to), target}.tables(t.Context())
	testkit.Must(t, err)
	if there[controlTable] || there[journalTable] || !there["products"] {
		t.Errorf("the new database has the tables %v", there)
	}
	if r.embedded(t, m.StoreID) {
		t.Error("the old database is still there")
	}
	var sealed string
	testkit.Must(t, r.db.Get(t.Context(), &sealed, `SELECT source_credentials || target_credentials FROM store_moves WHERE id = $1`, m.ID))
	if sealed != "" {
		t.Error("the credentials of a move that has ended are kept")
	}
}

// embedded reports whether a store has an embedded database.
func (r *replica) embedded(t *testing.T, store stoa.StoreID) (found bool) {
	t.Helper()
	name := credential.ManagedSQLite(store).Database
	testkit.Must(t, filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, err error) error {
		found = found || strings.Contains(filepath.Base(path), name)
		return err
	}))
	return found
}

// set changes a row of the master database.
func (r *replica) set(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// again runs the job of a move that waits for its next round.
func (r *replica) again(t *testing.T, m Move) {
	t.Helper()
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return r.queue.Enqueue(t.Context(), tx, Run{MoveID: m.ID}) }))
}

// TestMoveEnds ends the time of a rollback in each way: on request, because it has passed,
// because the store's tables are migrated, and because the store is deleted for good.
func TestMoveEnds(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		jobs.Handle(r.queue, stores.DeleteStoreTimeout, r.registry.FinishDeletion)
		t.Run("on request", func(t *testing.T) {
			store, m, to := r.moved(t)
			if !r.embedded(t, store) {
				t.Fatal("the old database is not there while it is kept")
			}
			if _, err := r.Start(t.Context(), r.owner, store, Target{Managed: credential.SQLite}); stoa.CodeOf(err) != stoa.MoveInProgress || !strings.Contains(err.Error(), "finish") {
				t.Errorf("another move: %v", err)
			}
			_, err := r.Finish(t.Context(), r.owner, store, m.ID)
			testkit.Must(t, err)
			if _, err := r.Rollback(t.Context(), r.owner, store, m.ID); err == nil {
				t.Error("a move that is to be finished was rolled back")
			}
			r.ended(t, m, to)
			if _, err := r.Finish(t.Context(), r.owner, store, m.ID); stoa.CodeOf(err) != stoa.MoveRefused {
				t.Errorf("finished twice: %v", err)
			}
		})
		t.Run("after its time", func(t *testing.T) {
			store, m, to := r.moved(t)
			r.set(t, `UPDATE store_moves SET keep_until = $2 WHERE id = $1`, m.ID, db.Now().Add(-time.Second))
			if _, err := r.Rollback(t.Context(), r.owner, store, m.ID); stoa.CodeOf(err) != stoa.MoveRefused {
				t.Errorf("rolled back too late: %v", err)
			}
			r.again(t, m)
			r.ended(t, m, to)
		})
		t.Run("by a migration", func(t *testing.T) {
			store, m, to := r.moved(t)
			var version int64
			testkit.Must(t, db.Get(t.Context(), &version, `SELECT credential_version FROM store_databases WHERE store_id = $1`, store))
			testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error { return tenantdb.BeginMigration(t.Context(), tx, store, version) }))
			if _, err := r.Rollback(t.Context(), r.owner, store, m.ID); stoa.CodeOf(err) != stoa.MoveRefused {
				t.Errorf("rolled back after a migration: %v", err)
			}
			r.again(t, m)
			r.ended(t, m, to)
		})
		t.Run("by a rollback before a migration", func(t *testing.T) {
			store, m, _ := r.moved(t)
			r.set(t, `UPDATE store_moves SET wish = 'rollback', claimed_by = 'other/1', claimed_until = $2 WHERE id = $1`, m.ID, db.Now().Add(time.Hour))
			err := db.Tx(t.Context(), func(tx *masterdb.Tx) error { return tenantdb.BeginMigration(t.Context(), tx, store, 1) })
			if stoa.CodeOf(err) != stoa.MoveInProgress {
				t.Errorf("a migration during a rollback: %v", err)
			}
		})
		t.Run("by the store's end", func(t *testing.T) {
			store, m, _ := r.moved(t)
			r.registry.KeepDeleted(0)
			_, err := r.registry.Delete(t.Context(), r.owner, store)
			testkit.Must(t, err)
			for deadline := time.Now().Add(time.Minute); ; {
				var status string
				testkit.Must(t, db.Get(t.Context(), &status, `SELECT status FROM stores WHERE id = $1`, store))
				if status == "deleted" {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("the store is %s", status)
				}
				testkit.Must(t, wait(t.Context(), 20*time.Millisecond))
			}
			r.again(t, m)
			if m = r.await(t, m, Move.Done); m.State != Succeeded {
				t.Errorf("the move is %s: %v", m.State, m.Fault.Err())
			}
			if r.embedded(t, store) {
				t.Error("the old database is still there")
			}
		})
	})
}

// TestMoveToSupabase moves a store to a Supabase project through a pooler.
func TestMoveToSupabase(t *testing.T) {
	t.Parallel()
	if os.Getenv(tenantdbtest.PgBouncerEnv) == "" {
		t.Skip("there is no pooler")
	}
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		store := r.connected(t, credential.SQLite)
		load := r.traffic(t, store)
		to := tenantdbtest.Create(t, credential.Supabase)
		m, err := r.Start(t.Context(), r.owner, store, Target{Credentials: to})
		testkit.Must(t, err)
		m = r.await(t, m, inState(Kept, Failed, Aborted))
		if m.State != Kept {
			t.Fatalf("the move is %s: %v", m.State, m.Fault.Err())
		}
		r.check(t, store, credential.PostgreSQL, load.end())
		now, err := r.tenants.Load(t.Context(), db, store)
		testkit.Must(t, err)
		if now.Kind != credential.KindSupabase {
			t.Errorf("the store has a database of the kind %s", now.Kind)
		}
	})
}

// TestTriggersRefused moves a store on servers with a binary log, which let no user without
// SUPER create triggers.
func TestTriggersRefused(t *testing.T) {
	t.Parallel()
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin, create := tenantdbtest.OwnMySQL(t, func(t *testing.T, dir, port string) *exec.Cmd {
				t.Helper()
				cmd := start(t, dir, port)
				cmd.Args = append(cmd.Args, "--log-bin=binlog", "--server-id=1")
				return cmd
			})
			c := create(t)
			tables, err := archive.Tables(t.Context(), tenantdb.LatestVersion())
			testkit.Must(t, err)
			s := side{tenantdbtest.Open(t, c), target}
			err = s.begin(t.Context(), stoa.NewID[stoa.MoveID](), tables)
			if stoa.CodeOf(err) != stoa.MoveRefused || !strings.Contains(err.Error(), "log_bin_trust_function_creators") {
				t.Fatalf("a server with a binary log: %v", err)
			}
			_, err = admin.ExecContext(t.Context(), `SET GLOBAL log_bin_trust_function_creators = 1`)
			testkit.Must(t, err)
			testkit.Must(t, s.begin(t.Context(), stoa.NewID[stoa.MoveID](), tables))
			_, err = admin.ExecContext(t.Context(), `REVOKE TRIGGER ON `+c.Database+`.* FROM `+c.User+`@'%'`)
			testkit.Must(t, err)
			s = side{tenantdbtest.Open(t, c), target}
			if err = s.begin(t.Context(), stoa.NewID[stoa.MoveID](), tables); stoa.CodeOf(err) != stoa.MoveRefused || !strings.Contains(err.Error(), "GRANT TRIGGER") {
				t.Errorf("a user without the right to create triggers: %v", err)
			}
		})
	}
}

// TestMoveNeedsQuota moves a store to a managed database although its creator has as many as
// allowed.
func TestMoveNeedsQuota(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		r.connected(t, credential.SQLite)
		store := r.connected(t, engines()[len(engines())-1])
		r.set(t, `UPDATE users SET quota_managed_databases = 1`)
		if _, err := r.Start(t.Context(), r.owner, store, Target{Managed: credential.SQLite}); stoa.CodeOf(err) != stoa.QuotaExceeded {
			t.Errorf("one managed database too many: %v", err)
		}
		r.set(t, `UPDATE users SET quota_managed_databases = 2`)
		_, err := r.Start(t.Context(), r.owner, store, Target{Managed: credential.SQLite})
		testkit.Must(t, err)
	})
}

// TestMovesWaitForASlot has as many moves at work as a process may have. Another one waits,
// unless writers may wait for it.
func TestMovesWaitForASlot(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		r := newReplica(t, db)
		store := r.connected(t, credential.SQLite)
		for range cap(r.slots) {
			r.slots <- struct{}{}
		}
		m, err := r.Start(t.Context(), r.owner, store, Target{Credentials: tenantdbtest.Create(t, engines()[1])})
		testkit.Must(t, err)
		if err := r.Run(t.Context(), Run{MoveID: m.ID}); !jobs.IsSnoozed(err) {
			t.Errorf("a move without a slot: %v", err)
		}
		if now, err := r.GetByOperator(t.Context(), store, m.ID); err != nil || now.Executions != 0 {
			t.Errorf("the move was executed %d times, %v", now.Executions, err)
		}
		deadline := time.Now().Add(time.Minute)
		for waits := 0; waits == 0 && time.Now().Before(deadline); testkit.Must(t, wait(t.Context(), 10*time.Millisecond)) { // until the job has looked for a slot
			testkit.Must(t, db.Get(t.Context(), &waits, `SELECT count(*) FROM river_job WHERE kind = 'moves.run' AND state IN ('available', 'scheduled') AND scheduled_at > $1`, db.Now()))
		}
		for range 3 { // while it waits, nobody takes it for lost
			r.set(t, `UPDATE store_moves SET claimed_until = $2 WHERE id = $1`, m.ID, db.Now().Add(-time.Second))
			_, err := r.Recovery().Reconcile(t.Context())
			testkit.Must(t, err)
		}
		all, err := jobs.Unfinished[Run](t.Context(), db)
		testkit.Must(t, err)
		if len(all) != 1 {
			t.Errorf("%d jobs for one move", len(all))
		}
		for step := range steps {
			r.set(t, `UPDATE store_moves SET step = $2 WHERE id = $1`, m.ID, step)
			done, err := r.occupySlot(t.Context(), m.ID)
			if (err == nil) != urgent(step) {
				t.Errorf("a slot in the step %s: %v", step, err)
			}
			if err == nil {
				done()
			}
		}
		r.set(t, `UPDATE store_moves SET step = 'prepare' WHERE id = $1`, m.ID)
		for range cap(r.slots) {
			<-r.slots
		}
		if m = r.await(t, m, inState(Kept, Failed, Aborted)); m.State != Kept {
			t.Errorf("the move is %s: %v", m.State, m.Fault.Err())
		}
	})
}
