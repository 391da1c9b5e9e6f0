package tenantdb

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// SupabaseRole returns the name of a store's role in a project, which is also
// the name of the store's schema.
func SupabaseRole(store stoa.StoreID) string {
	return "stoa_" + credential.NamePart(store[6:]) // the random part of the id
}

// roleName matches the only names that may be inserted into the statement
// below.
var roleName = regexp.MustCompile(`^stoa_[a-z2-7]{16}$`)

// RoleStatement returns the statement that creates a role with that password
// and a schema of the same name, or completes what exists of them. It is one
// statement, which takes effect as a whole or not at all. If two run at the
// same time, the second waits for the first. In its schema, the role has all
// rights; elsewhere, it has the rights that every role has. PUBLIC and the
// roles of the project's HTTP API have no right on the schema or on what the
// role creates: rights that the project's owner granted to them for all schemas
// are revoked. The search path is a setting of the role, so it applies behind
// every pooler without any session state.
//
// The statement contains the password only in the form in which the server
// stores it, so that no log of the server contains the password.
func RoleStatement(role string, password keyring.Secret) (string, error) {
	if !roleName.MatchString(role) {
		return "", fmt.Errorf("%.80q is not the name of a store's role", role)
	}
	verifier, err := credential.ScramVerifier(password)
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
