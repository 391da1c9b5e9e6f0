package moves

import (
	"net/url"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/supabase/link"
	"github.com/stoahq/stoa/internal/supabase/supabasetest"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/testkit"
)

// account is a replica with a store whose owner has connected a Supabase account.
type account struct {
	*replica
	sb    *supabasetest.Server
	store stoa.StoreID
}

func eachAccount(t *testing.T, test func(t *testing.T, a account)) {
	t.Helper()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		sb := supabasetest.New(t, supabasetest.Options{})
		a := account{replica: newReplicaAt(t, db, sb), sb: sb}
		a.store = a.connected(t, credential.SQLite)
		consent, err := a.cloud.Authorize(t.Context(), a.owner, a.store)
		testkit.Must(t, err)
		back, err := url.Parse(sb.Approve(t, consent.URL))
		testkit.Must(t, err)
		testkit.Must(t, a.cloud.Finish(t.Context(), link.Return{
			State: keyring.NewSecret(back.Query().Get("state")), Code: keyring.NewSecret(back.Query().Get("code")), Browser: consent.Browser,
		}))
		test(t, a)
	})
}

// project adds a project to an organisation, the connected one if org is "".
func (a account) project(t *testing.T, org string) supabasetest.Project {
	t.Helper()
	if org == "" {
		org = a.sb.Organization
	}
	p, err := a.sb.AddProject(t.Context(), org, "Shop")
	testkit.Must(t, err)
	return p
}

// moved starts a move to a project and waits until it is settled.
func (a account) moved(t *testing.T, ref string) Move {
	t.Helper()
	m, err := a.Start(t.Context(), a.owner, a.store, Target{Project: ref})
	testkit.Must(t, err)
	return a.await(t, m, Move.Settled)
}

// ended checks that a move has failed with a code, soon, and has left nothing in the source.
func (a account) ended(t *testing.T, m Move, code stoa.Code) {
	t.Helper()
	if m.State != Failed || m.Fault == nil || m.Fault.Code != code {
		t.Errorf("the move is %s: %v, want %s", m.State, m.Fault, code)
	}
	if m.Executions > undoTries/2 {
		t.Errorf("%d executions of its last step", m.Executions)
	}
	a.check(t, a.store, credential.SQLite, nil)
	testkit.Must(t, a.leased(t.Context(), a.store, func(db *tenantdb.DB) error {
		there, err := side{db, source}.tables(t.Context())
		if there[controlTable] || there[journalTable] {
			t.Error("the source has tables of the move after its end")
		}
		return err
	}))
}

// TestMoveToProject moves a store into a project of its owner's account under a load of
// writers, back, and there again. The stand-in's projects share a server, and so the store's
// role: a move from one of them to another cannot be tried.
func TestMoveToProject(t *testing.T) {
	t.Parallel()
	eachAccount(t, func(t *testing.T, a account) {
		p := a.project(t, "")
		load := a.traffic(t, a.store)
		in := func(ref string) {
			t.Helper()
			c, err := a.cloud.Connection(t.Context(), a.owner, a.store)
			testkit.Must(t, err)
			if c.ProjectRef != ref {
				t.Errorf("the store is in the project %q, want %q", c.ProjectRef, ref)
			}
		}
		m := a.moved(t, p.Ref)
		if m.State != Kept || m.Target.Kind != credential.KindSupabase || m.Target.Host == "" {
			t.Fatalf("the move is %s to %s: %v", m.State, m.Target, m.Fault.Err())
		}
		in(p.Ref)
		_, err := a.Rollback(t.Context(), a.owner, a.store, m.ID)
		testkit.Must(t, err)
		a.await(t, m, inState(RolledBack, Succeeded))
		in("")

		// Nothing but the role is left in the project: the store can go there again.
		m = a.moved(t, p.Ref)
		if m.State != Kept {
			t.Fatalf("the second move is %s: %v", m.State, m.Fault.Err())
		}
		_, err = a.Finish(t.Context(), a.owner, a.store, m.ID)
		testkit.Must(t, err)
		a.await(t, m, Move.Done)
		a.check(t, a.store, credential.PostgreSQL, load.end())

		// To prepare the project that it is in would change the password in use.
		again := []Target{{Project: p.Ref}}
		for _, mode := range []credential.Pooler{credential.TransactionPooler, credential.SessionPooler} {
			pasted, err := a.tenants.Parse(credential.Supabase, keyring.NewSecret(a.sb.ConnectionString(p.Ref, "postgres", p.Password, mode)), a.sb.Rules().Roots)
			testkit.Must(t, err)
			again = append(again, Target{Credentials: pasted.Credentials})
		}
		for _, to := range again {
			if _, err := a.Start(t.Context(), a.owner, a.store, to); stoa.CodeOf(err) != stoa.MoveRefused {
				t.Errorf("to the project that it has: %v", err)
			}
		}
		// Nor is it prepared under an address that does not show which project it is.
		hidden, err := a.tenants.Parse(credential.PostgreSQL, keyring.NewSecret(a.sb.DatabaseURL(p.Ref)), "")
		testkit.Must(t, err)
		m, err = a.Start(t.Context(), a.owner, a.store, Target{Credentials: hidden.Credentials})
		testkit.Must(t, err)
		if m = a.await(t, m, Move.Done); m.State != Failed || m.Fault == nil || m.Fault.Code != stoa.DatabaseNotEmpty {
			t.Errorf("to the project under another address: %s, %v", m.State, m.Fault)
		}
		c, err := a.tenants.Load(t.Context(), a.db, a.store)
		testkit.Must(t, err)
		db, err := a.tenants.OpenUnleased(c)
		testkit.Must(t, err)
		defer db.Close() //nolint:errcheck // no statement is pending
		testkit.Must(t, db.Ping(t.Context()))
	})
}

// TestMoveToProjectRefused names projects and makes calls that do not lead to a move.
func TestMoveToProjectRefused(t *testing.T) {
	t.Parallel()
	eachAccount(t, func(t *testing.T, a account) {
		theirs, paused, mine := a.project(t, a.sb.AddOrganization("Somebody else")), a.project(t, ""), a.project(t, "")
		a.sb.SetStatus(paused.Ref, "INACTIVE")
		start := func(p authz.Principal, store stoa.StoreID, ref string, want stoa.Code) {
			t.Helper()
			if _, err := a.Start(t.Context(), p, store, Target{Project: ref}); stoa.CodeOf(err) != want {
				t.Errorf("to %q: %v, want %s", ref, err, want)
			}
		}
		start(a.owner, a.store, theirs.Ref, stoa.InvalidRequest)
		start(a.owner, a.store, "no ref", stoa.InvalidRequest)
		start(a.owner, a.store, paused.Ref, stoa.SupabaseProjectPaused)
		mallory := authz.Principal{UserID: stoa.NewID[stoa.UserID](), RecentlyAuthenticated: true}
		start(mallory, a.store, mine.Ref, stoa.StoreNotFound)
		start(a.owner, a.connected(t, credential.SQLite), mine.Ref, stoa.SupabaseNotConnected) // it has no account
		a.check(t, a.store, credential.SQLite, nil)
	})
}

// TestMoveToProjectInterrupted changes the account and the project after a move has begun,
// and interrupts the work on the project. The store stays where it is, or the move goes on.
func TestMoveToProjectInterrupted(t *testing.T) {
	t.Parallel()
	eachAccount(t, func(t *testing.T, a account) {
		var at func()
		a.interrupt = func(step string) error {
			if step == stepPrepare && at != nil {
				do := at
				at = nil
				do()
			}
			return nil
		}
		p := a.project(t, "")
		at = func() { a.sb.SetStatus(p.Ref, "INACTIVE") }
		a.ended(t, a.moved(t, p.Ref), stoa.SupabaseProjectPaused)
		a.sb.SetStatus(p.Ref, "ACTIVE_HEALTHY")

		const query = "POST /v1/projects/{ref}/database/query"
		at = func() { a.sb.Break(query, supabasetest.Cut, supabasetest.CutAfter) }
		m := a.moved(t, p.Ref)
		if m.State != Kept {
			t.Fatalf("with answers lost, the move is %s: %v", m.State, m.Fault.Err())
		}
		_, err := a.Rollback(t.Context(), a.owner, a.store, m.ID)
		testkit.Must(t, err)
		a.await(t, m, Move.Done)

		at = func() {
			a.sb.RevokeAll()
			a.exec(t, `UPDATE supabase_connections SET expires_at = $2 WHERE store_id = $1`, a.store, time.Now().UTC().Add(-time.Second))
		}
		a.ended(t, a.moved(t, p.Ref), stoa.SupabaseReconnect)
	})
}

func (r *replica) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, r.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}
