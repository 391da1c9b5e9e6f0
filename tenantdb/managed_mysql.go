package tenantdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

type mysqlHost struct{}

// mysqlRights are what a store's role may do in its database: all there is
// but to pass it on, and events.
const mysqlRights = `SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX, REFERENCES, CREATE TEMPORARY TABLES, LOCK TABLES,
	CREATE VIEW, SHOW VIEW, TRIGGER, CREATE ROUTINE, ALTER ROUTINE, EXECUTE`

func (mysqlHost) make(ctx context.Context, db *DB, c Credentials) error {
	user, password := "'"+c.User+"'@'%'", "'"+c.Password.Reveal()+"'"
	for _, statement := range []string{
		`CREATE USER IF NOT EXISTS ` + user + ` IDENTIFIED BY ` + password,
		`ALTER USER ` + user + ` IDENTIFIED BY ` + password,
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

func (mysqlHost) drop(ctx context.Context, db *DB, name string) error {
	if _, err := db.Exec(ctx, "DROP DATABASE IF EXISTS `"+name+"`"); err != nil {
		return err
	}
	_, err := db.Exec(ctx, `DROP USER IF EXISTS '`+name+`'@'%'`)
	return err
}

// list leaves out the users where the operator's user may not read them.
func (mysqlHost) list(ctx context.Context, db *DB, prefix string) (names []string, err error) {
	err = db.Select(ctx, &names, `SELECT schema_name AS name FROM information_schema.schemata WHERE left(schema_name, ?) = ?`, len(prefix), prefix)
	if err != nil {
		return nil, err
	}
	var users []string
	err = db.Select(ctx, &users, `SELECT user AS name FROM mysql.user WHERE left(user, ?) = ? AND host = '%'`, len(prefix), prefix)
	var denied *mysql.MySQLError
	if errors.As(err, &denied) && (denied.Number == 1142 || denied.Number == 1143) { // table or column access denied
		err = nil
	}
	names = append(names, users...)
	slices.Sort(names)
	return slices.Compact(names), err
}

// check wants the rights to be the user's own: those of a role do not show.
func (mysqlHost) check(ctx context.Context, db *DB) (string, error) {
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
	var rights []string
	err := db.Select(ctx, &rights, `SELECT privilege_type AS privilege_type FROM information_schema.user_privileges
		WHERE grantee = concat('''', replace(current_user(), '@', '''@'''), '''') AND is_grantable = 'YES'`)
	if err != nil {
		return "", err
	}
	for _, right := range []string{"CREATE", "CREATE USER", "DROP"} {
		if !slices.Contains(rights, right) {
			return "", errors.New("its user may not create databases and users: GRANT ALL PRIVILEGES ON *.* TO … WITH GRANT OPTION")
		}
	}
	return name + " " + version, nil
}
