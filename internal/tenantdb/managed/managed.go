// Package managed makes, drops and finds managed databases: those that Stoa creates
// itself, on the operator's server or embedded, and whose roles' passwords it sets.
package managed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Databases are the managed databases of an installation. It is safe for concurrent use.
type Databases struct {
	master  *masterdb.DB
	tenants *tenantdb.Manager
}

// New returns the managed databases on the server that tenants was configured with.
func New(master *masterdb.DB, tenants *tenantdb.Manager) *Databases {
	return &Databases{master: master, tenants: tenants}
}

// server returns the operator's server, or nil if managed databases are embedded.
func (d *Databases) server() *credential.Server { return d.tenants.ManagedServer() }

// host administers the operator's server, with one implementation per engine.
// Every operation can be repeated after an interruption.
type host interface {
	// make creates a database and a role of the same name with c's password.
	make(ctx context.Context, db *tenantdb.DB, c credential.Credentials) error
	// drop removes both, and the role that may only read.
	drop(ctx context.Context, db *tenantdb.DB, name string) error
	// setPassword gives one of the roles of c's database a password, while it holds a
	// lock on the server, unless current then reports that another password is wanted.
	// It creates the role that may only read, if needed.
	setPassword(ctx context.Context, db *tenantdb.DB, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) error
	// now returns a mark that tells later sessions from those that exist.
	now(ctx context.Context, db *tenantdb.DB) (string, error)
	// endSessions ends sessions of a role that are older than the mark, and returns how
	// many it has found.
	endSessions(ctx context.Context, db *tenantdb.DB, role, mark string, which SessionKind) (int, error)
	// list returns all databases and roles whose names begin with prefix.
	list(ctx context.Context, db *tenantdb.DB, prefix string) ([]string, error)
	// check returns the server's version, or an error if nothing can be created
	// there, as far as can be determined without an attempt.
	check(ctx context.Context, db *tenantdb.DB) (string, error)
	// rights describes the rights that the operator's user needs for all this.
	rights() string
	// grantReader lets the role that may only read see the tables of c's database, as far
	// as setPassword could not. It connects with d as the store's own role.
	grantReader(ctx context.Context, d *Databases, c credential.Credentials) error
}

// hosts has one line for each engine on which managed databases can be made.
var hosts = map[credential.EngineName]host{credential.PostgreSQL: postgresHost{}, credential.MySQL: mysqlHost{}}

// databaseName matches the names of managed databases. Such a name is also a
// valid MySQL user name (at most 32 characters), and only such a name may be
// inserted into the statements below.
var databaseName = regexp.MustCompile(`^stoa_[a-z2-7]{8}_[a-z2-7]{16}$`)

// NewCredentials returns the credentials of a managed database that Make can
// create. The database is on the operator's server and has its own password.
// Without such a server it is an embedded database.
func (d *Databases) NewCredentials(ctx context.Context, store stoa.StoreID) (credential.Credentials, error) {
	if d.server() == nil {
		return credential.ManagedSQLite(store), nil
	}
	prefix, err := d.prefix(ctx)
	if err != nil {
		return credential.Credentials{}, err
	}
	c := d.server().Admin
	c.Database = prefix + credential.NamePart(store[6:]) // the random part of the id
	c.User, c.Password = c.Database, credential.NewPassword()
	return c, nil
}

// NewCredentialsOn does what NewCredentials does for a database of one engine. It fails with
// invalid_request if the operator has no such server.
func (d *Databases) NewCredentialsOn(ctx context.Context, store stoa.StoreID, engine credential.EngineName) (credential.Credentials, error) {
	if engine.Embedded() {
		return credential.ManagedSQLite(store), nil
	}
	if d.server() == nil || d.server().Admin.Engine != engine {
		var faults stoa.Invalid
		faults.Add("engine", "this platform has no server of this engine for managed databases")
		return credential.Credentials{}, faults.Err()
	}
	return d.NewCredentials(ctx, store)
}

// prefix returns the prefix of the names of this installation's databases.
func (d *Databases) prefix(ctx context.Context) (string, error) {
	const query = `SELECT id FROM installation`
	var id string
	err := d.master.Get(ctx, &id, query)
	if errors.Is(err, masterdb.ErrNotFound) {
		var fresh [5]byte
		_, _ = rand.Read(fresh[:]) // Read never fails
		err = d.master.Tx(ctx, func(tx *masterdb.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO installation (one, id) VALUES (true, $1) ON CONFLICT (one) DO NOTHING`,
				credential.NamePart(fresh[:])); err != nil {
				return err
			}
			return tx.Get(ctx, &id, query)
		})
	}
	return "stoa_" + id + "_", err
}

// Make creates the database and the role that c names, or completes a
// run that was interrupted. Afterwards the role has c's password. For an
// embedded database, it creates the file and applies the built-in migrations.
// For every other kind of database, it does nothing. Its error is for the
// store's owner; the cause is for the operator.
func (d *Databases) Make(ctx context.Context, c credential.Credentials) error {
	switch {
	case c.Kind != credential.Managed:
		return nil
	case c.Engine.Embedded():
		return d.tenants.MakeEmbedded(c)
	}
	err := d.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *tenantdb.DB) error { return h.make(ctx, db, c) })
	if err != nil {
		return stoa.Errorf(stoa.DatabaseUnreachable,
			"The platform's own database server could not make the database. Try again; if it persists, tell the operator.").WithCause(err)
	}
	return nil
}

// Drop removes a managed database with its role, or its files. It does
// nothing to a merchant's own database. It succeeds if the database is already
// gone.
func (d *Databases) Drop(ctx context.Context, store stoa.StoreID, info tenantdb.Info) error {
	switch {
	case info.Kind != credential.Managed:
		return nil
	case info.Engine.Embedded():
		return d.tenants.RemoveEmbedded(store)
	}
	return d.onServer(info.Engine, info.Host, info.Port, info.DatabaseName, func(h host, db *tenantdb.DB) error {
		return h.drop(ctx, db, info.DatabaseName)
	})
}

// onServer calls fn with a connection of the operator's user to the server of a
// managed database.
func (d *Databases) onServer(engine credential.EngineName, address string, port int, name string, fn func(host, *tenantdb.DB) error) error {
	server := d.server()
	if !databaseName.MatchString(name) {
		return fmt.Errorf("%.80q is not the name of a managed database", name)
	}
	at := net.JoinHostPort(address, strconv.Itoa(port))
	if server == nil {
		return fmt.Errorf("STOA_MANAGED_DATABASE_URL is not set, but %s is on %s at %s", name, engine, at)
	}
	if server.Admin.Engine != engine || !strings.EqualFold(server.Admin.Host, address) || server.Admin.Port != port {
		return fmt.Errorf("%s is on %s at %s, but STOA_MANAGED_DATABASE_URL names %s", name, engine, at, server)
	}
	return d.withAdmin(fn)
}

func (d *Databases) withAdmin(fn func(host, *tenantdb.DB) error) error {
	admin := d.server().Admin
	db, err := d.tenants.OpenUnleased(admin)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	db.LimitConnections(1)
	return fn(hosts[admin.Engine], db)
}
