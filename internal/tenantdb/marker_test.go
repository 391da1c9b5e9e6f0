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
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// TestMarkAtOnce checks that one of many stores that mark one empty database at
// the same time succeeds.
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
			testkit.Must(t, db.Mark(t.Context(), ids[winner]))
			if marked, err := db.Marked(t.Context(), ids[winner]); !marked || err != nil {
				t.Errorf("marked %t, %v", marked, err)
			}
			if _, err := db.Marked(t.Context(), stoa.NewID[stoa.StoreID]()); !errors.Is(err, tenantdb.ErrMarked) {
				t.Errorf("to another store: %v", err)
			}
			testkit.Must(t, exec(t, db, `DELETE FROM `+tenantdb.MarkerTable))
			if marked, err := db.Marked(t.Context(), ids[winner]); marked || err != nil {
				t.Errorf("without its row it is marked: %t, %v", marked, err)
			}
			testkit.Must(t, db.Mark(t.Context(), stoa.NewID[stoa.StoreID]()))
		})
	}
}

// TestLostRace checks the errors of two callers that create a table on
// PostgreSQL at the same time: they conflict in the table's name, its type or
// the catalogue's index.
func TestLostRace(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]bool{"42P07": true, "42710": true, "23505": true, "42501": false, "42P01": false} {
		if got := tenantdb.LostRace(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code})); got != want {
			t.Errorf("%s: %t", code, got)
		}
	}
}

// TestIsTransient checks which faults are transient.
func TestIsTransient(t *testing.T) {
	t.Parallel()
	my := func(n uint16) error { return &mysql.MySQLError{Number: n} }
	pg := func(code string) error { return &pgconn.PgError{Code: code} }
	pooler := func(code string) error { return &pgconn.PgError{Code: "XX000", Message: "(" + code + ") x"} }
	for _, tt := range []struct {
		engine credential.EngineName
		err    error
		want   bool
	}{
		{credential.MySQL, my(1040), true}, {credential.MySQL, my(1203), true}, {credential.MySQL, my(1053), true}, {credential.MySQL, my(1927), true},
		{credential.MySQL, my(1045), false}, {credential.MySQL, my(1049), false}, {credential.MySQL, my(1044), false},
		{credential.MySQL, my(1129), false}, {credential.MySQL, my(1130), false}, {credential.MySQL, my(1290), false}, {credential.MySQL, my(3159), false},
		{credential.MySQL, driver.ErrBadConn, true}, {credential.MySQL, mysql.ErrInvalidConn, true},
		{credential.PostgreSQL, pg("53300"), true}, {credential.PostgreSQL, pg("57P03"), true}, {credential.PostgreSQL, pg("57P01"), true}, {credential.PostgreSQL, pg("08006"), true},
		{credential.PostgreSQL, pg("28P01"), false}, {credential.PostgreSQL, pg("3D000"), false}, {credential.PostgreSQL, pg("42501"), false},
		{credential.PostgreSQL, pg("53100"), false}, {credential.PostgreSQL, pg("57P04"), false}, {credential.PostgreSQL, pg("25006"), false},
		{credential.PostgreSQL, io.ErrUnexpectedEOF, true}, {credential.PostgreSQL, context.DeadlineExceeded, true},
		{credential.PostgreSQL, &net.DNSError{IsNotFound: true}, false}, {credential.PostgreSQL, &net.DNSError{IsTimeout: true}, true},
		{credential.PostgreSQL, dial.ErrHostForbidden, false}, {credential.PostgreSQL, dial.ErrPlaintextForbidden, false},
		{credential.Supabase, pooler("EMAXCONN"), true}, {credential.Supabase, pooler("EMAXCONNSESSION"), true},
		{credential.Supabase, pooler("ENOTFOUND"), false}, {credential.Supabase, pooler("EADDRNOTALLOWED"), false}, {credential.Supabase, pooler("ECIRCUITBREAKER"), false},
	} {
		fault := tenantdb.NewEngines(tenantdb.Options{})[tt.engine].Fault(fmt.Errorf("wrapped: %w", tt.err))
		if fault == nil {
			t.Errorf("%s: %v is no fault", tt.engine, tt.err)
		} else if got := tenantdb.IsTransient(fault); got != tt.want {
			t.Errorf("%s: %v passes: %t", tt.engine, tt.err, got)
		}
	}
}
