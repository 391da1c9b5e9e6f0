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

// trialPrefix begins the names of the databases that CheckServer makes. It is
// that of no installation: Orphans does not list them.
const trialPrefix = "stoa_selftest_"

// trialDrop bounds the removal of what CheckServer has made, for which the
// caller's own time may have run out.
const trialDrop = 30 * time.Second

// CheckServer returns the version of the operator's server, or why no databases
// can be made there. It tries it: it makes a database with its role, enters it as
// that role, and drops both. What it could not drop its error names.
func (m *Manager) CheckServer(ctx context.Context) (version string, err error) {
	err = m.withAdmin(func(h host, db *DB) (err error) {
		db.sqlx.SetMaxOpenConns(2) // to tell a pooler from a server
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
	_, _ = rand.Read(random[:]) // it never fails
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

// enter uses a managed database as its store does.
func (m *Manager) enter(ctx context.Context, c credential.Credentials) error {
	db, err := m.newDB(c, nil)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	if err := db.Ping(ctx); err != nil {
		return err
	}
	in, err := db.Inspect(ctx)
	if err == nil && !in.MayCreate {
		err = errors.New("it may not create tables")
	}
	return err
}

// serverWords is the server's own answer where err holds one: the operator is
// to be told more than a store's owner.
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
