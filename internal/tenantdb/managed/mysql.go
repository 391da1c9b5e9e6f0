package managed

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type mysqlHost struct{}

// mysqlRights are the rights that a store's role has in its database: all
// rights except GRANT OPTION and EVENT.
const mysqlRights = `SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE TEMPORARY TABLES, LOCK TABLES,
	CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE`

func (h mysqlHost) make(ctx context.Context, db *tenantdb.DB, c credential.Credentials) error {
	if err := h.activateRoles(ctx, db); err != nil {
		return err
	}
	user := "'" + c.User + "'@'%'"
	if err := h.makeUser(ctx, db, user, "'"+c.Password.Reveal()+"'"); err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE DATABASE IF NOT EXISTS `" + c.Database + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
		// In a grant, an underscore matches any character unless it is escaped.
		"GRANT " + mysqlRights + " ON `" + strings.ReplaceAll(c.Database, "_", `\_`) + "`.* TO " + user,
	} {
		if _, err := db.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// makeUser creates a user with that password, or sets the password of an existing user.
func (h mysqlHost) makeUser(ctx context.Context, db statements, user, password string) error {
	_, err := db.Exec(ctx, `CREATE USER `+user+` IDENTIFIED BY `+password)
	if !tenantdb.IsMySQL(err, cannotUser, inHistory) {
		return err
	}
	return h.alterUser(ctx, db, user, password)
}

const cannotUser, inHistory = 1396, 3638 // ER_CANNOT_USER, ER_CREDENTIALS_CONTRADICT_TO_HISTORY

// alterUser sets a user's password. A server with a password history rejects the
// password that a user already has, which happens after an execution that was
// interrupted. The passwords are random, so the rejected password is the current one. If
// it were not, the next connection as that user would be refused.
func (mysqlHost) alterUser(ctx context.Context, db statements, user, password string) error {
	_, err := db.Exec(ctx, `ALTER USER `+user+` IDENTIFIED BY `+password)
	if tenantdb.IsMySQL(err, cannotUser, inHistory) { // the first number is MariaDB's
		return nil
	}
	return err
}

// activateRoles activates, for the session, the roles of the operator's user
// that are not default roles. MySQL activates all roles at once. MariaDB has no
// ALL and activates one role at a time, so on MariaDB a user with several roles
// needs a default role. A server that returns an error has no roles to
// activate; later statements report the rights that are missing.
func (mysqlHost) activateRoles(ctx context.Context, db *tenantdb.DB) error {
	_, err := db.Exec(ctx, `SET ROLE ALL`)
	if err == nil || !isMySQLError(err) {
		return err
	}
	var roles []string
	err = db.Select(ctx, &roles, `SELECT role_name AS role_name FROM information_schema.applicable_roles
		WHERE grantee = current_user() AND current_role() IS NULL`)
	if err == nil && len(roles) == 1 {
		_, err = db.Exec(ctx, "SET ROLE `"+strings.ReplaceAll(roles[0], "`", "``")+"`")
	}
	if isMySQLError(err) {
		return nil
	}
	return err
}

// isMySQLError reports whether the server itself reported err.
func isMySQLError(err error) bool {
	var answer *mysql.MySQLError
	return errors.As(err, &answer)
}

func (h mysqlHost) drop(ctx context.Context, db *tenantdb.DB, name string) error {
	if err := h.activateRoles(ctx, db); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, "DROP DATABASE IF EXISTS `"+name+"`"); err != nil {
		return err
	}
	for _, role := range []string{credential.Credentials{User: name}.Role(credential.ReadAccess), name} {
		if _, err := db.Exec(ctx, `DROP USER IF EXISTS '`+role+`'@'%'`); err != nil {
			return err
		}
	}
	return nil
}

// list omits the users if the operator's user may not read them.
func (h mysqlHost) list(ctx context.Context, db *tenantdb.DB, prefix string) (names []string, err error) {
	if err := h.activateRoles(ctx, db); err != nil {
		return nil, err
	}
	err = db.Select(ctx, &names, `SELECT schema_name AS name FROM information_schema.schemata WHERE left(schema_name, ?) = ?`, len(prefix), prefix)
	if err != nil {
		return nil, err
	}
	var users []string
	err = db.Select(ctx, &users, `SELECT user AS name FROM mysql.user WHERE left(user, ?) = ? AND host = '%'`, len(prefix), prefix)
	if tenantdb.IsMySQL(err, 1142, 1143) { // table or column access denied
		err = nil
	}
	names = append(names, users...)
	slices.Sort(names)
	return slices.Compact(names), err
}

func (mysqlHost) check(ctx context.Context, db *tenantdb.DB) (string, error) {
	var version string
	if err := db.Get(ctx, &version, `SELECT version()`); err != nil {
		return "", err
	}
	release := tenantdb.MySQLRelease(version)
	if err := checkRelease(release); err != nil {
		return "", err
	}
	return release.Product + " " + version, nil
}

func (mysqlHost) rights() string {
	return "its user needs GRANT ALL PRIVILEGES ON *.* TO … WITH GRANT OPTION, its own or through a role: SET DEFAULT ROLE … where it has several"
}
