package tenantdb

import (
	"context"
	"fmt"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

func (h postgresHost) setPassword(ctx context.Context, db *DB, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) error {
	verifier, err := ScramVerifier(password)
	if err != nil {
		return err
	}
	role := c.Role(a)
	return db.Tx(ctx, func(tx *Tx) error {
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
func (h postgresHost) makeReader(ctx context.Context, tx *Tx, database, role string) error {
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

func (postgresHost) now(ctx context.Context, db *DB) (mark string, err error) {
	err = db.Get(ctx, &mark, `SELECT extract(epoch FROM clock_timestamp())::text`)
	return mark, err
}

// endSessions takes a session without a state for one that works: the server shows the
// state to members of the role only.
func (h postgresHost) endSessions(ctx context.Context, db *DB, role, mark string, which SessionKind) (found int, err error) {
	err = db.Get(ctx, &found, `SELECT count(CASE
			WHEN ? = 2 OR ? = 1 AND state = 'idle' THEN pg_terminate_backend(pid) ELSE true END)
		FROM pg_catalog.pg_stat_activity WHERE usename = ? AND backend_start < to_timestamp(?::text::float8)`,
		int(which), int(which), role, mark)
	return found, err
}
