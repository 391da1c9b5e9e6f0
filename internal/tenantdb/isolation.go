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

// Isolation says where a store's tables go in a database that an HTTP API has a
// way to. The zero value is where the credentials lead.
type Isolation struct {
	// Role is that of the store, which has a schema of the same name; "" when
	// the credentials' own role and schema will do.
	Role   string
	suffix string // of a user's name at the pooler that the credentials go through
}

// PlanIsolation looks at the database that db is connected to and says where
// the store's tables go in it. Without an HTTP API they go where the
// credentials lead. With one, the store gets a role and a schema of its own,
// unless
//   - the credentials are those of that role,
//   - the current schema holds the store from before there were such schemas, or
//   - the connected role may make no roles and has a schema other than public.
//
// It fails with database_exposed when there is no place but public.
func (m *Manager) PlanIsolation(ctx context.Context, db *DB, store stoa.StoreID) (Isolation, error) {
	serves, err := db.ServesAPI(ctx)
	if err != nil || !serves {
		return Isolation{}, err
	}
	var at struct {
		SessionUser string
		Schema      string
		MakesRoles  bool
		HasMarker   bool
		HasStores   bool
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
		return Isolation{role, m.userSuffix(db.credentials, at.SessionUser)}, nil
	case at.Schema != publicSchema && at.Schema != "":
		return Isolation{}, nil
	}
	return Isolation{}, stoa.Errorf(stoa.DatabaseExposed, "This role's tables would be in the schema public, which the project's HTTP API shows. "+
		"Use the connection string of the project's role postgres, which can give the store a schema of its own; or make one for this role: "+
		"CREATE SCHEMA shop AUTHORIZATION the_role; ALTER ROLE the_role SET search_path = shop.")
}

// holdsStore reports whether the current schema holds the store. One from
// before there were markers, or a copy that lost it, is known by its own row.
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

// ignoreMarked: what is another store's does not hold this one.
func ignoreMarked(err error) error {
	if errors.Is(err, ErrMarked) {
		return nil
	}
	return err
}

// userSuffix is what a pooler wants behind a role's name to find the project.
func (m *Manager) userSuffix(c credential.Credentials, sessionUser string) string {
	if c.Kind != credential.KindSupabase {
		suffix, _ := strings.CutPrefix(c.User, sessionUser)
		if suffix == c.User { // the pooler's user has another name at the server
			return ""
		}
		return suffix
	}
	if _, direct := m.opts.Supabase.WithDefaults().DirectRef(c.Host); direct {
		return ""
	}
	return "." + m.ProjectRef(c)
}

// Isolate makes the role and the schema that in plans, or completes what there
// is of them, and returns the credentials that lead there. The role has the
// password afterwards. db is connected as a role that may make roles.
func (m *Manager) Isolate(ctx context.Context, db *DB, in Isolation, password keyring.Secret) (credential.Credentials, error) {
	statement, err := RoleStatement(in.Role, password)
	if err != nil {
		return credential.Credentials{}, err
	}
	if _, err := db.Exec(ctx, statement); err != nil {
		if isState(err, "42501") {
			return credential.Credentials{}, stoa.Errorf(stoa.DatabasePermissionDenied, "No role for the store could be made in the project's database. "+
				"Use the connection string of the role postgres; it must be allowed to make roles and schemas, as it is unless somebody changed it.").WithCause(err)
		}
		return credential.Credentials{}, err
	}
	c := db.credentials
	c.Schema = "" // the role has its own
	c.User, c.Password, c.RolePassword = in.Role+in.suffix, password, keyring.Secret{}
	return c, nil
}

// Isolated reports whether the store's own schema in the database that db is
// connected to holds the store, and how far its migrations are. It changes
// nothing, and works for whoever may read that schema.
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
