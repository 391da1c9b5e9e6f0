package tenantdb

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
)

// serverFault describes what an error of a database server means for the
// store's owner.
type serverFault struct {
	code    stoa.Code
	passes  bool   // a retry a little later may succeed
	message string // what it means and what to do
}

// because returns the fault as an error with err as its cause.
func (f serverFault) because(err error) *stoa.Error {
	fault := stoa.Errorf(f.code, "%s", f.message)
	if f.code == stoa.TenantError { // the error is about one statement, not about the connection to the server
		code, _ := serverCode(err)
		fault.Message += code
		if f.passes {
			fault.RetryAfter = retryAfter
		}
	}
	if f.passes {
		err = markTransient(err)
	}
	return fault.WithCause(err)
}

// These faults occur on PostgreSQL and on MySQL.
var (
	faultAuth = serverFault{stoa.DatabaseAuthFailed, false, "The database server refuses this user and password. Correct them and connect again."}

	faultExpired = serverFault{stoa.DatabaseAuthFailed, false, "The user's password has expired, or must be changed first. Set a new one at the server, then connect again."}

	faultLocked = serverFault{stoa.DatabaseAuthFailed, false, "The user's account is locked at the server. Unlock it there, then connect again."}

	faultLogin = serverFault{stoa.DatabaseAuthFailed, false, "The server asks for a way of signing in that this platform does not know. Give the user a password with the server's usual method."}

	faultAdmitted = serverFault{stoa.DatabaseAuthFailed, false, "The server does not admit this user from this platform: its rules (pg_hba.conf, allowed networks) know no such user, database, address or encryption. Correct them there."}

	faultNoDatabase = serverFault{stoa.DatabaseUnreachable, false, "The server has no database of that name. Create it first, or correct the name."}

	faultPermission = serverFault{stoa.DatabasePermissionDenied, false, "The database user may not do this. It needs to create, alter and write tables in its database."}

	faultReadOnly = serverFault{stoa.DatabasePermissionDenied, false, "This server is read-only (a replica?). Give the address of the primary, or have the server take changes again."}

	faultFull = serverFault{stoa.DatabaseUnreachable, false, "The database has no room left to write. Free some, or give it more."}

	faultOverloaded = serverFault{stoa.DatabaseUnreachable, true, "The database server accepts no more connections at the moment. Try again shortly."}

	faultMemory = serverFault{stoa.DatabaseUnreachable, true, "The database server has no memory left for this. Try again shortly; if it persists, give it more."}

	faultStarting = serverFault{stoa.DatabaseUnreachable, true, "The database server is starting, stopping or recovering. Try again shortly."}

	faultUnreachable = serverFault{stoa.DatabaseUnreachable, true, "The database server does not answer. Check host and port, and that its firewall admits this platform."}

	// faultNotAdmitted is faultUnreachable, but it persists until somebody
	// changes something at the server.
	faultNotAdmitted = serverFault{faultUnreachable.code, false, faultUnreachable.message}

	faultTLSRequired = serverFault{stoa.DatabaseTLSFailed, false, "The database server insists on TLS. Remove sslmode=disable."}

	faultWaited = serverFault{stoa.TenantError, true, "The database is busy: a statement waited too long for another one, or was ended by a time limit or an administrator. Try again shortly; if it persists, look for long transactions and time limits there."}

	faultDamaged = serverFault{stoa.TenantError, false, "The server reports that a table, an index or its storage is damaged. Its log says more; check and repair it there, or restore a backup."}

	faultTooLarge = serverFault{stoa.TenantError, false, "The server takes no statement or row of this size. Raise its limit (max_allowed_packet, or the like)."}

	faultTrigger = serverFault{stoa.TenantError, false, "A trigger, a rule or a procedure in the database refused the change. Remove those on Stoa's tables that are not Stoa's."}

	faultMissing = serverFault{stoa.TenantError, false, "A table, a column or a function is missing or not as Stoa made it. If somebody changed it, restore it there, or from a backup."}

	faultLimit = serverFault{stoa.TenantError, false, "A limit or a missing feature of the server stands in the way. Its log names it; change the server's settings or its plan."}

	faultMade = serverFault{stoa.TenantError, false, "Something of this name is in the database already, made by somebody else. Remove it, or give the store a database of its own."}
)

// sqlState matches the form of a server's error code: five letters and digits.
var sqlState = regexp.MustCompile(`^[0-9A-Z]{5}$`)

// serverCode returns the code of an error that a server reported, as "
// (SQLSTATE 57014)". ok is false for errors of another origin.
func serverCode(err error) (code string, ok bool) {
	var pgErr *pgconn.PgError
	var myErr *mysql.MySQLError
	switch {
	case errors.As(err, &pgErr) && sqlState.MatchString(pgErr.Code):
		return " (SQLSTATE " + pgErr.Code + ")", true
	case pgErr != nil:
		return "", true
	case errors.As(err, &myErr):
		return fmt.Sprintf(" (error %d)", myErr.Number), true
	}
	return "", false
}

// isOfServer reports whether a database server reported err.
func isOfServer(err error) bool {
	_, ok := serverCode(err)
	return ok
}

// ServerFault returns the error that the owner sees while a database is being
// connected, for a server error that no engine has a code for. It returns nil
// for every other error.
func ServerFault(err error) *stoa.Error {
	code, ok := serverCode(err)
	if !ok {
		return nil
	}
	return stoa.Errorf(stoa.TenantError, "The database server reported an error%s that Stoa does not expect. "+
		"Its log says more; correct what it names and try again.", code).WithCause(err)
}

// tenantError returns the error that a shopper sees when a store's server
// reports an error about one statement. Other statements may succeed.
func tenantError(err error) *stoa.Error {
	code, _ := serverCode(err)
	fault := stoa.Errorf(stoa.TenantError, "This store's database reported an error%s. Try again shortly.", code)
	fault.RetryAfter = retryAfter
	return fault.WithCause(err)
}
