package imports

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/accounts"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/storedata"
	"github.com/stoahq/stoa/internal/stores"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// The columns of a file. Those of a store's profile have the names of its fields behind
// storePrefix.
const (
	ownerEmail   = "owner_email"
	ownerName    = "owner_name"
	ownerHash    = "owner_password_hash"
	database     = "database"
	engineColumn = "engine"
	adoptColumn  = "adopt"
	storePrefix  = "store_"
)

var (
	requiredColumns = []string{ownerEmail, storePrefix + "slug", storePrefix + "name"}
	profileColumns  = slices.Sorted(maps.Values(storedata.ProfileColumns())) // without storePrefix
	allColumns      = makeColumns()
)

func makeColumns() []string {
	all := []string{ownerEmail, ownerName, ownerHash, storePrefix + "slug", storePrefix + "name"}
	for _, column := range profileColumns {
		if !slices.Contains(all, storePrefix+column) {
			all = append(all, storePrefix+column)
		}
	}
	return append(all, database, engineColumn, adoptColumn)
}

func isColumn(name string) bool { return slices.Contains(allColumns, name) }

// record is what one line asks for.
type record struct {
	line     int
	owner    accounts.ImportedUser
	store    stores.NewStore
	profile  storedata.ProfilePatch // without name and slug
	database credential.Credentials
}

// own reports whether the database is the owner's own.
func (r record) own() bool { return r.database.Kind != credential.Managed }

// databaseKey identifies the place of the store's tables in its owner's own database, or
// is "" if other stores may have theirs beside them.
func (r record) databaseKey() string {
	c := r.database
	if !r.own() || c.Kind == credential.KindSupabase { // there each store gets a schema of its own
		return ""
	}
	place := fmt.Sprintf("%s %q %d %q %q", c.Engine, strings.ToLower(c.Host), c.Port, c.Database, c.Schema)
	if c.Engine == credential.PostgreSQL && c.Schema == "" {
		place += " " + c.User // the user's own schema
	}
	sum := sha256.Sum256([]byte(place))
	return string(sum[:16])
}

// decode checks the values of a row and returns what they ask for, or adds their faults to
// the row.
func (s *Service) decode(r *row, verified bool) record {
	rec := record{line: r.line}
	if len(r.faults) > 0 {
		return rec
	}
	rec.owner = accounts.ImportedUser{
		Email: r.values[ownerEmail], Name: r.values[ownerName], PasswordHash: keyring.NewSecret(r.values[ownerHash]), Verified: verified,
	}
	owner, err := rec.owner.Normalize()
	rec.owner = owner
	r.addFaults(err, map[string]string{"email": ownerEmail, "name": ownerName, "passwordHash": ownerHash})

	rec.store = stores.NewStore{Name: r.values[storePrefix+"name"], Slug: r.values[storePrefix+"slug"]}
	for _, column := range profileColumns {
		if value := r.values[storePrefix+column]; value != "" && column != "name" && column != "slug" {
			rec.profile.Set(column, value)
		}
	}
	columns := map[string]string{}
	for name, column := range storedata.ProfileColumns() {
		columns[name] = storePrefix + column
	}
	r.addFaults(s.registry.CheckImport(rec.store, rec.profile), columns)
	s.decodeDatabase(r, &rec)
	return rec
}

// addFaults adds the faults of fields, by the columns that have their values.
func (r *row) addFaults(err error, columns map[string]string) {
	if err == nil {
		return
	}
	var known *stoa.Error
	switch {
	case !errors.As(err, &known):
		r.fault("", "cannot be checked: %s", err)
	case len(known.Fields) == 0:
		r.fault("", "%s", known.Message)
	default:
		for _, f := range known.Fields {
			r.fault(columns[f.Field], "%s", f.Message)
		}
	}
}

const managed = string(credential.Managed)

func (s *Service) decodeDatabase(r *row, rec *record) {
	rec.database.Kind = credential.Managed
	given, engine, adopt := r.values[database], r.values[engineColumn], r.values[adoptColumn]
	if adopt != "" && adopt != "true" && adopt != "false" {
		r.fault(adoptColumn, "must be true or false")
		return
	}
	if given == "" || strings.EqualFold(given, managed) {
		if adopt == "true" {
			r.fault(adoptColumn, "is for a database of the owner's own: give its connection string")
		}
		if offered := string(s.tenants.ManagedEngine()); engine != "" && engine != offered {
			r.fault(engineColumn, "must be %s, which managed databases have here, or empty", offered)
		}
		return
	}
	if kinds := credential.OwnKinds(); engine != "" && !slices.Contains(kinds, engine) {
		r.fault(engineColumn, "must be %s, or empty: the connection string usually says it", strings.Join(kinds, ", "))
		return
	}
	pasted, err := s.tenants.ReadDetails(tenantdb.ConnectionDetails{
		Type: credential.Kind(engine), ConnectionString: keyring.NewSecret(given), Adopt: adopt == "true",
	})
	if err == nil {
		err = s.tenants.Validate(&pasted.Credentials)
	}
	rec.database = pasted.Credentials
	r.addFaults(err, map[string]string{"connectionString": database, "type": database, "adopt": adoptColumn, "host": database, "port": database})
}
