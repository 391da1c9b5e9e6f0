package provisioning

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/audit"
	"github.com/stoahq/stoa/internal/authz"
	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// preflightTimeout limits the duration of one preflight of a database.
const preflightTimeout = 20 * time.Second

// Finding is the result of a preflight of a database.
type Finding struct {
	Latency       time.Duration   // of one round trip on an open connection
	ServerVersion string          // the server's own text
	Schema        tenantdb.Schema // version 0 without the tables of a store
	Fault         *Fault          // nil when the store can work with this database

	// Warnings tell the owner who else can read a usable database.
	Warnings []tenantdb.Warning

	// Adoption says what would be made beside other tables. It is set for credentials
	// with Adopt that lead to a database without a store.
	Adoption *tenantdb.Adoption
}

// Test checks a database without changing it: the store's own, whose health it then
// records, or the one of the given credentials. A store that has a database accepts only
// a database that contains it. A store that waits for a database also accepts an empty
// one.
//
// Faults of the database are in the finding. The error is for what prevented the test:
// invalid_request for malformed credentials, store_pending_database when there are no
// credentials to test.
func (s *Service) Test(ctx context.Context, p authz.Principal, store stoa.StoreID, given *credential.Credentials) (Finding, error) {
	if _, err := authz.Check(ctx, s.db, p, store, authz.TestDatabase); err != nil {
		return Finding{}, err
	}
	check := preflight{store: store, atWork: s.registry.CheckConnected(ctx, store) == nil}
	if given != nil {
		check.credentials = *given
		if err := s.checkOwn(&check.credentials); err != nil {
			return Finding{}, err
		}
		found, err := s.test(ctx, check)
		return found, s.recordPreflight(ctx, audit.DatabaseTested, p, check, err, found.Fault.Err())
	}
	info, err := tenantdb.ReadInfo(ctx, s.db, store)
	if err != nil {
		return Finding{}, err
	}
	if check.credentials, err = s.tenants.Load(ctx, s.db, store); err != nil {
		return Finding{}, err
	}
	found, err := s.test(ctx, check)
	if err := s.recordPreflight(ctx, audit.DatabaseTested, p, check, err, found.Fault.Err()); err != nil {
		return Finding{}, err
	}
	if found.Fault != nil && check.credentials.Kind == credential.KindSupabase {
		if fault := s.opts.Cloud.ProjectFault(ctx, store, found.Fault.Err()); fault != nil {
			found.Fault = FaultOf(fault)
		}
	}
	return found, s.db.Tx(ctx, func(tx *masterdb.Tx) error {
		return tenantdb.RecordHealthOf(ctx, tx, store, info.CredentialVersion, found.Fault.Err())
	})
}

// recordPreflight writes a preflight, with its fault, to the audit log, since the
// platform has connected to an address of the caller's choice. It writes the entry even
// when the caller's ctx has ended. It returns err, which prevented the preflight, or the
// error of the write.
func (s *Service) recordPreflight(ctx context.Context, action string, p authz.Principal, check preflight, err, fault error) error {
	c := check.credentials
	e := audit.Event{Action: action, Store: check.store, Details: map[string]string{"type": string(c.Kind)}}
	if c.Host != "" {
		e.Details["host"], e.Details["port"] = fmt.Sprintf("%.253s", c.Host), strconv.Itoa(c.Port)
	}
	if cause := cmp.Or(err, fault); cause != nil {
		e.Outcome, e.Details["code"] = audit.Failed, string(stoa.CodeOf(cause))
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	return cmp.Or(err, s.db.Tx(ctx, func(tx *masterdb.Tx) error { return audit.Record(ctx, tx, p, e) }))
}

// checkOwn completes the credentials of a merchant's own database. It fails when they are
// malformed.
func (s *Service) checkOwn(c *credential.Credentials) error {
	if c.Kind == credential.Managed {
		var faults stoa.Invalid
		faults.Add("type", "a managed database is Stoa's own: it has no credentials to give")
		return faults.Err()
	}
	return s.tenants.Validate(c)
}

// preflight checks whether a store can use a database.
type preflight struct {
	store       stoa.StoreID
	credentials credential.Credentials
	atWork      bool // the store has a database: only one that contains it is accepted
	rotation    bool // the credentials replace others: they must have permission to write
}

// test runs the preflight and returns a fault of the database in the finding.
func (s *Service) test(ctx context.Context, check preflight) (Finding, error) {
	found, err := s.runPreflight(ctx, check)
	if err == nil {
		return found, nil
	}
	var known *stoa.Error
	if !errors.As(err, &known) && tenantdb.ServerFault(err) == nil {
		return Finding{}, err
	}
	found.Fault = FaultOf(err)
	s.log.InfoContext(ctx, "database test failed", "store", check.store.String(), "code", string(found.Fault.Code), "err", err)
	return found, nil
}

// runPreflight runs the preflight. Its error is the reason why the store cannot use this
// database. A panic of the driver, caused by the server's data, becomes such an error.
func (s *Service) runPreflight(ctx context.Context, check preflight) (found Finding, err error) {
	err = stoa.CatchPanic(func() (err error) {
		found, err = s.inspect(ctx, check)
		if err == nil && !check.atWork && !check.rotation {
			err = s.tenants.CheckCustomMigrations(check.credentials.Engine)
		}
		return tenantdb.MissingRow(err)
	})
	s.logPanic(ctx, "panic in a database test", err, "store", check.store.String())
	return found, err
}

// inspect connects to the database and checks it.
func (s *Service) inspect(ctx context.Context, check preflight) (Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, preflightTimeout)
	defer cancel()
	var found Finding
	db, err := s.tenants.OpenUnleased(check.credentials)
	if err != nil {
		return found, err
	}
	defer db.Close() //nolint:errcheck // no statement is pending
	if err := db.Ping(ctx); err != nil {
		return found, err
	}
	begin := time.Now()
	if err := db.Ping(ctx); err != nil {
		return found, err
	}
	found.Latency = time.Since(begin)
	isolation, err := s.tenants.PlanIsolation(ctx, db, check.store)
	if err != nil {
		return found, err
	}
	if isolation.Role != "" {
		return check.inspectProject(ctx, db, found)
	}
	if err := db.PinSession(ctx, check.store); err != nil {
		return found, err
	}
	if found, err = check.inspectDatabase(ctx, db, found); err != nil {
		return found, err
	}
	if check.rotation {
		return found, checkWritable(ctx, db, check.store)
	}
	found.Warnings = append(s.readerWarnings(ctx, db, check.store), s.exposureWarnings(ctx, db, check.store)...)
	return found, nil
}

// inspectProject checks a database in a Supabase project, where the store's tables are,
// or will be, in a schema that these credentials do not use.
func (check preflight) inspectProject(ctx context.Context, db *tenantdb.DB, found Finding) (Finding, error) {
	in, err := db.Inspect(ctx)
	if err != nil {
		return found, err
	}
	found.ServerVersion = serverVersion(in)
	in.MayCreate = true
	if err := checkServer(in); err != nil {
		return found, err
	}
	held, schema, err := db.Isolated(ctx, check.store)
	if err == nil && check.atWork && !held {
		err = errNotHeld()
	}
	found.Schema = schema
	return found, err
}

// inspectDatabase checks a database that will contain the store's tables.
func (check preflight) inspectDatabase(ctx context.Context, db *tenantdb.DB, found Finding) (Finding, error) {
	in, err := db.Inspect(ctx)
	if err != nil {
		return found, err
	}
	found.ServerVersion = serverVersion(in)
	if err := checkServer(in); err != nil {
		return found, err
	}
	adopt := check.credentials.Adopt
	if adopt && !slices.Contains(in.Tables, tenantdb.VersionTable) {
		plan, err := db.PlanAdoption(ctx, in)
		if err != nil {
			return found, err
		}
		found.Adoption = &plan
	}
	if err := checkOwnership(ctx, db, in, check.store, adopt); err != nil {
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
	if check.atWork {
		err = checkHeld(ctx, db, in, check.store)
	}
	return found, err
}

// serverVersion limits the length of the version, since the server can send any text.
func serverVersion(in tenantdb.Inspection) string { return fmt.Sprintf("%.100s", in.Version) }

// checkWritable fails when the credentials have no permission to change the store's data.
func checkWritable(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) error {
	if err := storedata.ProveWritable(ctx, db, store); err != nil {
		return err
	}
	return db.SelfTest(ctx)
}

// readerWarnings returns warnings about others that can read the store's database. A
// failure to determine them does not make the database unusable.
func (s *Service) readerWarnings(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) []tenantdb.Warning {
	all, err := db.Warnings(ctx)
	if err != nil {
		s.log.WarnContext(ctx, "readers of a database unknown", "store", store.String(), "err", err)
	}
	return all
}

// exposureWarnings warn when the HTTP API of a Supabase project can reach the
// store's tables.
func (s *Service) exposureWarnings(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) []tenantdb.Warning {
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

// checkHeld fails for a database that does not contain the store.
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

// checkServer fails when the server's version, the user's permissions or the encoding do not
// suit a store.
func checkServer(in tenantdb.Inspection) error {
	switch {
	case !in.Supported:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The server runs version %.40q; at least %s is needed.", in.Version, in.Minimum)
	case !in.MayCreate:
		return stoa.Errorf(stoa.DatabasePermissionDenied,
			"The database user may not create tables. On PostgreSQL: GRANT CREATE, USAGE ON SCHEMA public TO the user.")
	case !in.Unicode:
		return stoa.Errorf(stoa.DatabaseVersionUnsupported, "The database keeps text as %.40q, which cannot hold every character. "+
			"Make one in UTF-8; on PostgreSQL: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0.", in.Encoding)
	}
	return nil
}

// checkOwnership fails for a database that belongs to another store or contains other
// tables. The store's own database has a marker. A database without a marker, created
// before markers existed or copied without it, is recognized by its content. With adopt,
// other tables are accepted unless the store needs one of their names.
func checkOwnership(ctx context.Context, db *tenantdb.DB, in tenantdb.Inspection, store stoa.StoreID, adopt bool) error {
	marked := false
	if slices.Contains(in.Tables, tenantdb.MarkerTable) {
		var err error
		if marked, err = db.Marked(ctx, store); err != nil {
			return foreignStore(err)
		}
	}
	if slices.Contains(in.Tables, tenantdb.VersionTable) {
		if slices.Contains(in.Tables, "stores") {
			_, err := holds(ctx, db, store)
			return err
		}
		return nil
	}
	if marked {
		return nil
	}
	if adopt {
		return checkClashes(ctx, db, in)
	}
	if others := slices.DeleteFunc(slices.Clone(in.Tables), func(t string) bool { return t == tenantdb.MarkerTable }); len(others) > 0 {
		return stoa.Errorf(stoa.DatabaseNotEmpty, "The database already holds other tables (%s). Give the store a database of its own.", listTables(others))
	}
	return nil
}

// checkClashes fails for a database that contains something under a name that the store
// needs.
func checkClashes(ctx context.Context, db *tenantdb.DB, in tenantdb.Inspection) error {
	plan, err := db.PlanAdoption(ctx, in)
	if err != nil || len(plan.Clashes) == 0 {
		return err
	}
	return stoa.Errorf(stoa.DatabaseNotEmpty, "The database already holds something under names that the store needs (%s). "+
		"Rename it there, choose another schema, or give the store a database of its own.", listTables(plan.Clashes))
}

// foreignStore explains the error for a database marked as another store's.
func foreignStore(err error) error {
	if errors.Is(err, tenantdb.ErrMarked) {
		return storedata.ErrForeignStore
	}
	return err
}

// holds reports whether the database contains the store. It fails for the database of
// another store.
func holds(ctx context.Context, db *tenantdb.DB, store stoa.StoreID) (bool, error) {
	ids, err := storedata.StoreIDs(ctx, db)
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		if id != store {
			return false, storedata.ErrForeignStore
		}
	}
	return len(ids) > 0, nil
}

// listTables formats the first table names. They are quoted, since a server's table names
// may contain any bytes.
func listTables(names []string) string {
	const few = 3
	var quoted []string
	for _, name := range names[:min(few, len(names))] {
		quoted = append(quoted, fmt.Sprintf("%.80q", name)) // the limit is above that of any server
	}
	list := strings.Join(quoted, ", ")
	if more := len(names) - few; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}
