package managed

import (
	"context"
	"fmt"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (h postgresHost) setPassword(ctx context.Context, db *tenantdb.DB, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) error {
	verifier, err := credential.ScramVerifier(password)
	if err != nil {
		return err
	}
	role := c.Role(a)
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(hashtextextended(?, 0))`, "stoa.password."+c.Database); err != nil {
			return err
		}
		if ok, err := current(); err != nil || !ok {
			return orSuperseded(err)
		}
		if a == credential.ReadAccess {
			if err := h.makeReader(ctx, tx, c.Database, role); err != nil {
				return err
			}
		}
		_, err := tx.Exec(ctx, `ALTER ROLE "`+role+`" LOGIN PASSWORD '`+verifier+`'`)
		return err
	})
}

func orSuperseded(err error) error {
	if err == nil {
		return ErrSuperseded
	}
	return err
}

// makeReader creates the role that may only read, or sets its limits again. The session
// may change the last three settings, but the role's rights let it write nothing.
func (h postgresHost) makeReader(ctx context.Context, tx *tenantdb.Tx, database, role string) error {
	var exists bool
	if err := tx.Get(ctx, &exists, `SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = ?)`, role); err != nil {
		return err
	}
	if !exists {
		if _, err := tx.Exec(ctx, `CREATE ROLE "`+role+`" NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS NOINHERIT`); err != nil {
			return err
		}
	}
	if err := h.join(ctx, tx, role); err != nil {
		return err
	}
	for _, statement := range []string{
		fmt.Sprintf(`ALTER ROLE %q CONNECTION LIMIT %d`, role, readerConnections),
		fmt.Sprintf(`GRANT CONNECT ON DATABASE %q TO %q`, database, role),
		fmt.Sprintf(`ALTER ROLE %q SET statement_timeout = '%ds'`, role, readerSeconds),
		fmt.Sprintf(`ALTER ROLE %q SET idle_in_transaction_session_timeout = '%ds'`, role, readerSeconds),
		fmt.Sprintf(`ALTER ROLE %q SET default_transaction_read_only = on`, role),
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// grantReader grants as the store's own role, which owns the tables.
func (h postgresHost) grantReader(ctx context.Context, d *Databases, c credential.Credentials) error {
	reader := c.Role(credential.ReadAccess)
	db, err := d.tenants.OpenUnleased(c)
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // no data is pending
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		// Two sessions that grant rights on one table at the same time fail.
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, grantLock); err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, readerGrants(reader)); err != nil {
			return err
		}
		return h.closeSchema(ctx, d, tx, c, reader)
	})
}

// grantLock is an arbitrary number that nothing else in a managed database locks.
const grantLock = 0x73746f6172 // "stoar"

// closeSchema takes the right to create tables in the schema public from everybody else.
// PostgreSQL grants it to all roles in the databases that releases before 15 create. The
// store's role does not own the schema there, and its REVOKE has no effect but a warning.
func (postgresHost) closeSchema(ctx context.Context, d *Databases, tx *tenantdb.Tx, c credential.Credentials, reader string) error {
	const query = `SELECT coalesce(bool_or(has_schema_privilege(?, oid, 'CREATE')), false) FROM pg_catalog.pg_namespace WHERE nspname = 'public'`
	var open bool
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	const revoke = `REVOKE CREATE ON SCHEMA public FROM PUBLIC`
	if _, err := tx.Exec(ctx, revoke); err != nil {
		return err
	}
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	admin := d.server().Admin
	admin.Database = c.Database
	at, err := d.tenants.OpenUnleased(admin)
	if err != nil {
		return err
	}
	defer at.Close() //nolint:errcheck // no data is pending
	for _, statement := range []string{`GRANT ALL ON SCHEMA public TO "` + c.User + `"`, revoke} {
		if _, err := at.Exec(ctx, statement); err != nil {
			return err
		}
	}
	if err := tx.Get(ctx, &open, query, reader); err != nil || !open {
		return err
	}
	return fmt.Errorf("every role may create tables in the schema public of %s: a superuser must run %s there", c.Database, revoke)
}

// readerGrants lets a role read the tables that the session's role owns, and those that it
// will create.
func readerGrants(role string) string {
	return fmt.Sprintf(`DO $$
		DECLARE found record;
		BEGIN
			FOR found IN SELECT n.nspname AS name FROM pg_catalog.pg_namespace n
				WHERE n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' AND pg_catalog.pg_has_role(n.nspowner, 'USAGE')
			LOOP
				EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %%I TO %%I', found.name, '%[1]s');
			END LOOP;
			FOR found IN SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
				WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
				AND pg_catalog.pg_has_role(c.relowner, 'USAGE')
			LOOP
				EXECUTE pg_catalog.format('GRANT SELECT ON %%I.%%I TO %%I', found.schema, found.name, '%[1]s');
			END LOOP;
			ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO "%[1]s";
			ALTER DEFAULT PRIVILEGES GRANT USAGE ON SCHEMAS TO "%[1]s";
		END $$`, role)
}

func (postgresHost) now(ctx context.Context, db *tenantdb.DB) (mark string, err error) {
	err = db.Get(ctx, &mark, `SELECT extract(epoch FROM clock_timestamp())::text`)
	return mark, err
}

// endSessions takes a session without a state for one that works: the server shows the
// state to members of the role only.
func (h postgresHost) endSessions(ctx context.Context, db *tenantdb.DB, role, mark string, which SessionKind) (found int, err error) {
	err = db.Get(ctx, &found, `SELECT count(CASE
			WHEN ? = 2 OR ? = 1 AND state = 'idle' THEN pg_terminate_backend(pid) ELSE true END)
		FROM pg_catalog.pg_stat_activity WHERE usename = ? AND backend_start < to_timestamp(?::text::float8)`,
		int(which), int(which), role, mark)
	return found, err
}
