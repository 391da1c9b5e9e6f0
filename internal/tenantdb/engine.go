package tenantdb

import (
	"context"
	"crypto/tls"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/dial"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// Engine is one kind of database server.
type Engine interface {
	// Open returns a pool for the database of c. The first query makes the
	// first connection. All connections of the database share state, including
	// those of Session.
	Open(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error)
	// Inspect describes the database before anything is written.
	Inspect(ctx context.Context, db *DB) (Inspection, error)
	// Session returns a pool for a migration, whose connections keep a session and
	// its locks from one transaction to the next.
	Session(c credential.Credentials, dial dial.Func, state *sessionState) (*sql.DB, error)
	// pin makes the sessions of a database that was just opened follow Stoa's settings,
	// or checks that they do.
	pin(ctx context.Context, db *DB, store stoa.StoreID) error
	// warnings returns who else may read a database that is not managed, as far as the
	// server tells: see DB.Warnings.
	warnings(ctx context.Context, db *DB) ([]Warning, error)
	// sessions reports whether the connections of Open keep a session too.
	sessions(c credential.Credentials) bool
	// migrator returns how migrations of c's database run and lock.
	migrator(c credential.Credentials, state *sessionState) migrator
	// Fault converts a driver's error into a database_… code with a message for
	// the store's owner. It returns nil for an error that says nothing about
	// the connection, such as a violated constraint.
	Fault(err error) *stoa.Error
}

// Inspection is the result of Engine.Inspect.
type Inspection struct {
	// Version is the version that the server reports, such as "15.4" or
	// "10.11.6-MariaDB".
	Version string
	// Supported is false if the server is older than Minimum.
	Supported bool
	Minimum   string
	// Encoding is the server's name of the database's character set. Unicode is
	// false if that character set does not cover Unicode.
	Encoding string
	Unicode  bool
	// MayCreate is false if the user lacks the right to create tables.
	MayCreate bool
	// Tables are the names of all tables and views in the database, on PostgreSQL in
	// its current schema.
	Tables []string
}

// setRelease describes the server by its release.
func (in *Inspection) setRelease(r Release) {
	in.Version, in.Minimum, in.Supported = r.Version, r.Product+" "+r.Minimum, r.Supported()
}

// maxTables is the maximum number of tables that Inspect lists. A database with
// more tables is refused, because it is not dedicated to a store.
const maxTables = 10_000

// listTables reads the names of tables with a query that ends in a LIMIT.
func (in *Inspection) listTables(ctx context.Context, db *DB, query string) error {
	if err := db.Select(ctx, &in.Tables, query, maxTables+1); err != nil {
		return err
	}
	if len(in.Tables) > maxTables {
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database holds more than %d tables. Give the store a database of its own.", maxTables)
	}
	return nil
}

// registration is one line of registered.
type registration struct {
	dialect *dialect
	engine  func(Options) Engine
}

// registered has one line for each engine: its dialect, and how it is made.
var registered = map[credential.EngineName]registration{
	credential.SQLite:     {&sqliteDialect, func(o Options) Engine { return sqliteEngine{dir: o.DataDir, spareFiles: o.spareFiles} }},
	credential.PostgreSQL: {&postgresDialect, func(o Options) Engine { return postgresEngine{o.Log} }},
	credential.MySQL:      {&mysqlDialect, func(o Options) Engine { return mysqlEngine{o.Log} }},
	credential.Supabase:   {&postgresDialect, func(o Options) Engine { return supabaseEngine{postgresEngine{o.Log}, o.Supabase.WithDefaults()} }},
}

// NewEngines returns every engine. It uses the options DataDir, Supabase and Log.
func NewEngines(opts Options) map[credential.EngineName]Engine {
	engines := map[credential.EngineName]Engine{}
	for name, r := range registered {
		engines[name] = r.engine(opts)
	}
	return engines
}

// connectTimeout limits how long a server may take to greet, encrypt and
// authenticate, for callers without a deadline.
const connectTimeout = 10 * time.Second

// errNoTLS means that the server does not support TLS.
var errNoTLS = errors.New("server does not support TLS")

// unreachable returns the fault of a server that cannot be reached. All engines
// share these messages. The messages do not reveal whether a port answers.
func unreachable(err error) *stoa.Error { return faultUnreachable.because(err) }

// protocolBroken returns the fault of a server that violates the protocol. It is not
// transient.
func protocolBroken(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseUnreachable,
		"The server does not speak the protocol correctly. Check host and port, and that a database server of the chosen type answers there.").WithCause(err)
}

func answerTooLong(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseUnreachable,
		"The database answered with more data than this platform accepts for one request. Check that nothing else writes to the store's tables.").WithCause(err)
}

// tooManyIterations returns the fault of an account whose password was set on a
// server with an unusually high iteration count.
func tooManyIterations(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseAuthFailed, "The database server asks for more than %d rounds of SCRAM to check this user's password. "+
		"Set scram_iterations to %d or less there, and then the password again.", screen.MaxIterations, screen.MaxIterations).WithCause(err)
}

// busy returns the fault for too many concurrent connection attempts by Stoa.
func busy(err error) *stoa.Error {
	return stoa.Errorf(stoa.DatabaseUnreachable, "This platform makes too many database connections at the moment. Try again shortly.").WithCause(markTransient(err))
}

// networkFault returns the fault of name resolution, sockets and TLS, or nil.
func networkFault(err error) *stoa.Error {
	var (
		certErr   *tls.CertificateVerificationError
		recordErr tls.RecordHeaderError
		alertErr  tls.AlertError
		netErr    net.Error
		protoErr  *screen.ProtocolError
	)
	switch {
	case errors.Is(err, dial.ErrUnknownHost):
		return stoa.Errorf(stoa.DatabaseUnreachable, "The server's name is not known, or leads to an address that this platform may not connect to. "+
			"Check the name; it must be the server's public one, unless the operator has allowed its network.").WithCause(err)
	case errors.As(err, &protoErr):
		return protocolBroken(err)
	case errors.Is(err, screen.ErrAnswerTooLong):
		return answerTooLong(err)
	case errors.Is(err, dial.ErrHostForbidden):
		return stoa.Errorf(stoa.DatabaseHostForbidden,
			"This platform may not connect to that address. Use the server's public address, or ask the operator to allow its network.").WithCause(err)
	case errors.Is(err, dial.ErrPlaintextForbidden):
		return stoa.Errorf(stoa.DatabaseTLSFailed,
			"A connection to a public address must use TLS. Remove sslmode=disable.").WithCause(err)
	case errors.Is(err, errNoTLS):
		return stoa.Errorf(stoa.DatabaseTLSFailed,
			"The database server does not offer TLS. Enable it there, or, on a network you trust, ask for plaintext with TLS mode %q (sslmode=disable).", credential.TLSDisable).WithCause(err)
	case errors.As(err, &certErr):
		return credential.CertificateFault(err)
	case errors.As(err, &recordErr), errors.As(err, &alertErr):
		return stoa.Errorf(stoa.DatabaseTLSFailed, "The database server broke off while the encrypted connection was made. "+
			"It must speak TLS 1.2 or newer and must not ask for a client certificate; check that host and port are the database's.").WithCause(err)
	case errors.As(err, &netErr), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, driver.ErrBadConn), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return unreachable(err)
	}
	return nil
}

// Release is the version of a database server that runs.
type Release struct {
	Product string // such as "MariaDB"
	Version string // as the server reports it
	Minimum string // the oldest version that Stoa works with
}

// Supported reports whether the server is not older than the oldest that is.
func (r Release) Supported() bool { return atLeast(r.Version, r.Minimum) }

// atLeast reports whether a dotted version is at least minimum, such as 8.0.16
// and 8.0.
func atLeast(version, minimum string) bool {
	var v, m [3]int
	_, _ = fmt.Sscanf(version, "%d.%d.%d", &v[0], &v[1], &v[2])
	_, _ = fmt.Sscanf(minimum, "%d.%d.%d", &m[0], &m[1], &m[2])
	for i := range v {
		if v[i] != m[i] {
			return v[i] > m[i]
		}
	}
	return true
}
