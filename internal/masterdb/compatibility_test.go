package masterdb_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/masterdb/masterdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestNewerSchema checks that a release runs on a newer schema only if the schema states
// that it may.
func TestNewerSchema(t *testing.T) {
	t.Parallel()
	masterdbtest.Each(t, func(t *testing.T, db *masterdb.DB) {
		own, err := db.Schema(t.Context())
		testkit.Must(t, err)
		if own.Version != own.Binary || own.Newer() || own.Check() != nil || own.OldestBinary == 0 || own.OldestBinary > own.Binary {
			t.Fatalf("the schema of this release is %+v: %v", own, own.Check())
		}
		testkit.Must(t, exec(t, db, `INSERT INTO goose_db_version (version_id, is_applied) VALUES ($1, true)`, own.Binary+1))
		for _, c := range []struct {
			name   string
			change string
			want   error
		}{
			{"which this release may use", `UPDATE schema_compatibility SET oldest_binary = $1`, nil},
			{"which needs the newer release", `UPDATE schema_compatibility SET oldest_binary = $1 + 1`, masterdb.ErrSchemaTooNew},
			{"without a statement", `DELETE FROM schema_compatibility WHERE oldest_binary > $1`, masterdb.ErrSchemaTooNew},
		} {
			testkit.Must(t, exec(t, db, c.change, own.Binary))
			schema, err := db.Schema(t.Context())
			if err != nil || !schema.Newer() || !errors.Is(schema.Check(), c.want) {
				t.Errorf("a newer schema %s: %+v, %v, %v; want %v", c.name, schema, err, schema.Check(), c.want)
			}
			if n, err := db.Migrate(t.Context()); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("Migrate of a newer schema %s = %d, %v; want %v", c.name, n, err, c.want)
			}
		}
		testkit.Must(t, exec(t, db, `DROP TABLE schema_compatibility`))
		if _, err := db.Migrate(t.Context()); !errors.Is(err, masterdb.ErrSchemaTooNew) {
			t.Errorf("Migrate of a newer schema without the table: %v", err)
		}
	})
}

// TestSchemaChangesNothing checks that reading the schema of an empty database leaves it
// empty.
func TestSchemaChangesNothing(t *testing.T) {
	t.Parallel()
	for _, engine := range masterdbtest.Engines() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := masterdbtest.Open(t, emptyURL(t, engine))
			_, err := db.Schema(t.Context())
			testkit.Must(t, err)
			tables := `SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace`
			if engine == masterdb.SQLite {
				tables = `SELECT count(*) FROM sqlite_master`
			}
			var n int
			testkit.Must(t, db.Get(t.Context(), &n, tables))
			if n != 0 {
				t.Errorf("%d tables were made", n)
			}
		})
	}
}

// TestMigrationLock checks that Migrate, while another session holds goose's lock, retries
// many times within the interval of goose's own implementation, and continues as soon as
// the lock is free. It holds no snapshot meanwhile.
func TestMigrationLock(t *testing.T) {
	t.Parallel()
	if len(masterdbtest.Engines()) < 2 {
		t.Skip("SQLite locks a file")
	}
	url := emptyURL(t, masterdb.Postgres)
	holder, err := pgx.Connect(t.Context(), url)
	testkit.Must(t, err)
	defer holder.Close(context.Background()) //nolint:errcheck // nothing is pending
	_, err = holder.Exec(t.Context(), `SELECT pg_advisory_lock(4097083626)`)
	testkit.Must(t, err)

	db := masterdbtest.Open(t, url)
	done := make(chan error, 1)
	go func() {
		_, err := db.Migrate(t.Context())
		done <- err
	}()
	tried := map[time.Time]bool{} // times by the server's clock
	first := time.Time{}
	for len(tried) < 4 {
		var at time.Time
		err := holder.QueryRow(t.Context(), `SELECT coalesce(max(query_start), 'epoch') FROM pg_stat_activity
			WHERE datname = current_database() AND query LIKE 'SELECT pg_try_advisory_lock%'`).Scan(&at)
		testkit.Must(t, err)
		if at.Unix() == 0 {
			continue
		}
		if len(tried) == 0 {
			first = at
		}
		tried[at] = true
		if took := at.Sub(first); took > 5*time.Second {
			t.Fatalf("%d attempts in %s", len(tried), took)
		}
	}
	// The statement would wait for any transaction that holds a snapshot.
	_, err = holder.Exec(t.Context(), `CREATE TABLE other (id int)`)
	testkit.Must(t, err)
	_, err = holder.Exec(t.Context(), `CREATE INDEX CONCURRENTLY other_id ON other (id)`)
	testkit.Must(t, err)
	select {
	case err := <-done:
		t.Fatalf("Migrate did not wait for the lock: %v", err)
	default:
	}
	_, err = holder.Exec(t.Context(), `SELECT pg_advisory_unlock(4097083626)`)
	testkit.Must(t, err)
	testkit.Must(t, <-done)

	_, err = holder.Exec(t.Context(), `SELECT pg_advisory_lock(4097083626)`)
	testkit.Must(t, err) // succeeds when Migrate has released the lock
	_, err = holder.Exec(t.Context(), `DELETE FROM goose_db_version WHERE version_id = (SELECT max(version_id) FROM goose_db_version)`)
	testkit.Must(t, err) // otherwise no migration is missing and Migrate does not wait
	cancelled, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := db.Migrate(cancelled); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Migrate with the lock taken, within 200 ms: %v", err)
	}
}
