package tenantdb

import (
	"context"
	"errors"
	"fmt"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// SessionKind selects sessions of a role.
type SessionKind int

// These constants select no session, those that execute nothing and have no transaction,
// and all.
const (
	NoSessions SessionKind = iota
	IdleSessions
	AllSessions
)

// ErrSuperseded means that another password is to be set by now.
var ErrSuperseded = errors.New("tenantdb: another password is to be set")

// The limits of the role that may only read. PostgreSQL and MariaDB have both, MySQL the
// number of connections.
const (
	readerConnections = 5
	readerSeconds     = 60
)

// SetPassword gives a role of a managed database on the operator's server a password, and
// returns a mark for EndSessions. c must have a password with which the store's own role
// can sign in. One caller at a time does this for a database: when the others follow,
// current tells whether password is still the one that is wanted. If it is not, they fail
// with ErrSuperseded. SetPassword creates the role that may only read, when it is needed,
// or renews its rights. It can be repeated after an interruption.
func (m *Manager) SetPassword(ctx context.Context, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) (mark string, err error) {
	if c.User != c.Database {
		return "", fmt.Errorf("%.80q is not the role of a managed database", c.User)
	}
	err = m.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *DB) error {
		return h.setPassword(ctx, db, c, a, password, current)
	})
	if err == nil && a == credential.ReadAccess && c.Engine == credential.PostgreSQL {
		err = m.grantReader(ctx, c)
	}
	if err == nil {
		err = m.signsIn(ctx, c, a, password)
	}
	if err != nil {
		return "", serverFailed(err)
	}
	// A new connection, because MySQL's mark is the number of the connection.
	err = m.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *DB) (err error) {
		mark, err = h.now(ctx, db)
		return err
	})
	return mark, serverFailed(err)
}

// EndSessions ends the sessions of a role that began before the mark, and returns how many
// it has found. They may have signed in with an earlier password.
func (m *Manager) EndSessions(ctx context.Context, c credential.Credentials, a credential.Access, mark string, which SessionKind) (found int, err error) {
	err = m.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *DB) (err error) {
		found, err = h.endSessions(ctx, db, c.Role(a), mark, which)
		return err
	})
	return found, serverFailed(err)
}

// signsIn connects once as the role.
func (m *Manager) signsIn(ctx context.Context, c credential.Credentials, a credential.Access, password keyring.Secret) error {
	c.SetPassword(a, password)
	db, err := m.newDB(c.As(a), nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	return db.Ping(ctx)
}

// serverFailed returns the error of the operator's server for a store's owner.
func serverFailed(err error) error {
	if err == nil || errors.Is(err, ErrSuperseded) {
		return err
	}
	e := stoa.Errorf(stoa.TenantUnavailable,
		"The platform's own database server could not change the database's roles. Try again; if it persists, tell the operator.")
	e.RetryAfter = retryAfter
	return e.WithCause(err)
}

// grantReader lets the role that may only read see the tables of c's database, as the
// store's own role, which owns them.
func (m *Manager) grantReader(ctx context.Context, c credential.Credentials) error {
	reader := c.Role(credential.ReadAccess)
	db, err := m.newDB(c, nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	return db.Tx(ctx, func(tx *Tx) error {
		// Two sessions that grant rights on one table at the same time fail.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, grantLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, readerGrants(reader)); err != nil {
			return err
		}
		return m.closeSchema(ctx, tx, c, reader)
	})
}

// grantLock is an arbitrary number that nothing else in a managed database locks.
const grantLock = 0x73746f6172 // "stoar"

// closeSchema takes the right to create tables in the schema public from everybody else.
// PostgreSQL grants it to all roles in the databases that releases before 15 create. The
// store's role does not own the schema there, and its REVOKE has no effect but a warning.
func (m *Manager) closeSchema(ctx context.Context, tx *Tx, c credential.Credentials, reader string) error {
	const query = `SELECT coalesce(bool_or(has_schema_privilege(?, oid, 'CREATE')), false) FROM pg_catalog.pg_namespace WHERE nspname = 'public'`
	var open bool
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	const revoke = `REVOKE CREATE ON SCHEMA public FROM PUBLIC`
	if _, err := tx.Exec(ctx, revoke); err != nil {
		return err
	}
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	admin := m.opts.Managed.admin
	admin.Database = c.Database
	at, err := m.newDB(admin, nil)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // no data is pending
	for _, statement := range []string{`GRANT ALL ON SCHEMA public TO "` + c.User + `"`, revoke} {
		if _, err := at.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	return fmt.Errorf("every role may create tables in the schema public of %s: a superuser must run %s there", c.Database, revoke)
}

// statements is implemented by DB and Tx.
type statements interface {
	Get(ctx context.Context, dst any, query string, args ...any) error
	Exec(ctx context.Context, query string, args ...any) (int64, error)
}
