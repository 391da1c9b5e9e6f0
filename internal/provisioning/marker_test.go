package provisioning

import (
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMarkedDatabase checks that a database with a marker belongs to its store, even if
// it contains nothing else.
func TestMarkedDatabase(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		p, s := b.store(t)
		testkit.Must(t, tenantdbtest.Open(t, c).Mark(t.Context(), stoa.NewID[stoa.StoreID]()))
		b.failed(t, p, b.connect(t, p, s.ID, c), "inspect", stoa.DatabaseNotEmpty)
		if found, err := b.Test(t.Context(), p, s.ID, &c); err != nil || codeOf(found.Fault) != stoa.DatabaseNotEmpty {
			t.Errorf("a test finds %+v, %v", found.Fault, err)
		}
		if got := tables(t, c); len(got) != 1 {
			t.Errorf("the database was changed: %v", got)
		}
		// The first case is an interruption before the row was inserted, the second a run
		// that had inserted it.
		tenantdbtest.Exec(t, c, `DELETE FROM `+tenantdb.MarkerTable)
		b.succeeded(t, p, b.retry(t, p, s.ID))

		other := credentials(t, engine)
		q, z := b.store(t)
		testkit.Must(t, tenantdbtest.Open(t, other).Mark(t.Context(), z.ID))
		b.succeeded(t, q, b.connect(t, q, z.ID, other))
	})
}

// TestUnmarkedDatabase checks a migrated database without a marker: of a store that
// existed before markers, or of no store.
func TestUnmarkedDatabase(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		p, s := b.store(t)
		b.succeeded(t, p, b.connect(t, p, s.ID, c))
		tenantdbtest.Exec(t, c, `DROP TABLE `+tenantdb.MarkerTable)
		q, z := b.store(t)
		b.failed(t, q, b.connect(t, q, z.ID, c), "inspect", stoa.DatabaseNotEmpty)
		tenantdbtest.Exec(t, c, `DELETE FROM users`, `DELETE FROM stores`)
		b.succeeded(t, q, b.retry(t, q, z.ID))
		if marked, err := tenantdbtest.Open(t, c).Marked(t.Context(), z.ID); !marked || err != nil {
			t.Errorf("marked %t, %v", marked, err)
		}
	})
}

// TestEncoding checks that a database whose encoding cannot store every character is
// refused unchanged.
func TestEncoding(t *testing.T) {
	t.Parallel()
	each(t, servers(t), func(t *testing.T, b fixture, engine credential.EngineName) {
		c := credentials(t, engine)
		if engine == credential.MySQL { // its tables define their own encoding
			tenantdbtest.Admin(t, engine, `ALTER DATABASE `+c.Database+` CHARACTER SET latin1`)
			p, s := b.store(t)
			b.succeeded(t, p, b.connect(t, p, s.ID, c))
			return
		}
		tenantdbtest.Admin(t, engine, `DROP DATABASE `+c.Database,
			`CREATE DATABASE `+c.Database+` OWNER `+c.User+` ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0`)
		p, s := b.store(t)
		run := b.connect(t, p, s.ID, c)
		b.failed(t, p, run, "inspect", stoa.DatabaseVersionUnsupported)
		if !strings.Contains(run.Fault.Message, "LATIN1") || len(tables(t, c)) != 0 {
			t.Errorf("%s; tables %v", run.Fault.Message, tables(t, c))
		}
	})
}
