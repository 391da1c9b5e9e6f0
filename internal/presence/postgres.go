package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/masterdb"
)

// SessionName is the application_name of the session that holds a process's lock.
const SessionName = "stoa presence"

// lockClass is the first key of the advisory locks of processes; the second key is the
// process's own. It is an arbitrary number that only this package uses: "stoa".
const lockClass = 0x73746f61

// look is one statement that sends a heartbeat and reads the processes with their locks.
// For an advisory lock with two keys pg_locks shows the first as classid, the second as
// objid, and 2 as objsubid. Source: PostgreSQL manual, "pg_locks".
var look = fmt.Sprintf(`WITH beat AS (UPDATE processes SET beats = beats + 1 WHERE name = $1 AND $2)
	SELECT p.name, p.host, p.beats, l.objid IS NOT NULL AS held FROM processes p
	LEFT JOIN pg_catalog.pg_locks l ON l.locktype = 'advisory' AND l.classid = %d AND l.objid = p.lock_key::bigint::oid AND l.objsubid = 2 AND l.granted
		AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())`, lockClass)

// errLocked means that an earlier session of this process still holds the lock, because the
// server has not ended that session yet.
var errLocked = errors.New("presence: the lock is held by another session")

// postgresLock is an advisory lock of a session that does nothing else. When the
// session is lost, heartbeats through the pool keep the process present until another
// session is open.
type postgresLock struct {
	db      *masterdb.DB
	log     *slog.Logger
	name    string
	key     int32
	timing  timing
	session *pgx.Conn
	locked  bool
	opening chan *pgx.Conn // nil while no session is being opened; receives nil after a failure
	beaten  time.Time      // when the last heartbeat was sent
}

func (l *postgresLock) acquire(ctx context.Context) error {
	conn, err := l.open(ctx)
	if err != nil {
		return err
	}
	l.session = conn
	if err := l.tryLock(ctx); err != nil {
		l.close(ctx)
		return err
	}
	return nil
}

// open opens the session. It turns synchronous_commit off, because a heartbeat may be lost
// in a crash of the server.
func (l *postgresLock) open(ctx context.Context) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, l.db.Sessions().Config().ConnConfig.ConnectTimeout+l.timing.answer)
	defer cancel()
	conn, err := l.db.Dedicated(ctx, SessionName)
	if err != nil {
		return nil, err
	}
	if _, err := conn.Exec(ctx, `SET synchronous_commit = off`); err != nil {
		_ = conn.Close(ctx)
		return nil, err
	}
	return conn, nil
}

func (l *postgresLock) tryLock(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.timing.answer)
	defer cancel()
	if err := l.session.QueryRow(ctx, `SELECT pg_try_advisory_lock($1::int, $2::int)`, int32(lockClass), l.key).Scan(&l.locked); err != nil {
		return err
	}
	if !l.locked {
		return errLocked
	}
	return nil
}

func (l *postgresLock) look(ctx context.Context) ([]observed, error) {
	l.reopen(ctx)
	if l.session == nil {
		return l.read(ctx, l.db.Select, true)
	}
	processes, err := l.read(ctx, l.query, time.Since(l.beaten) >= l.timing.beat)
	if err == nil && !l.locked {
		if err = l.tryLock(ctx); errors.Is(err, errLocked) {
			err = nil // heartbeats show that this process is present
		}
	}
	if err != nil && ctx.Err() == nil {
		l.log.WarnContext(ctx, "presence session lost; another is opened", "err", err)
		l.close(ctx)
	}
	return processes, err
}

// read sends a heartbeat if beat is set, and reads the processes.
func (l *postgresLock) read(ctx context.Context, query func(context.Context, any, string, ...any) error, beat bool) (processes []observed, err error) {
	ctx, cancel := context.WithTimeout(ctx, l.timing.answer)
	defer cancel()
	if beat {
		l.beaten = time.Now()
	}
	return processes, query(ctx, &processes, look, l.name, beat)
}

// query is masterdb.DB.Select on the session.
func (l *postgresLock) query(ctx context.Context, dst any, sql string, args ...any) error {
	rows, err := l.session.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	out, err := pgx.CollectRows(rows, pgx.RowToStructByName[observed])
	*dst.(*[]observed) = out
	return err
}

// reopen starts to open a session if there is none. It does not wait.
func (l *postgresLock) reopen(ctx context.Context) {
	if l.session != nil {
		return
	}
	if l.opening == nil {
		opened := make(chan *pgx.Conn, 1)
		l.opening = opened
		go func() {
			conn, err := l.open(ctx)
			if err != nil {
				l.log.DebugContext(ctx, "presence session not open yet", "err", err)
			}
			opened <- conn
		}()
	}
	select {
	case l.session = <-l.opening:
		l.opening, l.locked = nil, false
	default:
	}
}

// close closes the session.
func (l *postgresLock) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if l.session != nil {
		_ = l.session.Close(ctx)
	}
	l.session, l.locked = nil, false
}

func (l *postgresLock) release(ctx context.Context) {
	if l.opening != nil {
		l.session, l.opening = <-l.opening, nil // receives soon, because the context of the opening has ended
	}
	l.close(ctx)
}
