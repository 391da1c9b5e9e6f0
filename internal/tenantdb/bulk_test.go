package tenantdb_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// bulkOf takes a connection for many rows, in a database with the tables parents and children.
func bulkOf(t *testing.T, db *tenantdb.DB) *tenantdb.Bulk {
	t.Helper()
	for _, statement := range []string{
		`CREATE TABLE parents (id integer NOT NULL PRIMARY KEY, body text)`,
		`CREATE TABLE children (id integer NOT NULL PRIMARY KEY, parent integer REFERENCES parents (id))`,
	} {
		_, err := db.Exec(t.Context(), statement)
		testkit.Must(t, err)
	}
	b, err := db.Bulk(t.Context())
	testkit.Must(t, err)
	return b
}

// insert runs one statement in a transaction of its own.
func insert(ctx context.Context, b *tenantdb.Bulk, query string, args ...any) error {
	return b.Tx(ctx, func(tx *tenantdb.Tx) error {
		_, err := tx.Exec(ctx, query, args...)
		return err
	})
}

// TestBulkChecksReferencesAfterwards inserts a row before the one that it references, and then
// another one whose reference leads nowhere. The pool's connections refuse both.
func TestBulkChecksReferencesAfterwards(t *testing.T) {
	t.Parallel()
	db := tenantdbtest.Open(t, tenantdbtest.Create(t, credential.SQLite))
	db.LimitConnections(1) // so that the pool would use the connection again
	b := bulkOf(t, db)
	defer b.Close()
	dangling := func(want bool) {
		t.Helper()
		got, err := b.Dangling(t.Context(), "children")
		testkit.Must(t, err)
		if got != want {
			t.Errorf("dangling: %v, want %v", got, want)
		}
	}
	testkit.Must(t, insert(t.Context(), b, `INSERT INTO children VALUES (1, 1)`))
	dangling(true)
	testkit.Must(t, insert(t.Context(), b, `INSERT INTO parents VALUES (1, '')`))
	dangling(false)
	testkit.Must(t, insert(t.Context(), b, `INSERT INTO children VALUES (2, 2)`))
	dangling(true)

	b.Close()
	if _, err := db.Exec(t.Context(), `INSERT INTO children VALUES (3, 3)`); err == nil {
		t.Error("the pool has a connection that checks no foreign keys")
	}
}

// TestBulkKeepsOtherConstraints violates a constraint: nothing of the transaction is left.
func TestBulkKeepsOtherConstraints(t *testing.T) {
	t.Parallel()
	db := tenantdbtest.Open(t, tenantdbtest.Create(t, credential.SQLite))
	b := bulkOf(t, db)
	defer b.Close()
	if err := insert(t.Context(), b, `INSERT INTO parents VALUES (1, ''), (2, ''), (2, '')`); !tenantdb.IsUnique(err) {
		t.Errorf("the error is %v", err)
	}
	stop := errors.New("stop")
	err := b.Tx(t.Context(), func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(t.Context(), `INSERT INTO parents VALUES (3, '')`); err != nil {
			return err
		}
		return stop
	})
	if !errors.Is(err, stop) {
		t.Errorf("the error is %v", err)
	}
	var rows int
	testkit.Must(t, db.Get(t.Context(), &rows, `SELECT count(*) FROM parents`))
	if rows != 0 {
		t.Errorf("%d rows are left", rows)
	}
}

// TestBulkCopiesItsLogBeside commits less than what the connection itself would copy.
func TestBulkCopiesItsLogBeside(t *testing.T) {
	t.Parallel()
	h := setup(t, tenantdb.Options{})
	store, c := h.made(t)
	b := bulkOf(t, h.unleasedAt(t, c))
	defer b.Close()
	const size = 3 << 20
	testkit.Must(t, insert(t.Context(), b, `INSERT INTO parents VALUES (1, ?)`, strings.Repeat("x", size)))
	testkit.Eventually(t, 10*time.Second, "the log is in the file", func() bool {
		info, err := os.Stat(embeddedFile(h.dir, store))
		return err == nil && info.Size() > size
	})
}

// TestBulkIsOfEmbeddedDatabases asks a server's database for a connection.
func TestBulkIsOfEmbeddedDatabases(t *testing.T) {
	t.Parallel()
	tenantdbtest.Each(t, func(t *testing.T, db *tenantdb.DB) {
		b, err := db.Bulk(t.Context())
		testkit.Must(t, err)
		if b != nil {
			defer b.Close()
		}
		if embedded := db.Engine.Embedded(); (b != nil) != embedded {
			t.Errorf("a connection: %v, want %v", b != nil, embedded)
		}
	})
}
