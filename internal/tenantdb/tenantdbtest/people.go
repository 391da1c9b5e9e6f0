package tenantdbtest

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// NewPassword changes the password of c's user at the server and returns
// credentials with the new one. Open connections stay open. c must come from
// Create and must not be SQLite's.
func NewPassword(t testing.TB, c credential.Credentials) credential.Credentials {
	t.Helper()
	password := rand.Text()
	exec, statement := execPostgres, fmt.Sprintf("ALTER ROLE %q PASSWORD '%s'", c.User, password)
	if c.Engine == credential.MySQL {
		exec, statement = execMySQL, fmt.Sprintf("ALTER USER '%s'@'%%' IDENTIFIED BY '%s'", c.User, password)
	}
	if err := exec([]string{statement}); err != nil {
		t.Fatal(err)
	}
	c.Password = keyring.NewSecret(password)
	return c
}

// Revoke makes c invalid: it changes the password, ends every connection of the
// user and returns credentials with the new password.
func Revoke(t testing.TB, c credential.Credentials) credential.Credentials {
	t.Helper()
	changed := NewPassword(t, c)
	var err error
	if c.Engine == credential.MySQL {
		err = killMySQL(c.User)
	} else {
		err = execPostgres([]string{fmt.Sprintf("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '%s'", c.User)})
	}
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func killMySQL(user string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	db, err := openMySQL()
	if err != nil {
		return err
	}
	defer db.Close() //nolint:errcheck // nothing is pending
	var list sql.NullString
	if err := db.QueryRowContext(ctx, `SELECT group_concat(id) FROM information_schema.processlist WHERE user = ?`, user).Scan(&list); err != nil {
		return err
	}
	for id := range strings.SplitSeq(list.String, ",") {
		if id != "" {
			_, _ = db.ExecContext(ctx, "KILL "+id) // the server has returned the number; the session may have ended meanwhile
		}
	}
	return nil
}

// Successor creates a second user of c's database with the rights of the first. c
// must come from Create and must not be SQLite's.
func Successor(t testing.TB, c credential.Credentials) credential.Credentials {
	t.Helper()
	successor := c
	successor.User = "stoa_h_" + strings.ToLower(rand.Text()[:14])
	exec, statements, drop := execPostgres, []string{
		fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD '%s' IN ROLE %q", successor.User, c.Password.Reveal(), c.User),
	}, fmt.Sprintf("DROP ROLE %s", successor.User)
	if c.Engine == credential.MySQL {
		exec, statements, drop = execMySQL, []string{
			fmt.Sprintf("CREATE USER %s@'%%' IDENTIFIED BY '%s'", successor.User, c.Password.Reveal()),
			fmt.Sprintf("GRANT ALL PRIVILEGES ON %s.* TO %s@'%%'", c.Database, successor.User),
		}, fmt.Sprintf("DROP USER %s@'%%'", successor.User)
	}
	if err := exec(statements); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := exec([]string{drop}); err != nil {
			t.Error(err)
		}
	})
	return successor
}
