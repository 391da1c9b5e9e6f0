package managed

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// passwordLockSeconds is how long one caller waits for another that sets a password.
const passwordLockSeconds = 20

// setPassword keeps its lock on the connection of a transaction. The statements about
// users commit by themselves.
func (h mysqlHost) setPassword(ctx context.Context, db *tenantdb.DB, c credential.Credentials, a credential.Access, password keyring.Secret, current func() (bool, error)) error {
	if err := h.activateRoles(ctx, db); err != nil {
		return err
	}
	lock := "stoa.password." + c.Database
	return db.Tx(ctx, func(tx *tenantdb.Tx) error {
		var granted int
		if err := tx.Get(ctx, &granted, `SELECT coalesce(GET_LOCK(?, ?), 0)`, lock, passwordLockSeconds); err != nil {
			return err
		}
		if granted == 0 {
			return fmt.Errorf("another process sets a password of %s", c.Database)
		}
		defer tx.Exec(ctx, `DO RELEASE_LOCK(?)`, lock) //nolint:errcheck // the end of the connection releases it too
		if ok, err := current(); err != nil || !ok {
			return orSuperseded(err)
		}
		return h.setUser(ctx, tx, c, a, "'"+password.Reveal()+"'")
	})
}

func (h mysqlHost) setUser(ctx context.Context, tx *tenantdb.Tx, c credential.Credentials, a credential.Access, password string) error {
	user := "'" + c.Role(a) + "'@'%'"
	if a == credential.FullAccess {
		return h.alterUser(ctx, tx, user, password)
	}
	if err := h.makeUser(ctx, tx, user, password); err != nil {
		return err
	}
	var version string
	if err := tx.Get(ctx, &version, `SELECT version()`); err != nil {
		return err
	}
	limits := fmt.Sprintf(`MAX_USER_CONNECTIONS %d`, readerConnections)
	if strings.Contains(version, "MariaDB") {
		limits += fmt.Sprintf(` MAX_STATEMENT_TIME %d`, readerSeconds)
	}
	if _, err := tx.Exec(ctx, `ALTER USER `+user+` WITH `+limits); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, "GRANT SELECT, SHOW VIEW ON `"+strings.ReplaceAll(c.Database, "_", `\_`)+"`.* TO "+user)
	return err
}

// grantReader has nothing to do: setUser grants everything.
func (mysqlHost) grantReader(context.Context, *Databases, credential.Credentials) error { return nil }

// now returns the number of the connection: the server counts them.
func (mysqlHost) now(ctx context.Context, db *tenantdb.DB) (mark string, err error) {
	err = db.Get(ctx, &mark, `SELECT concat('', CONNECTION_ID())`)
	return mark, err
}

// endSessions compares the numbers of connections. The server tells the age of a session's
// last statement, not of the session.
func (h mysqlHost) endSessions(ctx context.Context, db *tenantdb.DB, role, mark string, which SessionKind) (int, error) {
	before, err := strconv.ParseUint(mark, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%.80q is no number of a connection", mark)
	}
	if err := h.activateRoles(ctx, db); err != nil {
		return 0, err
	}
	var sessions []struct {
		ID   uint64
		Busy bool
	}
	err = db.Select(ctx, &sessions, `SELECT p.id AS id, p.command <> 'Sleep' OR EXISTS (
			SELECT 1 FROM information_schema.innodb_trx t WHERE t.trx_mysql_thread_id = p.id) AS busy
		FROM information_schema.processlist p WHERE p.user = ? AND p.id < ? LIMIT 1000`, role, before)
	if err != nil {
		return 0, err
	}
	for _, s := range sessions {
		if which == NoSessions || which == IdleSessions && s.Busy {
			continue
		}
		const unknown = 1094 // ER_NO_SUCH_THREAD: it has ended by itself
		if _, err := db.Exec(ctx, fmt.Sprintf(`KILL %d`, s.ID)); err != nil && !tenantdb.IsMySQL(err, unknown) {
			return 0, err
		}
	}
	return len(sessions), nil
}
