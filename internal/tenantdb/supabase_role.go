package tenantdb

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
)

// SupabaseRole names the role that a store has in a project, and its schema.
func SupabaseRole(store stoa.StoreID) string {
	return "stoa_" + lower.EncodeToString(store[6:]) // the part of the id that is random
}

// roleName is all that may ever be put into the statement below.
var roleName = regexp.MustCompile(`^stoa_[a-z2-7]{16}$`)

// RoleStatement returns the statement that makes a role with that password and
// a schema of the same name, or completes what exists of them. It is one
// statement, which takes effect as a whole or not at all; of two at the same
// moment the second waits. The role may do everything in its schema, and elsewhere what every role may. PUBLIC and
// the roles of the project's HTTP API have no right to the schema and get none
// to what the role creates: what the project's owner granted to them for all
// schemas is revoked. The search path is a setting of the role, so it holds
// behind every pooler without any state of a session.
//
// The statement holds the password only as the server stores it, so that no
// log of the server's can hold the password.
func RoleStatement(role string, password keyring.Secret) (string, error) {
	if !roleName.MatchString(role) {
		return "", fmt.Errorf("%.80q is not the name of a store's role", role)
	}
	verifier, err := ScramVerifier(password)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("@role", role, "@verifier", verifier).Replace(`DO $stoa$
DECLARE
	other text;
BEGIN
	PERFORM pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtext('@role'));
	IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '@role') THEN
		ALTER ROLE "@role" LOGIN PASSWORD '@verifier';
	ELSE
		CREATE ROLE "@role" LOGIN NOCREATEDB NOCREATEROLE PASSWORD '@verifier';
	END IF;
	IF pg_catalog.current_setting('server_version_num')::int >= 160000 THEN
		EXECUTE 'GRANT "@role" TO CURRENT_USER WITH INHERIT TRUE, SET TRUE';
	ELSE
		GRANT "@role" TO CURRENT_USER;
	END IF;
	CREATE SCHEMA IF NOT EXISTS "@role" AUTHORIZATION "@role";
	ALTER ROLE "@role" SET search_path = '@role';
	ALTER DEFAULT PRIVILEGES FOR ROLE "@role" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
	REVOKE ALL ON SCHEMA "@role" FROM PUBLIC;
	FOR other IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
		EXECUTE format('REVOKE ALL ON SCHEMA "@role" FROM %I', other);
		EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE "@role" REVOKE ALL ON TABLES FROM %I', other);
		EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE "@role" REVOKE ALL ON SEQUENCES FROM %I', other);
		EXECUTE format('ALTER DEFAULT PRIVILEGES FOR ROLE "@role" REVOKE ALL ON FUNCTIONS FROM %I', other);
	END LOOP;
END
$stoa$`), nil
}
