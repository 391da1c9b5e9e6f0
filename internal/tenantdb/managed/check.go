package managed

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
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
func (d *Databases) CheckServer(ctx context.Context) (version string, err error) {
	err = d.withAdmin(func(h host, db *tenantdb.DB) (err error) {
		db.LimitConnections(2) // to distinguish a pooler from a server
		if err := db.PinSession(ctx, stoa.NewID[stoa.StoreID]()); err != nil {
			return err
		}
		db.LimitConnections(1)
		if version, err = h.check(ctx, db); err != nil {
			return err
		}
		if db.FoundPooler() == credential.TransactionPooler {
			version += ", behind a connection pooler in transaction mode"
		}
		return d.tryServer(ctx, h, db)
	})
	return version, err
}

func (d *Databases) tryServer(ctx context.Context, h host, db *tenantdb.DB) (err error) {
	var random [10]byte
	_, _ = rand.Read(random[:]) // Read never fails
	c := d.server().Admin
	c.Database = trialPrefix + credential.NamePart(random[:])
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
	if err := d.enter(ctx, c); err != nil {
		return fmt.Errorf("a database was made to try it, and its role cannot use it: %w", serverWords(err))
	}
	return nil
}

// enter connects to a managed database as its store does, and uses it.
func (d *Databases) enter(ctx context.Context, c credential.Credentials) error {
	db, err := d.tenants.OpenUnleased(c)
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

// checkRelease returns an error for a release of a server that is too old.
func checkRelease(r tenantdb.Release) error {
	if r.Supported() {
		return nil
	}
	return fmt.Errorf("the server runs %s %.40s; at least %s is needed", r.Product, r.Version, r.Minimum)
}
