package managed

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
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
var ErrSuperseded = errors.New("managed: another password is to be set")

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
func (d *Databases) SetPassword(ctx context.Context, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) (mark string, err error) {
	if c.User != c.Database {
		return "", fmt.Errorf("%.80q is not the role of a managed database", c.User)
	}
	err = d.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *tenantdb.DB) error {
		return h.setPassword(ctx, db, c, a, password, current)
	})
	if err == nil && a == credential.ReadAccess {
		err = hosts[c.Engine].grantReader(ctx, d, c)
	}
	if err == nil {
		err = d.signsIn(ctx, c, a, password)
	}
	if err != nil {
		return "", serverFailed(err)
	}
	// A new connection, because MySQL's mark is the number of the connection.
	err = d.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *tenantdb.DB) (err error) {
		mark, err = h.now(ctx, db)
		return err
	})
	return mark, serverFailed(err)
}

// EndSessions ends the sessions of a role that began before the mark, and returns how many
// it has found. They may have signed in with an earlier password.
func (d *Databases) EndSessions(ctx context.Context, c credential.Credentials, a credential.Access, mark string, which SessionKind) (found int, err error) {
	err = d.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *tenantdb.DB) (err error) {
		found, err = h.endSessions(ctx, db, c.Role(a), mark, which)
		return err
	})
	return found, serverFailed(err)
}

// signsIn connects once as the role.
func (d *Databases) signsIn(ctx context.Context, c credential.Credentials, a credential.Access, password keyring.Secret) error {
	c.SetPassword(a, password)
	db, err := d.tenants.OpenUnleased(c.As(a))
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
	e.RetryAfter = 5 * time.Second
	return e.WithCause(err)
}

// statements is implemented by DB and Tx.
type statements interface {
	Get(ctx context.Context, dst any, query string, args ...any) error
	Exec(ctx context.Context, query string, args ...any) (int64, error)
}
