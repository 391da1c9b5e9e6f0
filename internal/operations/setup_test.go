package operations_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/fleet"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/operations"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/testkit"
)

// fixture is a platform with one store and an operator.
type fixture struct {
	*operations.Service
	db       *masterdb.DB
	queue    *jobs.Queue
	account  creditstest.Account
	operator authz.Principal
}

func setup(t *testing.T, db *masterdb.DB, opts fleet.Options) fixture {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	queue, err := jobs.New(db, log, jobs.Options{})
	testkit.Must(t, err)
	ring, err := keyring.Parse(keyring.Generate("test"))
	testkit.Must(t, err)
	tenants := tenantdb.NewManager(db, ring, tenantdb.Options{DataDir: t.TempDir()})
	t.Cleanup(func() { testkit.Must(t, tenants.Close(context.Background())) })
	b := fixture{db: db, queue: queue, account: creditstest.New(t, db), operator: authz.Principal{
		UserID: stoa.NewID[stoa.UserID](), Origin: audit.Origin{RequestID: "request"},
	}}
	f := fleet.New(db, tenants, log, opts)
	b.Service = operations.New(db, queue, b.account.Ledger, f)
	jobs.Handle(queue, time.Minute, b.RunVerification)
	jobs.Handle(queue, time.Minute, f.Run)
	b.exec(t, `INSERT INTO users (id, email, password_hash, first_name, last_name, role, created_at, updated_at)
		VALUES ($1, 'operator@example.com', 'x', 'Olga', 'Operator', 'admin', $2, $2)`, b.operator.UserID, time.Now().UTC())
	return b
}

func (b fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// audited counts the entries of an action in the audit log.
func (b fixture) audited(t *testing.T, action string) (n int) {
	t.Helper()
	testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM audit_events WHERE action = $1 AND user_id = $2`, action, b.operator.UserID))
	return n
}

// queued counts the jobs of a kind.
func (b fixture) queued(t *testing.T, kind string) (n int) {
	t.Helper()
	testkit.Must(t, b.db.Get(t.Context(), &n, `SELECT count(*) FROM river_job WHERE kind = $1`, kind))
	return n
}

// enqueue adds a job and returns its id.
func (b fixture) enqueue(t *testing.T, args jobs.Args) (id int64) {
	t.Helper()
	testkit.Must(t, b.db.Tx(t.Context(), func(tx *masterdb.Tx) error { return b.queue.Enqueue(t.Context(), tx, args) }))
	testkit.Must(t, b.db.Get(t.Context(), &id, `SELECT max(id) FROM river_job`))
	return id
}
