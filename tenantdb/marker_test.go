package tenantdb_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/tenantdb"
	"github.com/stoahq/stoa/tenantdb/tenantdbtest"
)

// Of many stores that mark one empty database at once, one has it.
func TestMarkAtOnce(t *testing.T) {
	t.Parallel()
	for _, engine := range tenantdbtest.All() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			db := tenantdbtest.Open(t, tenantdbtest.Create(t, engine))
			const stores = 8
			var ids [stores]stoa.StoreID
			var errs [stores]error
			var begin, done sync.WaitGroup
			begin.Add(1)
			for i := range ids {
				ids[i] = stoa.NewID[stoa.StoreID]()
				done.Go(func() {
					begin.Wait()
					errs[i] = db.Mark(t.Context(), ids[i])
				})
			}
			begin.Done()
			done.Wait()
			winner := -1
			for i, err := range errs {
				switch {
				case err == nil && winner < 0:
					winner = i
				case err == nil:
					t.Error("two stores have it")
				case !errors.Is(err, tenantdb.ErrMarked):
					t.Error(err)
				}
			}
			if winner < 0 {
				t.Fatal("nobody has it")
			}
			must(t, db.Mark(t.Context(), ids[winner]))
			if marked, err := db.Marked(t.Context(), ids[winner]); !marked || err != nil {
				t.Errorf("marked %t, %v", marked, err)
			}
			if _, err := db.Marked(t.Context(), stoa.NewID[stoa.StoreID]()); !errors.Is(err, tenantdb.ErrMarked) {
				t.Errorf("to another store: %v", err)
			}
			must(t, exec(t, db, `DELETE FROM `+tenantdb.MarkerTable))
			if marked, err := db.Marked(t.Context(), ids[winner]); marked || err != nil {
				t.Errorf("without its row it is marked: %t, %v", marked, err)
			}
			must(t, db.Mark(t.Context(), stoa.NewID[stoa.StoreID]()))
		})
	}
}

// On PostgreSQL two who create a table at once meet in its name, its type or
// the catalogue's index.
func TestLostRace(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{"42P07": true, "42710": true, "23505": true, "42501": false, "42P01": false} {
		if got := tenantdb.LostRace(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
}

// Which faults may be gone in a moment.
func TestIsPassing(t *testing.T) {
	t.Parallel()
	my := func(n uint16) error { return &mysql.MySQLError{Number: n} }
	pg := func(code string) error { return &pgconn.PgError{Code: code} }
	pooler := func(code string) error { return &pgconn.PgError{Code: "XX000", Message: "(" + code + ") x"} }
	for _, tt := range []struct {
		engine tenantdb.EngineName
		err    error
		want   bool
	}{
		{tenantdb.MySQL, my(1040), true}, {tenantdb.MySQL, my(1203), true}, {tenantdb.MySQL, my(1053), true}, {tenantdb.MySQL, my(1927), true},
		{tenantdb.MySQL, my(1045), false}, {tenantdb.MySQL, my(1049), false}, {tenantdb.MySQL, my(1044), false},
		{tenantdb.MySQL, my(1129), false}, {tenantdb.MySQL, my(1130), false}, {tenantdb.MySQL, my(1290), false}, {tenantdb.MySQL, my(3159), false},
		{tenantdb.MySQL, driver.ErrBadConn, true}, {tenantdb.MySQL, mysql.ErrInvalidConn, true},
		{tenantdb.PostgreSQL, pg("53300"), true}, {tenantdb.PostgreSQL, pg("57P03"), true}, {tenantdb.PostgreSQL, pg("57P01"), true}, {tenantdb.PostgreSQL, pg("08006"), true},
		{tenantdb.PostgreSQL, pg("28P01"), false}, {tenantdb.PostgreSQL, pg("3D000"), false}, {tenantdb.PostgreSQL, pg("42501"), false},
		{tenantdb.PostgreSQL, pg("53100"), false}, {tenantdb.PostgreSQL, pg("57P04"), false}, {tenantdb.PostgreSQL, pg("25006"), false},
		{tenantdb.PostgreSQL, io.ErrUnexpectedEOF, true}, {tenantdb.PostgreSQL, context.DeadlineExceeded, true},
		{tenantdb.PostgreSQL, &net.DNSError{IsNotFound: true}, false}, {tenantdb.PostgreSQL, &net.DNSError{IsTimeout: true}, true},
		{tenantdb.PostgreSQL, tenantdb.ErrHostForbidden, false}, {tenantdb.PostgreSQL, tenantdb.ErrPlaintextForbidden, false},
		{tenantdb.Supabase, pooler("EMAXCONN"), true}, {tenantdb.Supabase, pooler("EMAXCONNSESSION"), true},
		{tenantdb.Supabase, pooler("ENOTFOUND"), false}, {tenantdb.Supabase, pooler("EADDRNOTALLOWED"), false}, {tenantdb.Supabase, pooler("ECIRCUITBREAKER"), false},
	} {
		fault := tenantdb.NewEngines(tenantdb.Options{})[tt.engine].Fault(fmt.Errorf("wrapped: %w", tt.err))
		if fault == nil {
			t.Errorf("%s: %v is no fault", tt.engine, tt.err)
		} else if got := tenantdb.IsTransient(fault); got != tt.want {
			t.Errorf("%s: %v passes: %t", tt.engine, tt.err, got)
		}
	}
}
