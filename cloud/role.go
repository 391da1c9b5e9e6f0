package cloud

import (
	"fmt"
	"regexp"
	"strings"

	"github.com/stoahq/stoa/keyring"
	"github.com/stoahq/stoa/tenantdb"
)

// roleName is all that may ever be put into the statement below.
var roleName = regexp.MustCompile(`^stoa_[a-z2-7]{16}$`)

// roleStatement makes a role with that password and a schema of the same name,
// or completes what there is of them: one statement, which is done as a whole
// or not at all. The role may do everything in its schema, and elsewhere what
// everybody may. Nobody else may see into the schema: of the roles that the
// project's own API has, those are named to whom a project's owner may have
// given rights to all that comes.
//
// The server is sent what it would make of the password, so that no log of its
// can hold it.
func roleStatement(role string, password keyring.Secret) (string, error) {
	if !roleName.MatchString(role) {
		return "", fmt.Errorf("%.80q is not the name of a store's role", role)
	}
	verifier, err := tenantdb.ScramVerifier(password)
	if err != nil {
		return "", err
	}
	return strings.NewReplacer("@role", role, "@verifier", verifier).Replace(`DO $stoa$
DECLARE
	other text;
BEGIN
	IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = '@role') THEN
		ALTER ROLE "@role" LOGIN PASSWORD '@verifier';
	ELSE
		CREATE ROLE "@role" LOGIN NOCREATEDB NOCREATEROLE PASSWORD '@verifier';
	END IF;
	GRANT "@role" TO CURRENT_USER;
	CREATE SCHEMA IF NOT EXISTS "@role" AUTHORIZATION "@role";
	ALTER ROLE "@role" SET search_path = '@role';
	REVOKE ALL ON SCHEMA "@role" FROM PUBLIC;
	FOR other IN SELECT rolname FROM pg_catalog.pg_roles WHERE rolname IN ('anon', 'authenticated', 'service_role') LOOP
		EXECUTE format('REVOKE ALL ON SCHEMA "@role" FROM %I', other);
	END LOOP;
END
$stoa$`), nil
}
