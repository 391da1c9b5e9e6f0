package tenantdb_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/tenantdbtest"
	"github.com/stoahq/stoa/internal/testkit"
)

// raise returns a statement that makes a server report an error with the given
// code.
func raise(engine credential.EngineName, code string) string {
	if engine == credential.MySQL {
		return `SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = ` + code + `, MESSAGE_TEXT = 'words of the server'`
	}
	return `DO $$ BEGIN RAISE EXCEPTION 'words of the server' USING ERRCODE = '` + (code + "009")[:5] + `'; END $$`
}

// unexpected are errors that no table of faults contains.
var unexpected = map[credential.EngineName][]string{
	credential.PostgreSQL: {"ZZ999", "XX000", "HV000", "72000", "42601"}, credential.MySQL: {"65000", "1105", "1064", "1000", "30000"},
}

// TestEveryServerError checks that for any error of a server, the owner who
// connects the database gets its meaning, and a shopper gets the message that
// the store is not available at present. The error is never reported as the
// platform's own.
func TestEveryServerError(t *testing.T) {
	t.Parallel()
	for _, engine := range servers() {
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback}})
			c, store := tenantdbtest.Create(t, engine), h.store(t)
			h.save(t, store, c)
			owner := tenantdbtest.Open(t, c)
			for _, code := range append(tenantdb.FaultKeys(engine), unexpected[engine]...) {
				_, err := owner.Exec(t.Context(), raise(engine, code))
				fault := tenantdb.ServerFault(err)
				var known *stoa.Error
				if errors.As(err, &known) {
					fault = known
				}
				if fault == nil || fault.Code == stoa.Internal || len(fault.Message) < 40 || strings.Contains(fault.Message, "words of") {
					t.Errorf("%s for the owner: %v", code, err)
				}
				if known == nil && (fault.Code != stoa.TenantError || !strings.Contains(fault.Message, code)) {
					t.Errorf("%s for the owner: %v", code, fault)
				}
				h.Forget(store) // its breaker may be open
				lease := h.lease(t, store)
				_, err = lease.Exec(t.Context(), raise(engine, code))
				lease.Release()
				if !errors.As(err, &known) || known.Code != stoa.TenantUnavailable && known.Code != stoa.TenantError ||
					known.RetryAfter <= 0 || strings.Contains(known.Message, "words of") {
					t.Errorf("%s for a shopper: %v", code, err)
				}
			}
		})
	}
}

// TestWaitsMayPass checks that a statement that waits for another one, or is
// ended by a time limit, is reported as transient and does not count against
// the database's health.
func TestWaitsMayPass(t *testing.T) {
	t.Parallel()
	for engine, codes := range map[credential.EngineName][]string{
		credential.PostgreSQL: {"57014", "55P03", "40001", "40P01"}, credential.MySQL: {"1020", "1205", "1213", "1412", "1615", "3024", "1969", "3572"},
	} {
		if !hasServer(engine) {
			continue
		}
		t.Run(string(engine), func(t *testing.T) {
			t.Parallel()
			h := setup(t, tenantdb.Options{Dialer: dial.Dialer{Allow: dial.Loopback}})
			c, store := tenantdbtest.Create(t, engine), h.store(t)
			h.save(t, store, c)
			lease := h.lease(t, store)
			defer lease.Release()
			for _, code := range codes {
				for range 2 { // more failures than a breaker tolerates
					_, err := lease.Exec(t.Context(), raise(engine, code))
					if stoa.CodeOf(err) != stoa.TenantError || !tenantdb.IsTransient(err) {
						t.Errorf("%s: %v", code, err)
					}
				}
			}
			works(t, lease)
			_, err := tenantdbtest.Open(t, c).Exec(t.Context(), raise(engine, codes[0]))
			var known *stoa.Error
			if !errors.As(err, &known) || known.RetryAfter <= 0 {
				t.Errorf("for the owner: %v", err)
			}
		})
	}
}

func hasServer(engine credential.EngineName) bool {
	for _, e := range servers() {
		if e == engine {
			return true
		}
	}
	return false
}

// TestServerErrorsAreDocumented checks that docs/database-errors.md has a row
// for each error that is mapped to a fault.
func TestServerErrorsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/database-errors.md")
	testkit.Must(t, err)
	for _, engine := range []credential.EngineName{credential.PostgreSQL, credential.MySQL} {
		for _, code := range tenantdb.FaultKeys(engine) {
			if !strings.Contains(string(page), "`"+code+"`") {
				t.Errorf("%s %s has no row", engine, code)
			}
		}
	}
}

// TestReadOnlyEndpoint checks that a read-only server is reported before
// anything is written to it.
func TestReadOnlyEndpoint(t *testing.T) {
	t.Parallel()
	for name, start := range tenantdbtest.MySQLServers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			admin, create := tenantdbtest.OwnMySQL(t, start)
			c := create(t)
			db := tenantdbtest.Open(t, c)
			_, err := db.Inspect(t.Context())
			testkit.Must(t, err)
			_, err = admin.ExecContext(t.Context(), `SET GLOBAL read_only = 1`)
			testkit.Must(t, err)
			_, err = db.Inspect(t.Context())
			checkFault(t, err, stoa.DatabasePermissionDenied, c)
			if !strings.Contains(err.Error(), "replica") {
				t.Error(err)
			}
			checkFault(t, db.Mark(t.Context(), stoa.NewID[stoa.StoreID]()), stoa.DatabasePermissionDenied, c)
		})
	}
}
