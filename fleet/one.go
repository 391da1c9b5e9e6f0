package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/shop"
	"github.com/stoahq/stoa/tenantdb"
)

// recordTimeout bounds the recording of an outcome, for which the store's
// own time may have run out.
const recordTimeout = 15 * time.Second

// one migrates a store and records how that ended. A store whose run was
// stopped stays as recorded before: what the database holds of the migration
// is whole versions, and the next run goes on from there.
func (s *Service) one(ctx context.Context, st Store, target tenantdb.Schema, opts MigrateOptions) (result Result) {
	begin := time.Now()
	result = Result{Store: st, Schema: st.Schema}
	defer func() { result.Duration = time.Since(begin) }()
	registered, err := s.tenants.Read(ctx, s.db, st.ID)
	if err == nil && !behind(registered.Schema, target) {
		result.State, result.Schema = Current, registered.Schema
		return result
	}
	reached := tenantdb.Schema{}
	if err == nil {
		reached, err = s.migrate(ctx, st, registered.Credentials, opts)
	}
	if err != nil && ctx.Err() != nil {
		result.State, result.Message = Interrupted, "The run was stopped."
		return result
	}
	outcome := tenantdb.Outcome{CredentialVersion: registered.Version, Schema: reached}
	result.State = Migrated
	if err != nil {
		result.State = Failed
		outcome.Code, outcome.Message = cause(err)
		s.log.WarnContext(ctx, "store not migrated", "store", st.ID.String(), "code", string(outcome.Code), "err", err)
	}
	if recordErr := s.record(ctx, st.ID, outcome, err); recordErr != nil {
		s.log.ErrorContext(ctx, "outcome of a migration not recorded", "store", st.ID.String(), "err", recordErr)
		if err == nil {
			result.State = Failed
			outcome.Code, outcome.Message = stoa.Internal, "The outcome could not be recorded in the master database. Run this again."
		}
	}
	result.Code, result.Message = outcome.Code, outcome.Message
	result.Schema = tenantdb.Schema{Version: max(st.Schema.Version, reached.Version), Own: max(st.Schema.Own, reached.Own)}
	return result
}

// migrate works on the database that c leads to, for as long as a store has.
func (s *Service) migrate(ctx context.Context, st Store, c tenantdb.Credentials, opts MigrateOptions) (tenantdb.Schema, error) {
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return tenantdb.Schema{}, err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	return db.MigrateTo(ctx, tenantdb.MigrateOptions{To: opts.To, Before: func(ctx context.Context, db *tenantdb.DB) error {
		return checkOwn(ctx, db, st.ID)
	}})
}

// checkOwn refuses a database that does not hold the store.
func checkOwn(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) error {
	ids, err := shop.StoreIDs(ctx, db)
	var known *stoa.Error
	switch {
	case errors.As(err, &known):
		return err
	case err != nil:
		in, inspectErr := db.Inspect(ctx)
		if inspectErr == nil && !slices.Contains(in.Tables, "stores") {
			return notHeld()
		}
		return err
	case len(ids) == 0:
		return notHeld()
	case len(ids) != 1 || ids[0] != store:
		return shop.ErrForeignStore
	}
	return nil
}

func notHeld() error {
	return stoa.Errorf(stoa.DatabaseNotEmpty, "The database does not hold this store, so it was left alone. Rotate the store's credentials to the database that does.")
}

// maxCause is how much of a server's words is kept, in bytes.
const maxCause = 500

// cause says why a migration failed, for the operator.
func cause(err error) (stoa.Code, string) {
	var known *stoa.Error
	var partial *goose.PartialError
	switch {
	case errors.As(err, &known):
		return known.Code, known.Message
	case errors.As(err, &partial) && partial.Failed != nil:
		return tenantdb.MigrationFailed, words(fmt.Sprintf("%s: %v", partial.Failed.Source.Path, partial.Failed.Error))
	case errors.Is(err, context.DeadlineExceeded):
		return tenantdb.MigrationFailed, "The migration took longer than a store may take."
	}
	return tenantdb.MigrationFailed, words(err.Error())
}

// words are a server's, without what a terminal or a table could stumble on.
func words(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) > maxCause {
		s = strings.ToValidUTF8(s[:maxCause], "") + " …"
	}
	return s
}

func (s *Service) record(ctx context.Context, store stoa.StoreID, o tenantdb.Outcome, fault error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := tenantdb.RecordMigration(ctx, tx, store, o); err != nil {
			return err
		}
		// What only the migration met says nothing about the database's health.
		if o.Code == tenantdb.MigrationFailed || o.Code == stoa.Internal {
			return nil
		}
		return tenantdb.RecordHealthOf(ctx, tx, store, o.CredentialVersion, fault)
	})
}
