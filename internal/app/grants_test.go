package app_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/config"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// newRole creates a role without privileges on the test server. Create the database
// after it: the database must be dropped before the role.
func newRole(t *testing.T) *url.Userinfo {
	t.Helper()
	masterdbtest.NeedsPostgres(t)
	conn, err := pgx.Connect(t.Context(), os.Getenv(masterdbtest.PostgresEnv))
	if err != nil {
		t.Fatal(err)
	}
	name, password := "stoa_role_"+strings.ToLower(rand.Text()[:12]), rand.Text()
	if _, err := conn.Exec(t.Context(), `CREATE ROLE `+name+` LOGIN PASSWORD '`+password+`'`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := conn.Exec(context.Background(), `DROP ROLE `+name); err != nil {
			t.Error(err)
		}
		_ = conn.Close(context.Background())
	})
	return url.UserPassword(name, password)
}

// restricted is a PostgreSQL master database whose tables one role owns. The server
// uses another role.
type restricted struct {
	t      *testing.T
	owner  *config.Config
	server *config.Config
	role   string
}

func newRestricted(t *testing.T) restricted {
	t.Helper()
	role := newRole(t)
	owner := testConfig(t, masterdb.Postgres)
	server := *owner
	server.MasterDBURL = keyring.NewSecret(withURL(t, owner.MasterDBURL.Reveal(), func(u *url.URL) { u.User = role }))
	return restricted{t, owner, &server, role.Username()}
}

// migrate runs 'stoa migrate' as the owner.
func (r restricted) migrate(args ...string) (status int, out, errOut string) {
	r.t.Helper()
	return command(r.t, append([]string{"migrate", "--data-dir=" + r.owner.DataDir, "--master-db-url=" + r.owner.MasterDBURL.Reveal()}, args...)...)
}

func (r restricted) grant() {
	r.t.Helper()
	if status, out, errOut := r.migrate("--grant-to=" + r.role); status != 0 || !strings.Contains(out, r.role+" may serve it") {
		r.t.Fatalf("status %d: %s%s", status, out, errOut)
	}
}

func (r restricted) exec(cfg *config.Config, query string) error {
	r.t.Helper()
	conn, err := pgx.Connect(r.t.Context(), cfg.MasterDBURL.Reveal())
	if err != nil {
		r.t.Fatal(err)
	}
	defer conn.Close(r.t.Context()) //nolint:errcheck // no query is running
	_, err = conn.Exec(r.t.Context(), query)
	return err
}

// refuses checks that a server with the role does not start and reports what to do.
func (r restricted) refuses(want string) {
	r.t.Helper()
	s, err := launch(r.t.Context(), r.server, slog.New(slog.DiscardHandler))
	if err == nil {
		_ = s.Stop()
		r.t.Fatal("the server starts")
	}
	for _, want := range []string{want, "stoa migrate --grant-to"} {
		if !strings.Contains(err.Error(), want) {
			r.t.Errorf("no %q in: %v", want, err)
		}
	}
}

// TestGrantTo checks that a server whose role owns nothing can do all its work, and
// cannot change recorded history.
func TestGrantTo(t *testing.T) {
	t.Parallel()
	r := newRestricted(t)
	r.refuses("may not")
	var again sync.WaitGroup
	for range 4 { // as for every release, and concurrently from several machines
		again.Go(r.grant)
	}
	again.Wait()
	var log bytes.Buffer
	s, err := launch(t.Context(), r.server, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	walkEverything(t, s)
	for _, table := range []string{"credit_transactions", "credit_lot_uses", "billing_transactions", "audit_events"} {
		for _, query := range []string{`UPDATE ` + table + ` SET store_id = store_id`, `DELETE FROM ` + table, `TRUNCATE ` + table + ` CASCADE`} {
			if query == `DELETE FROM audit_events` {
				continue // its trigger refuses rows that have not expired: see TestRestrictedRoleDeletesOnlyExpired
			}
			r.forbidden(query)
		}
	}
	r.forbidden(`INSERT INTO goose_db_version (version_id, is_applied) VALUES (99, true)`)
	r.forbidden(`UPDATE river_migration SET version = 1`)
	r.forbidden(`ALTER TABLE credit_transactions DISABLE TRIGGER ALL`)
	r.forbidden(`DROP TABLE credit_transactions CASCADE`)
	r.forbidden(`SET session_replication_role = replica`)
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if strings.Contains(log.String(), "level=ERROR") || strings.Contains(log.String(), "42501") {
		t.Errorf("the server lacks something: %s", log.String())
	}
}

func (r restricted) forbidden(query string) {
	r.t.Helper()
	var pgErr *pgconn.PgError
	if err := r.exec(r.server, query); !errors.As(err, &pgErr) || pgErr.Code != "42501" {
		r.t.Errorf("%s: %v, want that permission is denied", query, err)
	}
}

// walkEverything makes the server write to every table that it writes.
func walkEverything(t *testing.T, s *server) {
	t.Helper()
	c, id, host := connected(t, s, "owner@example.com")
	c.buy(id, 100)
	c.call("POST", "/api/credits/spend", object{"amount": "1"}, "Idempotency-Key", "k").want(http.StatusOK)
	c.call("POST", "/api/credits/spend", object{"serviceKey": "product_import", "quantity": 2}).want(http.StatusOK)
	c.call("PATCH", "/api/stores/"+id, object{"slug": "renamed", "description": "Oil"}).want(http.StatusOK)
	c.call("GET", "/api/storefront/store", nil, "Host", "renamed.localhost").want(http.StatusOK)
	c.call("GET", "/api/storefront/store", nil, "Host", host).problem(http.StatusNotFound, "store_not_found")
	c.call("POST", "/api/stores/"+id+"/hostnames", object{"hostname": "shop.example.com"}).want(http.StatusCreated)
	c.call("DELETE", "/api/stores/"+id+"/hostnames/shop.example.com", nil).want(http.StatusNoContent)
	c.call("POST", "/api/stores/"+id+"/suspend", nil).want(http.StatusOK)
	c.call("DELETE", "/api/stores/"+id, nil).want(http.StatusOK)
	c.call("POST", "/api/stores/"+id+"/restore", nil).want(http.StatusOK)

	p, err := s.Accounts.Authenticate(t.Context(), c.token)
	if err != nil {
		t.Fatal(err)
	}
	store, err := stoa.ParseID[stoa.StoreID](id)
	if err != nil {
		t.Fatal(err)
	}
	held, err := s.Ledger.Hold(t.Context(), p, store, credits.HoldRequest{SpendRequest: credits.SpendRequest{Amount: credits.Credit}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ledger.Capture(t.Context(), p, store, held.Hold.ID, credits.CaptureRequest{}); err != nil {
		t.Fatal(err)
	}
	k := counter{t, s.Master, s.Ledger, []string{"--data-dir=" + s.Cfg.DataDir, "--master-db-url=" + s.Cfg.MasterDBURL.Reveal()}}
	k.grant(id, "1", "--reason=x", "--expires=1h", "--priority=-1") // and a credit lot, which the next spend uses
	c.call("POST", "/api/credits/spend", object{"amount": "0.5"}).want(http.StatusOK)
	if status, out, errOut := k.stoa("credits", "verify"); status != 0 {
		t.Errorf("status %d: %s%s", status, out, errOut)
	}
	testkit.Eventually(t, testkit.Timeout, "the sweep has run", func() bool { return k.sweeps() > 0 })
	c.call("POST", "/api/auth/logout", nil).want(http.StatusNoContent)
}

// TestGrantToLater checks that the role gets the privileges for a later release's
// tables with the next grant. Until then a server reports the missing privileges and
// does not start.
func TestGrantToLater(t *testing.T) {
	t.Parallel()
	r := newRestricted(t)
	r.grant()
	must := func(query string) {
		t.Helper()
		if err := r.exec(r.owner, query); err != nil {
			t.Fatal(err)
		}
	}
	must(`CREATE TABLE later (id bigint GENERATED BY DEFAULT AS IDENTITY, other bigserial)`)
	must(`CREATE TRIGGER later BEFORE UPDATE OR DELETE ON later FOR EACH ROW EXECUTE FUNCTION refuse_change()`)
	r.refuses("may not read later")
	must(`CREATE TABLE provisioning_steps (id uuid)`) // as before the last migration
	must(`DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	r.refuses("has to be migrated")
	must(`INSERT INTO goose_db_version (version_id, is_applied) SELECT max(version_id) + 1, true FROM goose_db_version`)
	r.grant()
	// The role gets no privilege on the objects of an extension.
	must(`CREATE EXTENSION pg_buffercache`)
	must(`CREATE TABLE spatial_ref_sys (srid integer)`)
	must(`ALTER EXTENSION pg_buffercache ADD TABLE spatial_ref_sys`)
	startServer(t, r.server)
	if err := r.exec(r.server, `INSERT INTO later DEFAULT VALUES`); err != nil {
		t.Error(err)
	}
	r.forbidden(`DELETE FROM later`)
}

// TestGrantToRefused checks that only a role that privileges can restrict is accepted.
func TestGrantToRefused(t *testing.T) {
	t.Parallel()
	if status, _, errOut := command(t, "migrate", "--data-dir="+t.TempDir(), "--grant-to=someone"); status != 1 || !strings.Contains(errOut, "for PostgreSQL") {
		t.Errorf("SQLite: status %d: %s", status, errOut)
	}
	r := newRestricted(t)
	owner, err := url.Parse(r.owner.MasterDBURL.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	member := newRole(t).Username()
	if err := r.exec(r.owner, `GRANT `+owner.User.Username()+` TO `+member); err != nil {
		t.Fatal(err)
	}
	for role, want := range map[string]string{
		"":                             `there is no role ""`,
		"nobody-here":                  `CREATE ROLE "nobody-here" LOGIN`,
		`x"; DROP TABLE users; --`:     "there is no role",
		"public":                       "there is no role",
		strings.Repeat("x", 1<<16):     "there is no role",
		owner.User.Username():          "is the role that migrates",
		member:                         "a member of the role that owns the tables",
		strings.ToUpper(r.role) + "\n": "there is no role",
	} {
		status, out, errOut := r.migrate("--grant-to=" + role)
		if status != 1 || out != "" || !strings.Contains(errOut, want) || len(errOut) > 1000 {
			t.Errorf("%.100q: status %d, want %q: %s%.1000s", role, status, want, out, errOut)
		}
	}
	r.refuses("may not") // nothing was granted
}
