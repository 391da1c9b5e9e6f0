package tenantdb_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestFailover checks that no write fails when the primary becomes a replica
// and its name leads to another server, although idle connections lead to the
// old server.
func TestFailover(t *testing.T) {
	t.Parallel()
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			old, create := tenantdbtest.OwnMySQL(t, start)
			next, createNext := tenantdbtest.OwnMySQL(t, start)
			c := create(t)
			addresses := [2]string{fmt.Sprintf("%s:%d", c.Host, c.Port), fmt.Sprintf("%s:%d", c.Host, createNext(t).Port)}
			for _, statement := range []string{
				`CREATE DATABASE ` + c.Database, `CREATE TABLE ` + c.Database + `.things (n integer)`,
				fmt.Sprintf(`CREATE USER %s@'%%' IDENTIFIED BY '%s'`, c.User, c.Password.Reveal()), fmt.Sprintf(`GRANT ALL PRIVILEGES ON %s.* TO %s@'%%'`, c.Database, c.User),
			} {
				_, err := next.ExecContext(t.Context(), statement)
				testkit.Must(t, err)
			}
			var primary atomic.Int32
			db, err := tenantdb.OpenWith(tenantdb.NewEngines(tenantdb.Options{}), c, func(ctx context.Context, network, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, network, addresses[primary.Load()])
			})
			testkit.Must(t, err)
			defer db.Close() //nolint:errcheck // nothing is pending
			db.SQL().SetMaxIdleConns(8)
			testkit.Must(t, exec(t, db, `CREATE TABLE things (n integer)`))
			write := func() {
				var wg sync.WaitGroup
				for i := range 8 {
					wg.Go(func() {
						if err := exec(t, db, `INSERT INTO things (n) VALUES (?)`, i); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
			}
			write()
			_, err = old.ExecContext(t.Context(), `SET GLOBAL read_only = 1`)
			testkit.Must(t, err)
			primary.Store(1)
			write()
			write()
			var n int
			testkit.Must(t, next.QueryRowContext(t.Context(), `SELECT count(*) FROM `+c.Database+`.things`).Scan(&n))
			if n != 16 {
				t.Errorf("the new primary has %d rows, want 16", n)
			}
		})
	}
}
