package masterbackup

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/credits"
	"github.com/stoahq/stoa/internal/credits/creditstest"
	"github.com/stoahq/stoa/internal/credits/verify"
	"github.com/stoahq/stoa/internal/jobs"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/keyrotation"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// emptyURL returns the URL of a database without a schema; on SQLite there is no file.
func emptyURL(t testing.TB, engine masterdb.Engine) string {
	t.Helper()
	if engine == masterdb.SQLite {
		return "sqlite:" + filepath.Join(t.TempDir(), "new", "master.db")
	}
	u, err := url.Parse(os.Getenv(masterdbtest.PostgresEnv))
	testkit.Must(t, err)
	name := "stoa_restore_" + strings.ToLower(rand.Text()[:16])
	admin := func(statement string) {
		ctx := context.Background() // the clean-up runs after the end of the test's context
		conn, err := pgx.Connect(ctx, os.Getenv(masterdbtest.PostgresEnv))
		if err == nil {
			defer conn.Close(ctx) //nolint:errcheck // nothing is pending
			_, err = conn.Exec(ctx, statement)
		}
		if err != nil {
			t.Error(err)
		}
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	u.Path = "/" + name
	return u.String()
}

func newIdentity(t testing.TB) *age.X25519Identity {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	testkit.Must(t, err)
	return id
}

func exec(t testing.TB, db *masterdb.DB, query string, args ...any) {
	t.Helper()
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	}))
}

// sealed is a column with encrypted values.
var sealed = []keyrotation.Column{{Table: "second_factors", Key: "user_id", Name: "secret", Owner: func(key string) string { return key }}}

// fill writes rows of many kinds, and texts that a format must not confuse.
func fill(t testing.TB, db *masterdb.DB) creditstest.Account {
	t.Helper()
	a := creditstest.New(t, db)
	a.Give(t, 100*credits.Credit)
	_, err := a.Spend(t.Context(), credits.SpendRequest{ServiceKey: "product_translation"})
	testkit.Must(t, err)
	a.Hold(t, credits.SpendRequest{Amount: credits.Credit})
	ring, err := keyring.Parse(keyring.Generate("k7"))
	testkit.Must(t, err)
	for i, text := range []string{`\N`, `\.`, "a\tb\nc\rd\\e", "", "日本 \U0001f600", `'"; DROP TABLE users; --`, "NULL"} {
		user := stoa.NewID[stoa.UserID]()
		exec(t, db, `INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at) VALUES ($1, $2, 'x', $3, $4, $5, $5)`,
			user, fmt.Sprintf("u%d-%s@example.com", i, user), text, strings.Repeat(text, 3), db.Now())
		secret, err := ring.Seal([]byte("secret"), user.String())
		testkit.Must(t, err)
		exec(t, db, `INSERT INTO second_factors (user_id, secret, created_at) VALUES ($1, $2, $3)`, user, secret, db.Now())
		exec(t, db, `INSERT INTO sessions (id, user_id, created_at, last_used_at, expires_at) VALUES ($1, $2, $3, $3, $4)`, stoa.NewID[stoa.SessionID](), user, db.Now(), db.Now().Add(time.Hour))
	}
	for range 3 { // so that damage is found when a restore has begun
		exec(t, db, `INSERT INTO audit_events (id, action, outcome, details, created_at) VALUES ($1, 'x', 'success', $2, $3)`, stoa.NewID[stoa.EventID](), incompressible(100_000), db.Now())
	}
	logChange(t, db)
	logChange(t, db)
	exec(t, db, `DELETE FROM change_log`) // its sequence goes on
	return a
}

func incompressible(bytes int) string {
	b := make([]byte, bytes/2)
	_, _ = rand.Read(b)
	return hex.EncodeToString(b)
}

func logChange(t testing.TB, db *masterdb.DB) {
	t.Helper()
	exec(t, db, `INSERT INTO change_log (origin, topic, payload, at) VALUES ('o', 't', 'p', $1)`, db.Now())
}

// backup writes an archive of the database.
func backup(t testing.TB, db *masterdb.DB, to ...age.Recipient) ([]byte, Result) {
	t.Helper()
	var b bytes.Buffer
	result, err := Write(t.Context(), db, &b, WriteOptions{Sealed: sealed}, to...)
	testkit.Must(t, err)
	return b.Bytes(), result
}

// dump returns all rows of a master as texts, by table.
func dump(t testing.TB, db *masterdb.DB) map[string][]string {
	t.Helper()
	query := `SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() ORDER BY ordinal_position`
	if db.Engine == masterdb.SQLite {
		query = `SELECT m.name AS table_name, c.name AS column_name FROM sqlite_master m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' ORDER BY c.cid`
	}
	var columns []struct{ TableName, ColumnName string }
	testkit.Must(t, db.Select(t.Context(), &columns, query))
	tables := map[string][]string{}
	for _, c := range columns {
		tables[c.TableName] = append(tables[c.TableName], fmt.Sprintf(`coalesce('=' || CAST(%q AS text), 'NULL')`, c.ColumnName))
	}
	all := map[string][]string{}
	for table, parts := range tables {
		var rows []string
		testkit.Must(t, db.Select(t.Context(), &rows, fmt.Sprintf(`SELECT %s AS r FROM %q`, strings.Join(parts, " || '|' || "), table)))
		slices.Sort(rows)
		all[table] = rows
	}
	if len(all) < 50 || len(all["users"]) == 0 {
		t.Fatalf("%d tables, %d users", len(all), len(all["users"]))
	}
	return all
}

// wantMaster checks that the restored database is complete, has the rules of a new one, and
// keeps its ledger.
func wantMaster(t testing.TB, db *masterdb.DB) {
	t.Helper()
	schema, err := db.Schema(t.Context())
	testkit.Must(t, err)
	testkit.Must(t, schema.Check())
	report, err := verify.Run(t.Context(), db, nil)
	testkit.Must(t, err)
	if report.Accounts == 0 || report.Inconsistencies != nil {
		t.Errorf("the ledger: %+v", report)
	}
}

func wantCode(t testing.TB, err error, code stoa.Code, words ...string) {
	t.Helper()
	if stoa.CodeOf(err) != code {
		t.Errorf("the error is %v, want %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the error is %v, want that it says %q", err, w)
		}
	}
}

// each runs a test on each engine.
func each(t *testing.T, test func(t *testing.T, engine masterdb.Engine)) {
	t.Helper()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			test(t, engine)
		})
	}
}

// structure describes tables, indexes, constraints, triggers and functions.
func structure(t testing.TB, db *masterdb.DB) (list []string) {
	t.Helper()
	query := `SELECT type || ' ' || name || ' ' || coalesce(sql, '') AS s FROM sqlite_schema`
	if db.Engine == masterdb.Postgres {
		query = `SELECT 'constraint ' || conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) || ' ' || convalidated AS s FROM pg_constraint WHERE connamespace = current_schema()::regnamespace
			UNION ALL SELECT 'trigger ' || tgrelid::regclass || ' ' || tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal
			UNION ALL SELECT 'index ' || indexdef FROM pg_indexes WHERE schemaname = current_schema()
			UNION ALL SELECT 'function ' || oid::regprocedure FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
			UNION ALL SELECT 'column ' || attrelid::regclass || ' ' || attname || ' ' || attnotnull FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
				WHERE c.relnamespace = current_schema()::regnamespace AND attnum > 0 AND c.relkind = 'r'`
	}
	testkit.Must(t, db.Select(t.Context(), &list, query))
	slices.Sort(list)
	if len(list) < 150 {
		t.Fatalf("only %d objects", len(list))
	}
	return list
}

func recipients(id *age.X25519Identity) []age.Recipient { return []age.Recipient{id.Recipient()} }

func migrateQueue(ctx context.Context, db *masterdb.DB) error {
	return jobs.MigrateTo(ctx, db, jobs.LatestVersion())
}
