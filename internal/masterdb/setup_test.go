package masterdb_test

import (
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// emptyURL returns the URL of a database without a schema.
func emptyURL(t *testing.T, engine masterdb.Engine) string {
	t.Helper()
	if engine == masterdb.SQLite {
		return "sqlite:" + filepath.Join(t.TempDir(), "new", "master.db")
	}
	server := os.Getenv(masterdbtest.PostgresEnv)
	cfg, err := pgx.ParseConfig(server)
	if err != nil {
		t.Fatal(err)
	}
	name := "stoa_empty_" + strings.ToLower(rand.Text()[:16])
	admin := func(statement string) {
		ctx := context.Background() // the clean-up runs after the end of the test's context
		conn, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close(ctx) //nolint:errcheck // nothing is pending
		if _, err := conn.Exec(ctx, statement); err != nil {
			t.Error(err)
		}
	}
	admin("CREATE DATABASE " + name)
	t.Cleanup(func() { admin("DROP DATABASE " + name + " WITH (FORCE)") })
	return strings.Replace(server, "/"+cfg.Database+"?", "/"+name+"?", 1)
}

// exec runs one statement in a transaction of its own.
func exec(t *testing.T, db *masterdb.DB, query string, args ...any) error {
	t.Helper()
	return db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), query, args...)
		return err
	})
}

// countPrices returns the number of rows that addPrice and the migrations have written.
func countPrices(t *testing.T, db *masterdb.DB) int {
	t.Helper()
	var n int
	testkit.Must(t, db.Get(t.Context(), &n, `SELECT count(*) FROM service_credit_costs`))
	return n
}

func insertUser(t *testing.T, db *masterdb.DB, email string) (stoa.UserID, error) {
	t.Helper()
	id := stoa.NewID[stoa.UserID]()
	return id, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `
			INSERT INTO users (id, email, password_hash, first_name, last_name, created_at, updated_at)
			VALUES ($1, $2, 'x', 'A', 'B', $3, $3)`, id, email, tx.Now)
		return err
	})
}

// newStore inserts a store with a creator of its own.
func newStore(t *testing.T, db *masterdb.DB) (stoa.StoreID, stoa.UserID) {
	t.Helper()
	store := stoa.NewID[stoa.StoreID]()
	user, err := insertUser(t, db, store.String()+"@example.com")
	testkit.Must(t, err)
	testkit.Must(t, db.Tx(t.Context(), func(tx *masterdb.Tx) error {
		_, err := tx.Exec(t.Context(), `
			INSERT INTO stores (id, slug, name, status, created_by, created_at, updated_at)
			VALUES ($1, $2, 'A store', 'active', $3, $4, $4)`, store, store.String(), user, tx.Now)
		return err
	}))
	return store, user
}
