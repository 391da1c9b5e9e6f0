package masterdb_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// hostile are settings of a role that, if they took effect, would change what the master
// stores, or prevent storing it.
var hostile = []string{
	`DateStyle = 'German'`, `TimeZone = 'Asia/Kathmandu'`, `client_encoding = 'LATIN1'`, `standard_conforming_strings = off`, `IntervalStyle = 'sql_standard'`,
	`bytea_output = 'escape'`, `extra_float_digits = -15`, `array_nulls = off`, `backslash_quote = off`, `quote_all_identifiers = on`, `transform_null_equals = on`,
	`default_transaction_isolation = 'serializable'`, `default_transaction_read_only = on`, `default_transaction_deferrable = on`,
	`statement_timeout = '500ms'`, `lock_timeout = '1ms'`, `idle_in_transaction_session_timeout = '1ms'`, `row_security = off`, `synchronous_commit = off`,
	`check_function_bodies = off`, `exit_on_error = on`, `search_path = nowhere, public, pg_catalog`,
}

// TestRoleSettingsOfMaster checks that a role's settings do not change what the master
// database stores.
func TestRoleSettingsOfMaster(t *testing.T) {
	for name, server := range map[string]string{"PostgreSQL": os.Getenv(masterdbtest.PostgresEnv), "PostgreSQL 18": os.Getenv("STOA_TEST_POSTGRES18_URL")} {
		if server == "" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin, err := pgx.Connect(t.Context(), server)
			testkit.Must(t, err)
			t.Cleanup(func() { _ = admin.Close(t.Context()) })
			exec := func(format string, args ...any) {
				t.Helper()
				_, err := admin.Exec(t.Context(), fmt.Sprintf(format, args...))
				testkit.Must(t, err)
			}
			role := "stoa_m_" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "_")[len("TestRoleSettingsOfMaster/"):]) + fmt.Sprint(time.Now().UnixNano()%1e9)
			exec(`CREATE ROLE %q LOGIN PASSWORD 'x'`, role)
			exec(`CREATE DATABASE %q OWNER %[1]q`, role)
			defer func() {
				exec(`DROP DATABASE %q WITH (FORCE)`, role)
				exec(`DROP ROLE %q`, role)
			}()
			for _, s := range hostile {
				exec(`ALTER ROLE %q SET %s`, role, s)
			}
			u, err := url.Parse(server)
			testkit.Must(t, err)
			u.User, u.Path = url.UserPassword(role, "x"), "/"+role
			checkMaster(t, u.String(), role)
		})
	}
}

// checkMaster migrates, moves the search path away from the tables, and reads the stored
// rows.
func checkMaster(t *testing.T, at, role string) {
	t.Helper()
	db, err := masterdb.Open(t.Context(), at)
	testkit.Must(t, err)
	_, err = db.Migrate(t.Context())
	testkit.Must(t, err)
	_, err = db.Pool().Exec(t.Context(), `CREATE SCHEMA `+pgx.Identifier{role}.Sanitize())
	testkit.Must(t, err)
	_, err = db.Pool().Exec(t.Context(), `ALTER ROLE CURRENT_USER SET search_path = "$user", public`)
	testkit.Must(t, err)
	db.Close()
	if db, err = masterdb.Open(t.Context(), at); err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if n, err := db.Migrate(t.Context()); n != 0 || err != nil {
		t.Errorf("%d migrations were applied again: %v", n, err)
	}
	words, at2 := "back\\slash 'quote' \r\n \U0001f980 \u00e9", time.Date(1883, 11, 18, 17, 0, 0, 1000, time.UTC)
	id := "018f0000-0000-7000-8000-000000000001"
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, $2, 'x', $3, 'y', $4, $4)`, id, "a@example.com", words, at2)
		return err
	}))
	var found struct {
		FirstName, Isolation, Schema, Commits string
		CreatedAt                             time.Time
	}
	testkit.Must(t, db.Get(t.Context(), &found, `SELECT first_name, created_at, current_setting('transaction_isolation') AS isolation, current_schema()::text AS schema,
		current_setting('synchronous_commit') AS commits FROM users WHERE id = $1`, id))
	if found.FirstName != words || !found.CreatedAt.Equal(at2) || found.Isolation != "read committed" || found.Schema != "public" || found.Commits != "on" {
		t.Errorf("got %+v", found)
	}
	sessions := map[int]bool{}
	err = db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		var pid int
		testkit.Must(t, tx.Get(t.Context(), &pid, `SELECT pg_backend_pid()`))
		sessions[pid] = true
		_, err := tx.Exec(t.Context(), `SET TRANSACTION READ ONLY`)
		testkit.Must(t, err)
		_, err = tx.Exec(t.Context(), `DELETE FROM users`)
		return err
	})
	if err == nil || len(sessions) != 10 {
		t.Errorf("a server that takes no changes was tried in %d sessions, want a new one each time: %v", len(sessions), err)
	}
}

// TestRefusedSettingsOfMaster checks that Open refuses settings that no session can change,
// names them in the error, and stores nothing.
func TestRefusedSettingsOfMaster(t *testing.T) {
	t.Parallel()
	server := os.Getenv(masterdbtest.PostgresEnv)
	if server == "" {
		t.Skip("needs PostgreSQL")
	}
	admin, err := pgx.Connect(t.Context(), server)
	testkit.Must(t, err)
	t.Cleanup(func() { _ = admin.Close(context.WithoutCancel(t.Context())) })
	for want, settings := range map[string]struct{ database, role string }{
		"session_replication_role": {role: `SET session_replication_role = replica`},
		"LATIN1":                   {database: `ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`},
	} {
		name, password := "stoa_m_"+strings.ToLower(rand.Text()[:14]), rand.Text()
		for _, statement := range []string{
			`CREATE ROLE ` + name + ` LOGIN PASSWORD '` + password + `'`, `CREATE DATABASE ` + name + ` OWNER ` + name + ` ` + settings.database,
			`ALTER ROLE ` + name + ` ` + cmp.Or(settings.role, `RESET ALL`),
		} {
			_, err := admin.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
		u, err := url.Parse(server)
		testkit.Must(t, err)
		u.User, u.Path = url.UserPassword(name, password), "/"+name
		db, err := masterdb.Open(t.Context(), u.String())
		if err == nil {
			db.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), password) {
			t.Errorf("%v, want %s", err, want)
		}
		for _, statement := range []string{`DROP DATABASE ` + name + ` WITH (FORCE)`, `DROP ROLE ` + name} {
			_, err := admin.Exec(t.Context(), statement)
			testkit.Must(t, err)
		}
	}
}
