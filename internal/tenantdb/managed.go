package tenantdb

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Server is the operator's PostgreSQL or MySQL/MariaDB server, on which Stoa
// creates managed databases. Each store gets a database and a role of the same
// name, which has all rights there and none elsewhere. Unlike a merchant's
// server, it is trusted: the dialer may reach it at any address.
type Server struct {
	admin credential.Credentials // of a user who may create databases and roles
}

// ParseServer parses "postgres://user:password@host:port/" or "mysql://…", with
// sslmode as in a merchant's connection string; ca is PEM or empty. Its error
// never contains the URL.
func ParseServer(raw keyring.Secret, ca string) (*Server, error) {
	engine, database := credential.PostgreSQL, "postgres"
	u, err := url.Parse(strings.TrimSpace(raw.Reveal()))
	if err == nil && credential.EngineOfScheme(u.Scheme) == credential.MySQL {
		engine, database = credential.MySQL, "information_schema" // every user may connect to it
	}
	if err == nil && strings.Trim(u.Path, "/") == "" {
		u.Path = "/" + database
		raw = keyring.NewSecret(u.String())
	}
	pasted, err := credential.ParsePasted(engine, raw, ca, credential.SupabaseRules{})
	c := pasted.Credentials
	var faulty *stoa.Error
	if errors.As(err, &faulty) {
		var words []string
		for _, f := range faulty.Fields {
			words = append(words, f.Message)
		}
		return nil, errors.New(strings.Join(words, "; "))
	}
	if err != nil {
		return nil, err
	}
	c.Kind = credential.Managed
	return &Server{c}, nil
}

// String returns the server's address without its credentials.
func (s *Server) String() string {
	return fmt.Sprintf("%s at %s", s.admin.Engine, net.JoinHostPort(s.admin.Host, strconv.Itoa(s.admin.Port)))
}

// host administers the operator's server, with one implementation per engine.
// Every operation can be repeated after an interruption.
type host interface {
	// make creates a database and a role of the same name with c's password.
	make(ctx context.Context, db *DB, c credential.Credentials) error
	// drop removes both, and the role that may only read.
	drop(ctx context.Context, db *DB, name string) error
	// setPassword gives one of the roles of c's database a password, while it holds a
	// lock on the server, unless current then reports that another password is wanted.
	// It creates the role that may only read, if needed.
	setPassword(ctx context.Context, db *DB, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) error
	// now returns a mark that tells later sessions from those that exist.
	now(ctx context.Context, db *DB) (string, error)
	// endSessions ends sessions of a role that are older than the mark, and returns how
	// many it has found.
	endSessions(ctx context.Context, db *DB, role, mark string, which SessionKind) (int, error)
	// list returns all databases and roles whose names begin with prefix.
	list(ctx context.Context, db *DB, prefix string) ([]string, error)
	// Check returns the server's version, or an error if nothing can be created
	// there, as far as can be determined without an attempt.
	Check(ctx context.Context, db *DB) (string, error)
	// rights describes the rights that the operator's user needs for all this.
	rights() string
}

var hosts = map[credential.EngineName]host{credential.PostgreSQL: postgresHost{}, credential.MySQL: mysqlHost{}}

// managedName matches the names of managed databases. Such a name is also a
// valid MySQL user name (at most 32 characters), and only such a name may be
// inserted into the statements below.
var managedName = regexp.MustCompile(`^stoa_[a-z2-7]{8}_[a-z2-7]{16}$`)

// lower is base32 in lower case. It uses only letters and digits whose case no
// engine changes.
var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewManaged returns the credentials of a managed database that MakeManaged can
// create. The database is on the operator's server and has its own password.
// Without such a server it is an embedded database.
func (m *Manager) NewManaged(ctx context.Context, store stoa.StoreID) (credential.Credentials, error) {
	if m.opts.Managed == nil {
		return credential.ManagedSQLite(store), nil
	}
	prefix, err := m.managedPrefix(ctx)
	if err != nil {
		return credential.Credentials{}, err
	}
	c := m.opts.Managed.admin
	c.Database = prefix + lower.EncodeToString(store[6:]) // the random part of the id
	c.User, c.Password = c.Database, credential.NewPassword()
	return c, nil
}

// NewManagedOn does what NewManaged does for a database of one engine. It fails with
// invalid_request if the operator has no such server.
func (m *Manager) NewManagedOn(ctx context.Context, store stoa.StoreID, engine credential.EngineName) (credential.Credentials, error) {
	if engine == credential.SQLite {
		return credential.ManagedSQLite(store), nil
	}
	if m.opts.Managed == nil || m.opts.Managed.admin.Engine != engine {
		var faults stoa.Invalid
		faults.Add("engine", "this platform has no server of this engine for managed databases")
		return credential.Credentials{}, faults.Err()
	}
	return m.NewManaged(ctx, store)
}

// ManagedEngine returns the engine of the managed databases that NewManaged returns.
func (m *Manager) ManagedEngine() credential.EngineName {
	if m.opts.Managed == nil {
		return credential.SQLite
	}
	return m.opts.Managed.admin.Engine
}

// managedPrefix returns the prefix of the names of this installation's
// databases.
func (m *Manager) managedPrefix(ctx context.Context) (string, error) {
	const query = `SELECT id FROM installation`
	var id string
	err := m.master.Get(ctx, &id, query)
	if errors.Is(err, masterdb.ErrNotFound) {
		var fresh [5]byte
		_, _ = rand.Read(fresh[:]) // Read never fails
		err = m.master.Tx(ctx, func(tx *masterdb.Tx) error {
			if _, err := tx.Exec(ctx, `INSERT INTO installation (one, id) VALUES (true, $1) ON CONFLICT (one) DO NOTHING`,
				lower.EncodeToString(fresh[:])); err != nil {
				return err
			}
			return tx.Get(ctx, &id, query)
		})
	}
	return "stoa_" + id + "_", err
}

// MakeManaged creates the database and the role that c names, or completes a
// run that was interrupted. Afterwards the role has c's password. For an
// embedded database, it creates the file and applies the built-in migrations.
// For every other kind of database, it does nothing. Its error is for the
// store's owner; the cause is for the operator.
func (m *Manager) MakeManaged(ctx context.Context, c credential.Credentials) error {
	switch {
	case c.Kind != credential.Managed:
		return nil
	case c.Engine == credential.SQLite:
		return m.makeFile(c)
	}
	err := m.onServer(c.Engine, c.Host, c.Port, c.Database, func(h host, db *DB) error { return h.make(ctx, db, c) })
	if err != nil {
		return stoa.Errorf(stoa.DatabaseUnreachable,
			"The platform's own database server could not make the database. Try again; if it persists, tell the operator.").WithCause(err)
	}
	return nil
}

func (m *Manager) makeFile(c credential.Credentials) error {
	e := sqliteEngine{dir: m.opts.DataDir}
	err := e.make(c)
	if fault := e.Fault(err); fault != nil {
		return fault
	}
	return err
}

// DropManaged removes a managed database with its role, or its files. It does
// nothing to a merchant's own database. It succeeds if the database is already
// gone.
func (m *Manager) DropManaged(ctx context.Context, store stoa.StoreID, info Info) error {
	switch {
	case info.Kind != credential.Managed:
		return nil
	case info.Engine == credential.SQLite:
		return m.removeFiles(store)
	}
	return m.onServer(info.Engine, info.Host, info.Port, info.DatabaseName, func(h host, db *DB) error {
		return h.drop(ctx, db, info.DatabaseName)
	})
}

// onServer calls fn with a connection of the operator's user to the server of a
// managed database.
func (m *Manager) onServer(engine credential.EngineName, address string, port int, name string, fn func(host, *DB) error) error {
	server := m.opts.Managed
	if !managedName.MatchString(name) {
		return fmt.Errorf("%.80q is not the name of a managed database", name)
	}
	at := net.JoinHostPort(address, strconv.Itoa(port))
	if server == nil {
		return fmt.Errorf("STOA_MANAGED_DATABASE_URL is not set, but %s is on %s at %s", name, engine, at)
	}
	if server.admin.Engine != engine || !strings.EqualFold(server.admin.Host, address) || server.admin.Port != port {
		return fmt.Errorf("%s is on %s at %s, but STOA_MANAGED_DATABASE_URL names %s", name, engine, at, server)
	}
	return m.withAdmin(fn)
}

func (m *Manager) withAdmin(fn func(host, *DB) error) error {
	admin := m.opts.Managed.admin
	db, err := m.newDB(admin, nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	db.sqlx.SetMaxOpenConns(1)
	return fn(hosts[admin.Engine], db)
}

// WithServerTLS returns c with the current TLS settings of the operator's
// server, if c is a managed database on it.
func (m *Manager) WithServerTLS(c credential.Credentials) credential.Credentials {
	if s := m.opts.Managed; s != nil && c.Kind == credential.Managed && serverOf(c) == serverOf(s.admin) {
		c.TLS, c.CACertificate = s.admin.TLS, s.admin.CACertificate
	}
	return c
}
