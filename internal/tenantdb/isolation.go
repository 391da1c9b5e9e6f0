package tenantdb

import (
	"context"
	"errors"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// Isolation describes where a store's tables go in a database that an HTTP API
// may be able to reach. The zero value means the schema that the credentials
// lead to.
type Isolation struct {
	// Role is the store's role, which has a schema of the same name. It is ""
	// if the role and schema of the credentials are used.
	Role   string
	suffix string // of a user's name at the pooler that the credentials lead through
}

// PlanIsolation examines the database that db is connected to and returns where
// the store's tables go in it. Without an HTTP API they go where the
// credentials lead. With an HTTP API, the store gets its own role and schema,
// unless
//   - the credentials are those of that role,
//   - the current schema contains the store since before such schemas existed, or
//   - the connected role may not create roles and has a schema other than public.
//
// It fails with database_exposed if only the schema public is available.
func (m *Manager) PlanIsolation(ctx context.Context, db *DB, store stoa.StoreID) (Isolation, error) {
	serves, err := db.ServesAPI(ctx)
	if err != nil || !serves {
		return Isolation{}, err
	}
	var at struct {
		SessionUser string `db:"session_user"`
		Schema      string
		MakesRoles  bool `db:"makes_roles"`
		HasMarker   bool `db:"has_marker"`
		HasStores   bool `db:"has_stores"`
	}
	err = db.Get(ctx, &at, `WITH relation AS (SELECT relname FROM pg_catalog.pg_class
			WHERE relnamespace = (SELECT oid FROM pg_catalog.pg_namespace WHERE nspname = current_schema()))
		SELECT session_user::text AS session_user, coalesce(current_schema()::text, '') AS schema, rolcreaterole OR rolsuper AS makes_roles,
			EXISTS (SELECT FROM relation WHERE relname = '`+MarkerTable+`') AS has_marker,
			(SELECT count(*) = 2 FROM relation WHERE relname IN ('stores', '`+VersionTable+`')) AS has_stores
		FROM pg_catalog.pg_roles WHERE rolname = session_user`)
	if err != nil {
		return Isolation{}, err
	}
	role := SupabaseRole(store)
	if at.SessionUser == role {
		return Isolation{}, nil
	}
	if held, err := db.holdsStore(ctx, store, at.HasMarker, at.HasStores); err != nil || held {
		return Isolation{}, err
	}
	switch {
	case at.MakesRoles:
		return Isolation{Role: role, suffix: m.userSuffix(db.credentials, at.SessionUser)}, nil
	case at.Schema != publicSchema && at.Schema != "":
		return Isolation{}, nil
	}
	return Isolation{}, stoa.Errorf(stoa.DatabaseExposed, "This role's tables would be in the schema public, which the project's HTTP API shows. "+
		"Use the connection string of the project's role postgres, which can give the store a schema of its own; or make one for this role: "+
		"CREATE SCHEMA shop AUTHORIZATION the_role; ALTER ROLE the_role SET search_path = shop.")
}

// holdsStore reports whether the current schema contains the store. A schema
// from before there were markers, or a copy without its marker, is recognised
// by the store's own row.
func (db *DB) holdsStore(ctx context.Context, store stoa.StoreID, hasMarker, hasStores bool) (bool, error) {
	if hasMarker {
		marked, err := db.Marked(ctx, store)
		if err != nil || marked {
			return marked, ignoreMarked(err)
		}
	}
	if !hasStores {
		return false, nil
	}
	var n int
	err := db.Get(ctx, &n, `SELECT count(*) FROM stores WHERE id = ?`, store)
	return n > 0, err
}

// ignoreMarked returns nil for ErrMarked: a schema that is marked as another
// store's does not contain this one.
func ignoreMarked(err error) error {
	if errors.Is(err, ErrMarked) {
		return nil
	}
	return err
}

// userSuffix returns the suffix of a user's name by which a pooler finds the
// project.
func (m *Manager) userSuffix(c credential.Credentials, sessionUser string) string {
	if c.Kind != credential.KindSupabase {
		suffix, _ := strings.CutPrefix(c.User, sessionUser)
		if suffix == c.User { // the user's name at the pooler differs from the name at the server
			return ""
		}
		return suffix
	}
	if _, direct := m.opts.Supabase.WithDefaults().DirectRef(c.Host); direct {
		return ""
	}
	return "." + m.ProjectRef(c)
}

// Isolate creates the role and the schema that in plans, or completes a partial
// earlier run, and returns the credentials that lead there. It sets the role's
// password to password. db must be connected as a role that may create roles.
func (m *Manager) Isolate(ctx context.Context, db *DB, in Isolation, password keyring.Secret) (credential.Credentials, error) {
	statement, err := RoleStatement(in.Role, password)
	if err != nil {
		return credential.Credentials{}, err
	}
	if _, err := db.Exec(ctx, statement); err != nil {
		if IsState(err, "42501") {
			return credential.Credentials{}, stoa.Errorf(stoa.DatabasePermissionDenied, "No role for the store could be made in the project's database. "+
				"Use the connection string of the role postgres; it must be allowed to make roles and schemas, as it is unless somebody changed it.").WithCause(err)
		}
		return credential.Credentials{}, err
	}
	c := db.credentials
	c.Schema = "" // the role has its own schema
	c.User, c.Password, c.RolePassword = in.Role+in.suffix, password, keyring.Secret{}
	return c, nil
}

// Isolated reports whether the store's own schema in the database that db is
// connected to contains the store, and returns the schema version. It changes
// nothing. It works for any role that may read that schema.
func (db *DB) Isolated(ctx context.Context, store stoa.StoreID) (held bool, schema Schema, err error) {
	table := func(name string) string { return pgx.Identifier{SupabaseRole(store), name}.Sanitize() }
	var found struct{ Marker, Versions, Own bool }
	err = db.Get(ctx, &found, `SELECT to_regclass(?) IS NOT NULL AS marker, to_regclass(?) IS NOT NULL AS versions, to_regclass(?) IS NOT NULL AS own`,
		table(MarkerTable), table(VersionTable), table(CustomVersionTable))
	if err != nil || !found.Marker {
		return false, schema, err
	}
	if found.Versions {
		if err := db.Get(ctx, &schema.Version, `SELECT coalesce(max(version_id), 0) FROM `+table(VersionTable)); err != nil {
			return false, schema, err
		}
	}
	if found.Own {
		if err := db.Get(ctx, &schema.Own, `SELECT coalesce(max(version_id), 0) FROM `+table(CustomVersionTable)); err != nil {
			return false, schema, err
		}
	}
	var ids []string
	err = db.Select(ctx, &ids, `SELECT store_id FROM `+table(MarkerTable))
	return len(ids) == 1 && ids[0] == store.String() && schema.Version > 0, schema, err
}
