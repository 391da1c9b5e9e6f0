package provisioning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/access"
	"github.com/stoahq/stoa/masterdb"
	"github.com/stoahq/stoa/tenantdb"
)

// examineTimeout bounds one look at a database.
const examineTimeout = 20 * time.Second

// Finding is what a test of a database found.
type Finding struct {
	Latency       time.Duration   // of one round trip, once connected
	ServerVersion string          // the server's own words
	Schema        tenantdb.Schema // of version 0 where the tables of a store are not
	Fault         *Fault          // nil when the store can work with this database

	// Warnings are what the owner should know of a database that works: who else
	// may read it.
	Warnings []tenantdb.Warning
}

// Test looks at a database without changing it: the store's own, whose
// health it then records, or the one that given leads to. Would the store
// accept it? One that is at work accepts only a database that holds it, one
// that waits for a database also an empty one.
//
// What is wrong with the database is in the finding. The error is for what
// kept the test from being made: invalid_request for credentials that cannot
// be, store_pending_database without any to test.
func (s *Service) Test(ctx context.Context, p access.Principal, store stoa.StoreID, given *tenantdb.Credentials) (Finding, error) {
	if _, err := access.Check(ctx, s.db, p, store, access.TestDatabase); err != nil {
		return Finding{}, err
	}
	atWork := s.registry.Connected(ctx, store) == nil
	if given != nil {
		c := *given
		if err := s.checkOwn(&c); err != nil {
			return Finding{}, err
		}
		found, err := s.find(ctx, store, c, atWork)
		return found, s.recordLook(ctx, access.DatabaseTested, p, store, c, err, found.Fault.Err())
	}
	info, err := tenantdb.ReadInfo(ctx, s.db, store)
	if err != nil {
		return Finding{}, err
	}
	c, err := s.tenants.Load(ctx, s.db, store)
	if err != nil {
		return Finding{}, err
	}
	found, err := s.find(ctx, store, c, atWork)
	if err := s.recordLook(ctx, access.DatabaseTested, p, store, c, err, found.Fault.Err()); err != nil {
		return Finding{}, err
	}
	if found.Fault != nil && c.Kind == tenantdb.KindSupabase {
		if fault := s.opts.Cloud.ProjectFault(ctx, store, found.Fault.Err()); fault != nil {
			found.Fault = faultOf(fault)
		}
	}
	return found, s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tenantdb.RecordHealthOf(ctx, tx, store, info.CredentialVersion, found.Fault.Err())
	})
}

// recordLook writes a look at a database, with what was found wrong, to the
// audit log: the platform has connected to an address of the caller's choice.
// It is written when the caller has gone, too. It returns err, which kept the
// look from being made, or what kept the entry from being written.
func (s *Service) recordLook(ctx context.Context, action string, p access.Principal, store stoa.StoreID, c tenantdb.Credentials, err, fault error) error {
	e := access.Event{Action: action, Store: store, Details: map[string]string{"type": string(c.Kind)}}
	if c.Host != "" {
		e.Details["host"], e.Details["port"] = fmt.Sprintf("%.253s", c.Host), strconv.Itoa(c.Port)
	}
	if cause := cmp.Or(err, fault); cause != nil {
		e.Outcome, e.Details["code"] = access.Failed, string(stoa.CodeOf(cause))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return cmp.Or(err, s.db.Tx(ctx, func(tx *masterdb.Tx) error { return access.Record(ctx, tx, p, e) }))
}

// checkOwn completes credentials of a merchant's own database, or says what
// is wrong with them.
func (s *Service) checkOwn(c *tenantdb.Credentials) error {
	if c.Kind == tenantdb.Managed {
		var faults stoa.Invalid
		faults.Add("type", "a managed database is Stoa's own: it has no credentials to give")
		return faults.Err()
	}
	return s.tenants.Validate(c)
}

// find is examine with a fault as its result.
func (s *Service) find(ctx context.Context, store stoa.StoreID, c tenantdb.Credentials, atWork bool) (Finding, error) {
	var warnings []tenantdb.Warning
	found, err := s.examine(ctx, store, c, atWork, func(ctx context.Context, db *tenantdb.DB) error {
		warnings = append(s.warnings(ctx, db, store), s.exposure(ctx, db, store)...)
		return nil
	})
	found.Warnings = warnings
	if err == nil {
		return found, nil
	}
	var known *stoa.Error
	if !errors.As(err, &known) && tenantdb.ServerFault(err) == nil {
		return Finding{}, err
	}
	found.Fault = faultOf(err)
	s.log.InfoContext(ctx, "database test failed", "store", store.String(), "code", string(found.Fault.Code), "err", err)
	return found, nil
}

// examine looks at the database behind c and then calls also, unless that is
// nil. Its error says why the store cannot work with this database. A driver
// that panics at what the server sends is such an error.
func (s *Service) examine(ctx context.Context, store stoa.StoreID, c tenantdb.Credentials, atWork bool, also func(context.Context, *tenantdb.DB) error) (found Finding, err error) {
	err = stoa.CatchPanic(func() (err error) {
		found, err = s.look(ctx, store, c, atWork, also)
		return tenantdb.MissingRow(err)
	})
	s.logPanic(ctx, "panic in a database test", err, "store", store.String())
	return found, err
}

// look is examine without care for panics.
func (s *Service) look(ctx context.Context, store stoa.StoreID, c tenantdb.Credentials, atWork bool, also func(context.Context, *tenantdb.DB) error) (Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, examineTimeout)
	defer cancel()
	var found Finding
	db, err := s.tenants.OpenUnleased(c)
	if err != nil {
		return found, err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	if err := db.Ping(ctx); err != nil {
		return found, err
	}
	begin := time.Now()
	if err := db.Ping(ctx); err != nil {
		return found, err
	}
	found.Latency = time.Since(begin)
	isolation, err := s.tenants.PlanIsolation(ctx, db, store)
	if err != nil {
		return found, err
	}
	if isolation.Role == "" {
		if err := db.PinSession(ctx, store); err != nil {
			return found, err
		}
	}
	in, err := db.Inspect(ctx)
	if err != nil {
		return found, err
	}
	found.ServerVersion = fmt.Sprintf("%.100s", in.Version) // whatever the server says

	if isolation.Role != "" { // the store's tables are, or will be, where these credentials do not lead
		in.MayCreate, in.Tables = true, nil
	}
	if err := acceptable(in); err != nil {
		return found, err
	}
	if isolation.Role != "" {
		held, schema, err := db.Isolated(ctx, store)
		if err == nil && atWork && !held {
			err = errNotHeld()
		}
		found.Schema = schema
		return found, err
	}
	if err := ownable(ctx, db, in, store); err != nil {
		return found, err
	}
	if slices.Contains(in.Tables, tenantdb.VersionTable) {
		if found.Schema.Version, err = db.SchemaVersion(ctx); err != nil {
			return found, err
		}
	}
	if slices.Contains(in.Tables, tenantdb.CustomVersionTable) {
		if found.Schema.Own, err = db.CustomVersion(ctx); err != nil {
			return found, err
		}
	}
	if atWork {
		if err := checkHeld(ctx, db, in, store); err != nil {
			return found, err
		}
	}
	if also == nil {
		return found, nil
	}
	return found, also(ctx, db)
}

// warnings says who else may read the store's database. That this cannot be
// found out does not keep a store from its database.
func (s *Service) warnings(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) []tenantdb.Warning {
	all, err := db.Warnings(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "readers of a database unknown", "store", store.String(), "err", err)
	}
	return all
}

// exposure is the warning that the HTTP API of a Supabase project can reach the
// store's tables, if it can.
func (s *Service) exposure(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) []tenantdb.Warning {
	err := db.ProveClosed(ctx)
	var known *stoa.Error
	switch {
	case errors.As(err, &known) && known.Code == stoa.DatabaseExposed:
		return []tenantdb.Warning{{Code: known.Code, Message: known.Message}}
	case err != nil:
		s.log.WarnContext(ctx, "exposure of a database unknown", "store", store.String(), "err", err)
	}
	return nil
}

// checkHeld refuses a database that does not hold the store.
func checkHeld(ctx context.Context, db *tenantdb.DB, in tenantdb.Inspection, store stoa.StoreID) error {
	if !slices.Contains(in.Tables, "stores") {
		return errNotHeld()
	}
	held, err := holds(ctx, db, store)
	if err == nil && !held {
		return errNotHeld()
	}
	return err
}

func errNotHeld() error {
	return stoa.Errorf(stoa.InvalidRequest, "This database does not hold the store. New credentials must lead to the store's own data: "+
		"to rotate them does not move a store.")
}
