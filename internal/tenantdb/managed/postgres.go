package managed

import (
	"context"
	"errors"
	"fmt"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type postgresHost struct{}

// make lets nobody connect before the rights are set: PostgreSQL gives every
// role the right to connect to a new database.
func (h postgresHost) make(ctx context.Context, db *tenantdb.DB, c credential.Credentials) error {
	if err := h.makeRole(ctx, db, c); err != nil {
		return err
	}
	owner, err := h.owner(ctx, db, c.Database)
	if errors.Is(err, tenantdb.ErrNotFound) {
		owner = c.User
		_, err = db.Exec(ctx, `CREATE DATABASE "`+c.Database+`" OWNER "`+c.User+`" TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false`)
		if tenantdb.IsState(err, "42P04") { // duplicate_database: another process works on the same run
			owner, err = h.owner(ctx, db, c.Database)
		}
	}
	if err != nil {
		return err
	}
	if owner != c.User {
		return errForeign(c.Database, owner)
	}
	if _, err := db.Exec(ctx, `REVOKE ALL ON DATABASE "`+c.Database+`" FROM PUBLIC`); err != nil {
		return err
	}
	_, err = db.Exec(ctx, `ALTER DATABASE "`+c.Database+`" WITH ALLOW_CONNECTIONS true`)
	return err
}

// makeRole sends the password in the form in which the server stores it, so
// that no log of the server contains the password.
func (h postgresHost) makeRole(ctx context.Context, db *tenantdb.DB, c credential.Credentials) error {
	verifier, err := credential.ScramVerifier(c.Password)
	if err != nil {
		return err
	}
	_, err = db.Exec(ctx, `CREATE ROLE "`+c.User+`" LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD '`+verifier+`'`)
	if tenantdb.IsState(err, "42710") { // duplicate_object
		_, err = db.Exec(ctx, `ALTER ROLE "`+c.User+`" LOGIN PASSWORD '`+verifier+`'`)
	}
	if err != nil {
		return err
	}
	return h.join(ctx, db, c.User)
}

// join lets the operator's user inherit from a role and become it. A user who
// is no superuser can make only a role that it may become the owner of a
// database, and can change and drop a database only if it inherits from the
// owner. Since PostgreSQL 16, both are options of the membership, and the
// member's attribute INHERIT is only the default for the inherit option.
func (postgresHost) join(ctx context.Context, db statements, role string) error {
	var admin struct{ Super, Options bool }
	err := db.Get(ctx, &admin, `SELECT rolsuper AS super, current_setting('server_version_num')::int >= 160000 AS options
		FROM pg_catalog.pg_roles WHERE rolname = current_user`)
	if err != nil || admin.Super {
		return err
	}
	grant := `GRANT "` + role + `" TO CURRENT_USER`
	if admin.Options {
		grant += ` WITH INHERIT TRUE, SET TRUE`
	}
	_, err = db.Exec(ctx, grant)
	return err
}

// owner returns the name of the database's owner, or tenantdb.ErrNotFound.
func (postgresHost) owner(ctx context.Context, db *tenantdb.DB, name string) (string, error) {
	var owner string
	err := db.Get(ctx, &owner, `SELECT r.rolname FROM pg_catalog.pg_database d JOIN pg_catalog.pg_roles r ON r.oid = d.datdba
		WHERE d.datname = ?`, name)
	return owner, err
}

func errForeign(name, owner string) error {
	return fmt.Errorf("the database %s belongs to %q: it was not made by this platform", name, owner)
}

func (h postgresHost) drop(ctx context.Context, db *tenantdb.DB, name string) error {
	owner, err := h.owner(ctx, db, name)
	switch {
	case errors.Is(err, tenantdb.ErrNotFound):
	case err != nil:
		return err
	case owner != name:
		return errForeign(name, owner)
	default:
		// An older release, which did not need what join does, may have created
		// the database. If the user may not grant the membership, the next
		// statement reports it.
		if err := h.join(ctx, db, name); err != nil && !tenantdb.IsState(err, "42501") {
			return err
		}
	}
	_, err = db.Exec(ctx, `DROP DATABASE IF EXISTS "`+name+`" WITH (FORCE)`)
	if tenantdb.IsState(err, "42501") {
		// An autovacuum worker is in the database. It has no role, so that only a superuser may
		// end it by FORCE; the plain statement makes it end, and waits for it
		// (TerminateOtherDBBackends and CountOtherDBBackends in PostgreSQL's procarray.c).
		_, err = db.Exec(ctx, `DROP DATABASE IF EXISTS "`+name+`"`)
	}
	if err != nil {
		return err
	}
	for _, role := range []string{credential.Credentials{User: name}.Role(credential.ReadAccess), name} {
		if _, err := db.Exec(ctx, `DROP ROLE IF EXISTS "`+role+`"`); err != nil {
			return err
		}
	}
	return nil
}

func (postgresHost) list(ctx context.Context, db *tenantdb.DB, prefix string) (names []string, err error) {
	err = db.Select(ctx, &names, `SELECT datname FROM pg_catalog.pg_database WHERE starts_with(datname::text, ?)
		UNION SELECT rolname FROM pg_catalog.pg_roles WHERE starts_with(rolname::text, ?) ORDER BY 1`, prefix, prefix)
	return names, err
}

func (postgresHost) check(ctx context.Context, db *tenantdb.DB) (string, error) {
	var row struct {
		Version   string
		Databases bool
		Roles     bool
		Inherits  bool
	}
	err := db.Get(ctx, &row, `SELECT current_setting('server_version') AS version, rolsuper OR rolcreatedb AS databases,
		rolsuper OR rolcreaterole AS roles, rolsuper OR rolinherit OR current_setting('server_version_num')::int >= 160000 AS inherits FROM pg_catalog.pg_roles WHERE rolname = current_user`)
	if err == nil {
		err = checkRelease(tenantdb.PostgresRelease(row.Version))
	}
	switch {
	case err != nil:
		return "", err
	case !row.Databases || !row.Roles:
		return "", errors.New("its user may not create databases and roles: ALTER ROLE … CREATEDB CREATEROLE")
	case !row.Inherits:
		return "", errors.New("its user cannot drop the databases that it makes: ALTER ROLE … INHERIT")
	}
	return "PostgreSQL " + row.Version, nil
}

func (postgresHost) rights() string {
	return "its user needs ALTER ROLE … CREATEDB CREATEROLE INHERIT"
}
