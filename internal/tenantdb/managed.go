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

// Server is the operator's PostgreSQL or MySQL/MariaDB server, on which Stoa creates
// managed databases: for each store a database and a role of the same name, which has
// all rights there and none elsewhere. Unlike a merchant's server it is trusted: the
// dialer may reach it at any address.
type Server struct {
	admin credential.Credentials // of one who may create databases and roles
}

// ParseServer reads "postgres://user:password@host:port/" or "mysql://…", with
// sslmode as in a merchant's connection string; ca is PEM or empty. Its error
// never quotes the URL.
func ParseServer(raw keyring.Secret, ca string) (*Server, error) {
	engine, database := credential.PostgreSQL, "postgres"
	u, err := url.Parse(strings.TrimSpace(raw.Reveal()))
	if err == nil && credential.EngineOfScheme(u.Scheme) == credential.MySQL {
		engine, database = credential.MySQL, "information_schema" // everybody may enter it
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

// String names the server without its credentials.
func (s *Server) String() string {
	return fmt.Sprintf("%s at %s", s.admin.Engine, net.JoinHostPort(s.admin.Host, strconv.Itoa(s.admin.Port)))
}

// host administers the operator's server, by engine. Every operation can be repeated
// after an interruption.
type host interface {
	// make leaves a database with a role of the same name and c's password.
	make(ctx context.Context, db *DB, c credential.Credentials) error
	// drop leaves neither.
	drop(ctx context.Context, db *DB, name string) error
	// list names all databases and roles that begin with prefix.
	list(ctx context.Context, db *DB, prefix string) ([]string, error)
	// Check returns the server's version, or why nothing can be made there as far
	// as that can be told without trying.
	Check(ctx context.Context, db *DB) (string, error)
	// rights says what lets the operator's user do all this.
	rights() string
}

var hosts = map[credential.EngineName]host{credential.PostgreSQL: postgresHost{}, credential.MySQL: mysqlHost{}}

// managedName is what MySQL takes as a user's name too (32 characters), and
// all that may ever be put into the statements below.
var managedName = regexp.MustCompile(`^stoa_[a-z2-7]{8}_[a-z2-7]{16}$`)

// lower is base32 in lower case: letters and digits that no engine folds.
var lower = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// NewManaged returns the credentials of a managed database that MakeManaged
// can make: on the operator's server, with a password of its own, or without
// one an embedded database.
func (m *Manager) NewManaged(ctx context.Context, store stoa.StoreID) (credential.Credentials, error) {
	if m.opts.Managed == nil {
		return credential.ManagedSQLite(store), nil
	}
	prefix, err := m.managedPrefix(ctx)
	if err != nil {
		return credential.Credentials{}, err
	}
	c := m.opts.Managed.admin
	c.Database = prefix + lower.EncodeToString(store[6:]) // the part of the id that is random
	c.User, c.Password = c.Database, credential.NewPassword()
	return c, nil
}

// managedPrefix begins the names of this installation's databases.
func (m *Manager) managedPrefix(ctx context.Context) (string, error) {
	const query = `SELECT id FROM installation`
	var id string
	err := m.master.Get(ctx, &id, query)
	if errors.Is(err, masterdb.ErrNotFound) {
		var fresh [5]byte
		_, _ = rand.Read(fresh[:]) // it never fails
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

// MakeManaged makes the database and the role that c names, or completes what
// an interruption left; the role has c's password afterwards. Of an embedded
// one it makes the file, with the built-in migrations in it. For every other
// kind of database there is nothing to do. Its error is for the store's owner;
// the cause is the operator's.
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

// DropManaged removes a managed database with its role, or its files, and does
// nothing to a merchant's own. What is gone already is no error.
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

// onServer runs fn with a connection of the operator's to the server that a
// managed database is on.
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
	defer db.Close() //nolint:errcheck // nothing is pending
	db.sqlx.SetMaxOpenConns(1)
	return fn(hosts[admin.Engine], db)
}

// withServerTLS returns c with the TLS settings that the operator's server has now, if c
// is a managed database there.
func (m *Manager) withServerTLS(c credential.Credentials) credential.Credentials {
	if s := m.opts.Managed; s != nil && c.Kind == credential.Managed && serverOf(c) == serverOf(s.admin) {
		c.TLS, c.CACertificate = s.admin.TLS, s.admin.CACertificate
	}
	return c
}
