package tenantdb

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// trialPrefix is the prefix of the names of the databases that CheckServer
// creates. No installation has this prefix, so Orphans does not list them.
const trialPrefix = "stoa_selftest_"

// trialDrop limits the time to remove what CheckServer has created. It is
// independent of the caller's deadline, which may have passed.
const trialDrop = 30 * time.Second

// CheckServer returns the version of the operator's server, or an error if no
// databases can be created there. It creates a database with its role, connects
// to it as that role, and drops both. Its error names what could not be
// dropped.
func (m *Manager) CheckServer(ctx context.Context) (version string, err error) {
	err = m.withAdmin(func(h host, db *DB) (err error) {
		db.sqlx.SetMaxOpenConns(2) // to distinguish a pooler from a server
		if err := db.PinSession(ctx, stoa.NewID[stoa.StoreID]()); err != nil {
			return err
		}
		db.sqlx.SetMaxOpenConns(1)
		if version, err = h.Check(ctx, db); err != nil {
			return err
		}
		if db.pinned.poolerOf(db.credentials) == credential.TransactionPooler {
			version += ", behind a connection pooler in transaction mode"
		}
		return m.tryServer(ctx, h, db)
	})
	return version, err
}

func (m *Manager) tryServer(ctx context.Context, h host, db *DB) (err error) {
	var random [10]byte
	_, _ = rand.Read(random[:]) // Read never fails
	c := m.opts.Managed.admin
	c.Database = trialPrefix + lower.EncodeToString(random[:])
	c.User, c.Password = c.Database, credential.NewPassword()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), trialDrop)
		defer cancel()
		if dropErr := h.drop(ctx, db, c.Database); dropErr != nil {
			dropErr = fmt.Errorf("%s, made to try it, could not be dropped: %w; %s", c.Database, serverWords(dropErr), h.rights())
			err = errors.Join(err, dropErr)
		}
	}()
	if err := h.make(ctx, db, c); err != nil {
		return fmt.Errorf("a database and its role could not be made to try it: %w; %s", serverWords(err), h.rights())
	}
	if err := m.enter(ctx, c); err != nil {
		return fmt.Errorf("a database was made to try it, and its role cannot use it: %w", serverWords(err))
	}
	return nil
}

// enter connects to a managed database as its store does, and uses it.
func (m *Manager) enter(ctx context.Context, c credential.Credentials) error {
	db, err := m.newDB(c, nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	if err := db.Ping(ctx); err != nil {
		return err
	}
	in, err := db.Inspect(ctx)
	if err == nil && !in.MayCreate {
		err = errors.New("it may not create tables")
	}
	return err
}

// serverWords returns the server's own message if err contains one: the
// operator sees more details than a store's owner.
func serverWords(err error) error {
	var pgErr *pgconn.PgError
	var myErr *mysql.MySQLError
	switch {
	case errors.As(err, &pgErr):
		return pgErr
	case errors.As(err, &myErr):
		return myErr
	}
	return err
}
