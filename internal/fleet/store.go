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
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// recordTimeout limits the recording of a result. The store's own timeout may already
// have expired.
const recordTimeout = 15 * time.Second

// migrateStore migrates a store and records the result. The record of a store whose run
// was stopped does not change: its database has only complete versions of the migration,
// and the next run continues from there.
func (s *Service) migrateStore(ctx context.Context, st Store, target tenantdb.Schema, opts MigrateOptions) (result Result) {
	begin := time.Now()
	result = Result{Store: st, Schema: st.Schema}
	defer func() { result.Duration = time.Since(begin) }()
	var a attempt
	// A panic of the driver must not end the process and every other migration.
	err := stoa.CatchPanic(func() error { return a.run(ctx, s, st, target, opts) })
	if err == nil && a.current {
		result.State, result.Schema = Current, a.registered.Schema
		return result
	}
	if err != nil && ctx.Err() != nil {
		s.abandon(ctx, st.ID, a.registered.Version)
		result.State, result.Message = Interrupted, "The run was stopped."
		return result
	}
	registered, reached := a.registered, a.reached
	outcome := tenantdb.MigrationStatus{CredentialVersion: registered.Version, Schema: reached}
	result.State = Migrated
	if err != nil {
		result.State = Failed
		outcome.Code, outcome.Message = cause(err)
		s.log.WarnContext(ctx, "store not migrated", "store", st.ID.String(), "code", string(outcome.Code), "err", err)
		s.logPanic(ctx, st.ID, err)
	}
	if recordErr := s.record(ctx, st.ID, outcome, err); recordErr != nil {
		s.log.ErrorContext(ctx, "migration result not recorded", "store", st.ID.String(), "err", recordErr)
		if err == nil {
			result.State = Failed
			outcome.Code, outcome.Message = stoa.Internal, "The outcome could not be recorded in the master database. Run this again."
		}
	}
	result.Code, result.Message = outcome.Code, outcome.Message
	result.Schema = tenantdb.Schema{Version: max(st.Schema.Version, reached.Version), Own: max(st.Schema.Own, reached.Own)}
	return result
}

// attempt is the progress of one attempt to migrate a store. It is complete up to
// the point where the attempt fails or panics.
type attempt struct {
	registered tenantdb.Registered
	current    bool // the schema is not behind the target
	reached    tenantdb.Schema
}

// run counts the attempt in the registry and migrates the store.
func (a *attempt) run(ctx context.Context, s *Service, st Store, target tenantdb.Schema, opts MigrateOptions) (err error) {
	if a.registered, err = s.tenants.Read(ctx, s.db, st.ID); err != nil {
		return err
	}
	if a.current = !behind(a.registered.Schema, target); a.current {
		return nil
	}
	err = s.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.BeginMigration(ctx, tx, st.ID, a.registered.Version) })
	if err != nil {
		return err
	}
	a.reached, err = s.migrate(ctx, st, a.registered.Credentials, opts)
	return err
}

// migrate migrates the database of the credentials within the store's timeout.
func (s *Service) migrate(ctx context.Context, st Store, c credential.Credentials, opts MigrateOptions) (tenantdb.Schema, error) {
	ctx, cancel := context.WithTimeout(ctx, opts.Timeout)
	defer cancel()
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return tenantdb.Schema{}, err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := db.PinSession(ctx, st.ID); err != nil {
		return tenantdb.Schema{}, err
	}
	return db.MigrateTo(ctx, tenantdb.MigrateOptions{To: opts.To, Before: func(ctx context.Context, db *tenantdb.DB) error {
		return checkHoldsStore(ctx, db, st.ID)
	}})
}

// checkHoldsStore fails for a database that does not contain the store.
func checkHoldsStore(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) error {
	ids, err := storedata.StoreIDs(ctx, db)
	var known *stoa.Error
	switch {
	case errors.As(err, &known):
		return err
	case err != nil:
		in, inspectErr := db.Inspect(ctx)
		if inspectErr == nil && !slices.Contains(in.Tables, "stores") {
			return errStoreMissing()
		}
		return err
	case len(ids) == 0:
		return errStoreMissing()
	case len(ids) != 1 || ids[0] != store:
		return storedata.ErrForeignStore
	}
	return nil
}

func errStoreMissing() error {
	return stoa.Errorf(stoa.DatabaseNotEmpty, "The database does not hold this store, so it was left alone. Rotate the store's credentials to the database that does.")
}

// maxCause is the maximum length of a server's message that is kept, in bytes.
const maxCause = 500

// cause returns why a migration failed, for the operator.
func cause(err error) (stoa.Code, string) {
	var known *stoa.Error
	var panicked *stoa.Panic
	var partial *goose.PartialError
	switch {
	case errors.As(err, &known) && known.Code == stoa.MigrationFailed && known.Cause != nil: // its message is for the merchant
		return known.Code, printable(known.Cause.Error())
	case errors.As(err, &known) && (known.Code != stoa.TenantError || !errors.As(err, &partial)): // otherwise the failed statement explains more
		return known.Code, printable(known.Message)
	case errors.As(err, &panicked):
		return stoa.Internal, "The platform failed to process an answer of this database. The log has the details."
	case errors.As(err, &partial) && partial.Failed != nil:
		return stoa.MigrationFailed, printable(fmt.Sprintf("%s: %v", partial.Failed.Source.Path, partial.Failed.Error))
	case errors.Is(err, context.DeadlineExceeded):
		return stoa.MigrationFailed, "The migration took longer than a store may take."
	}
	return stoa.MigrationFailed, printable(err.Error())
}

// printable returns a server's message without control characters, at most
// maxCause bytes of it.
func printable(s string) string {
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

// abandon subtracts a migration that was stopped cleanly from the count. If that fails,
// it counts as one whose process died.
func (s *Service) abandon(ctx context.Context, store stoa.StoreID, version int64) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	if err := s.db.Tx(ctx, func(tx *masterdb.Tx) error { return tenantdb.AbandonMigration(ctx, tx, store, version) }); err != nil {
		s.log.WarnContext(ctx, "stopped migration counts as failed", "store", store.String(), "err", err)
	}
}

// logPanic logs the stack of err if it is a panic.
func (s *Service) logPanic(ctx context.Context, store stoa.StoreID, err error) {
	var p *stoa.Panic
	if errors.As(err, &p) {
		s.log.ErrorContext(ctx, "panic in the use of a store's database", "store", store.String(), "panic", p.Error(), "stack", string(p.Stack))
	}
}

// record records the result of a migration and, from fault, the database's health.
func (s *Service) record(ctx context.Context, store stoa.StoreID, o tenantdb.MigrationStatus, fault error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTimeout)
	defer cancel()
	return s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		if err := tenantdb.RecordMigration(ctx, tx, store, o); err != nil {
			return err
		}
		// A failure of the migration alone says nothing about the database's health.
		if o.Code == stoa.MigrationFailed || o.Code == stoa.Internal {
			return nil
		}
		return tenantdb.RecordHealthOf(ctx, tx, store, o.CredentialVersion, fault)
	})
}
