package tenantdb

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

type mysqlHost struct{}

// mysqlRights are what a store's role may do in its database: all there is
// but to pass it on, and events.
const mysqlRights = `SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE TEMPORARY TABLES, LOCK TABLES,
	CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE`

func (h mysqlHost) make(ctx context.Context, db *DB, c credential.Credentials) error {
	if err := h.activateRoles(ctx, db); err != nil {
		return err
	}
	user := "'" + c.User + "'@'%'"
	if err := h.makeUser(ctx, db, user, "'"+c.Password.Reveal()+"'"); err != nil {
		return err
	}
	for _, statement := range []string{
		"CREATE DATABASE IF NOT EXISTS `" + c.Database + "` CHARACTER SET utf8mb4 COLLATE utf8mb4_unicode_ci",
		// In a grant an underscore stands for any character, unless it is escaped.
		"GRANT " + mysqlRights + " ON `" + strings.ReplaceAll(c.Database, "_", `\_`) + "`.* TO " + user,
	} {
		if _, err := db.Exec(ctx, statement); err != nil {
			return err
		}
	}
	return nil
}

// makeUser makes a user with that password, or gives it to the user that exists.
// A server with a password history refuses the password that a user has already,
// as after an execution that was cut off. The passwords are random, so it is that
// one; were it not, the store's first connection would be refused.
func (mysqlHost) makeUser(ctx context.Context, db *DB, user, password string) error {
	const failed, inHistory = 1396, 3638 // ER_CANNOT_USER, ER_CREDENTIALS_CONTRADICT_TO_HISTORY
	_, err := db.Exec(ctx, `CREATE USER `+user+` IDENTIFIED BY `+password)
	if !isMySQL(err, failed, inHistory) {
		return err
	}
	_, err = db.Exec(ctx, `ALTER USER `+user+` IDENTIFIED BY `+password)
	if isMySQL(err, failed, inHistory) { // the first is MariaDB's
		return nil
	}
	return err
}

// activateRoles gives the session the rights that the operator's user has
// through roles that are not its default ones. MySQL activates all roles at once;
// MariaDB knows no ALL and has one role at a time, so there a user with several
// needs a default one. A server that refuses has no roles to give: what rights are
// missing the statements that need them say.
func (mysqlHost) activateRoles(ctx context.Context, db *DB) error {
	_, err := db.Exec(ctx, `SET ROLE ALL`)
	if err == nil || !isOfServer(err) {
		return err
	}
	var roles []string
	err = db.Select(ctx, &roles, `SELECT role_name AS role_name FROM information_schema.applicable_roles
		WHERE grantee = current_user() AND current_role() IS NULL`)
	if err == nil && len(roles) == 1 {
		_, err = db.Exec(ctx, "SET ROLE `"+strings.ReplaceAll(roles[0], "`", "``")+"`")
	}
	if isOfServer(err) {
		return nil
	}
	return err
}

func (h mysqlHost) drop(ctx context.Context, db *DB, name string) error {
	if err := h.activateRoles(ctx, db); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, "DROP DATABASE IF EXISTS `"+name+"`"); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `DROP USER IF EXISTS '`+name+`'@'%'`)
	return err
}

// list leaves out the users where the operator's user may not read them.
func (h mysqlHost) list(ctx context.Context, db *DB, prefix string) (names []string, err error) {
	if err := h.activateRoles(ctx, db); err != nil {
		return nil, err
	}
	err = db.Select(ctx, &names, `SELECT schema_name AS name FROM information_schema.schemata WHERE left(schema_name, ?) = ?`, len(prefix), prefix)
	if err != nil {
		return nil, err
	}
	var users []string
	err = db.Select(ctx, &users, `SELECT user AS name FROM mysql.user WHERE left(user, ?) = ? AND host = '%'`, len(prefix), prefix)
	if isMySQL(err, 1142, 1143) { // table or column access denied
		err = nil
	}
	names = append(names, users...)
	slices.Sort(names)
	return slices.Compact(names), err
}

func (mysqlHost) Check(ctx context.Context, db *DB) (string, error) {
	var version string
	if err := db.Get(ctx, &version, `SELECT version()`); err != nil {
		return "", err
	}
	name, minimum := "MySQL", minMySQL
	if strings.Contains(version, "MariaDB") {
		name, minimum = "MariaDB", minMariaDB
	}
	if !atLeast(version, minimum) {
		return "", fmt.Errorf("the server runs %s %.40s; at least %s is needed", name, version, minimum)
	}
	return name + " " + version, nil
}

func (mysqlHost) rights() string {
	return "its user needs GRANT ALL PRIVILEGES ON *.* TO … WITH GRANT OPTION, its own or through a role: SET DEFAULT ROLE … where it has several"
}
