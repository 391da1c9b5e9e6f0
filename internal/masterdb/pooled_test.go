package masterdb_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// pooledMaster is an empty database with a role of its own at a server and at a pooler in
// transaction mode before it.
type pooledMaster struct {
	name           string
	pooler, server string // URLs
	admin          *pgx.Conn
}

// newPooledMaster creates a database and a role with the settings that Stoa needs.
func newPooledMaster(t *testing.T) pooledMaster {
	t.Helper()
	name, password := "stoa_m_"+strings.ToLower(rand.Text()[:14]), rand.Text()
	m := pooledMaster{name: name, admin: connect(t, poolerURL(t, masterdbtest.PostgresEnv, "postgres"))}
	m.exec(t, `CREATE ROLE %s LOGIN PASSWORD '%s'`, name, password)
	m.exec(t, `CREATE DATABASE %s OWNER %[1]s`, name)
	m.exec(t, `ALTER ROLE %s SET synchronous_commit = on`, name) // the test server's default is off
	t.Cleanup(func() {
		m.exec(t, `DROP DATABASE %s WITH (FORCE)`, name)
		m.exec(t, `DROP ROLE %s`, name)
	})
	for env, at := range map[string]*string{transactionMode: &m.pooler, masterdbtest.PostgresEnv: &m.server} {
		u, err := url.Parse(poolerURL(t, env, name))
		testkit.Must(t, err)
		u.User = url.UserPassword(name, password)
		*at = u.String()
	}
	return m
}

func (m pooledMaster) exec(t *testing.T, format string, args ...any) {
	t.Helper()
	_, err := m.admin.Exec(context.WithoutCancel(t.Context()), fmt.Sprintf(format, args...))
	testkit.Must(t, err)
}

// refused checks that the master is not opened, and that the error says why.
func (m pooledMaster) refused(t *testing.T, url, sessionURL, want string) {
	t.Helper()
	db, err := masterdb.OpenPooled(t.Context(), url, sessionURL)
	if err == nil {
		db.Close()
	}
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestPooledMasterWithSessions uses a master through a pooler in transaction mode. More calls than
// it has sessions read and write at once, also while a migration changes the tables that they
// know, and notifications arrive.
func TestPooledMasterWithSessions(t *testing.T) {
	t.Parallel()
	m := newPooledMaster(t)
	db, err := masterdb.OpenPooled(t.Context(), m.pooler+"&pool_max_conns=40", m.server)
	testkit.Must(t, err)
	defer db.Close()
	if n, err := db.Migrate(t.Context()); err != nil || n == 0 {
		t.Fatalf("%d migrations, %v", n, err)
	}
	testkit.Must(t, db.CheckListen(t.Context()))
	_, err = db.Sessions().Exec(t.Context(), `CREATE TABLE things (id integer PRIMARY KEY, text text NOT NULL)`)
	testkit.Must(t, err)

	const calls, each = 60, 20
	words := "back\\slash 'quote' \r\n \U0001f980"
	var running sync.WaitGroup
	for call := range calls {
		running.Go(func() {
			for i := range each {
				id := int64(call*each + i)
				err := db.Tx(t.Context(), func(tx *masterdb.Tx) error {
					if _, err := tx.Exec(t.Context(), `INSERT INTO things (id, text) VALUES ($1, $2)`, id, words); err != nil {
						return err
					}
					_, err := tx.Exec(t.Context(), `UPDATE things SET text = text || $2 WHERE id = $1`, id, "!")
					return err
				})
				var text string
				if err == nil {
					err = db.Get(t.Context(), &text, `SELECT text FROM things WHERE id = $1`, id)
				}
				if err != nil || text != words+"!" {
					t.Errorf("%d: %q, %v", id, text, err)
				}
			}
		})
	}
	// What is known of the types of a statement is no longer so.
	for _, change := range []string{`id TYPE bigint`, `text TYPE varchar(100)`, `id TYPE numeric`, `text TYPE text`, `id TYPE bigint`} {
		_, err := db.Sessions().Exec(t.Context(), `ALTER TABLE things ALTER COLUMN `+change)
		testkit.Must(t, err)
	}
	running.Wait()
	var rows int
	testkit.Must(t, db.Get(t.Context(), &rows, `SELECT count(*) FROM things`))
	if rows != calls*each {
		t.Errorf("%d rows, want %d", rows, calls*each)
	}
	var settings struct{ Zone, Commits, Isolation string }
	testkit.Must(t, db.Get(t.Context(), &settings, `SELECT current_setting('TimeZone') AS zone, current_setting('synchronous_commit') AS commits, current_setting('transaction_isolation') AS isolation`))
	if settings.Zone != "UTC" || settings.Commits != "on" || settings.Isolation != "read committed" {
		t.Errorf("settings %+v", settings)
	}
}

// TestPooledMasterIsRefused checks that a pooled master is not opened whose sessions would store
// or read something else, or somewhere else.
func TestPooledMasterIsRefused(t *testing.T) {
	t.Parallel()
	m := newPooledMaster(t)
	m.refused(t, m.pooler, "", "for sessions beside it")
	m.refused(t, m.pooler, m.pooler, "swapped")
	m.refused(t, m.pooler, "sqlite:master.db", "must be postgres://")
	m.refused(t, "sqlite:master.db", m.server, "must be postgres://")
	m.refused(t, m.pooler+"&default_transaction_isolation=serializable", m.server, `default_transaction_isolation is "read committed"`)
	other := newPooledMaster(t)
	m.refused(t, m.pooler, other.server, "different databases")
	otherRole, err := url.Parse(other.server)
	testkit.Must(t, err)
	otherRole.Path = "/" + m.name
	m.refused(t, m.pooler, otherRole.String(), "the role")
	statements := poolerURL(t, transactionMode, "stoa_statement")
	m.refused(t, statements, m.server, "statement mode")

	db, err := masterdb.OpenPooled(t.Context(), m.pooler, m.server)
	testkit.Must(t, err)
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	db.Close()
	m.exec(t, `ALTER ROLE %s SET search_path = pg_catalog`, m.name)
	m.newSessions(t)
	m.refused(t, m.pooler, m.server, `the tables are in the schema "public"`)
}

// TestSettingsThatChangeLater changes the role's settings while a platform runs. New connections,
// as there are every minute, are refused, and calls fail for that reason.
func TestSettingsThatChangeLater(t *testing.T) {
	t.Parallel()
	m := newPooledMaster(t)
	db, err := masterdb.OpenPooled(t.Context(), m.pooler, m.server)
	testkit.Must(t, err)
	defer db.Close()
	if lifetime := db.Pool().Config().MaxConnLifetime; lifetime != time.Minute {
		t.Errorf("a connection lives for %v", lifetime)
	}
	for setting, want := range map[string]string{`search_path = pg_catalog`: `the schema "public"`, `synchronous_commit = off`: "synchronous_commit is"} {
		m.exec(t, `ALTER ROLE %s SET %s`, m.name, setting)
		m.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s' AND application_name = 'stoa'`, m.name)
		var one int
		var got error
		testkit.Eventually(t, testkit.Timeout, setting+" is found", func() bool {
			db.Pool().Reset()
			got = db.Get(t.Context(), &one, `SELECT 1`)
			return got != nil && strings.Contains(got.Error(), want)
		}, &got)
		if stoa.CodeOf(got) != stoa.PlatformUnavailable {
			t.Errorf("%s: %v", setting, got)
		}
		m.exec(t, `ALTER ROLE %s RESET search_path`, m.name)
		m.exec(t, `ALTER ROLE %s SET synchronous_commit = on`, m.name)
	}
}

// newSessions ends the pooler's sessions, which have the role's former settings.
func (m pooledMaster) newSessions(t *testing.T) {
	t.Helper()
	m.exec(t, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'`, m.name)
	testkit.Eventually(t, testkit.Timeout, "the sessions have ended", func() bool {
		var n int
		testkit.Must(t, m.admin.QueryRow(t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE usename = $1`, m.name).Scan(&n))
		return n == 0
	})
}

// TestRoleSettingsOfPooledMaster checks that each setting of a role that would change what is
// stored is refused by name, unless the pooler sets it for each client.
func TestRoleSettingsOfPooledMaster(t *testing.T) {
	t.Parallel()
	m := newPooledMaster(t)
	tracked := map[string]bool{"DateStyle": true, "TimeZone": true, "client_encoding": true, "standard_conforming_strings": true}
	for _, s := range hostile {
		name, _, _ := strings.Cut(s, " ")
		m.exec(t, `ALTER ROLE %s SET %s`, m.name, s)
		m.newSessions(t)
		switch {
		case name == "search_path": // there is no table yet that it could hide
		case tracked[name]:
			db, err := masterdb.OpenPooled(t.Context(), m.pooler, m.server)
			testkit.Must(t, err)
			db.Close()
		default:
			m.refused(t, m.pooler, m.server, name+" is ")
		}
		m.exec(t, `ALTER ROLE %s RESET ALL`, m.name)
		m.exec(t, `ALTER ROLE %s SET synchronous_commit = on`, m.name)
	}
}
