package masterdb

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ErrStatementPooling means that the pooler in front of a server allows no transactions.
var ErrStatementPooling = errors.New("the connection pooler is in statement mode")

// ErrTransactionPooling means that the only way to the master database leads through a pooler
// in transaction mode. Notifications, and the locks of processes and of migrations, need sessions.
var ErrTransactionPooling = errors.New("a connection pooler in transaction mode stands before it, which keeps no session: " +
	"no change would be heard by other replicas, and no process would be known to run. " +
	"Give the address of the database server itself or of a pooler in session mode, in its place or for sessions beside it")

// Proxied reports whether a proxy or pooler is between conn and its server. A pooler sends
// a process id of its own at connection start, because it may not have a server session
// yet. Source: PostgreSQL manual, "Message Flow": BackendKeyData.
func Proxied(ctx context.Context, conn *pgx.Conn) (bool, error) {
	id, err := sessionID(ctx, conn, ownSession)
	return id != conn.PgConn().PID(), err
}

// SharesSessions reports whether a pooler gives one server session to different clients
// from one transaction to the next. It needs two idle connections. It returns
// ErrStatementPooling if no transaction is possible.
func SharesSessions(ctx context.Context, first, second *pgx.Conn) (bool, error) {
	// A pooler hands out the session that became free last, or the one that became free
	// first, and other clients take some in between. A single round may therefore show no
	// sharing.
	const rounds = 6
	users, sessions := map[uint32]*pgx.Conn{}, map[*pgx.Conn]uint32{}
	shared := func(conn *pgx.Conn, id uint32) bool {
		user, known := users[id]
		was, had := sessions[conn]
		users[id], sessions[conn] = conn, id
		return known && user != conn || had && was != id
	}
	for range rounds {
		for _, step := range []struct {
			conn  *pgx.Conn
			query string
		}{{first, ownSession}, {second, `BEGIN; ` + ownSession}, {first, ownSession}, {second, `ROLLBACK; ` + ownSession}} {
			id, err := sessionID(ctx, step.conn, step.query)
			var pgErr *pgconn.PgError
			switch {
			case errors.As(err, &pgErr) && pgErr.Code == protocolViolation: // PgBouncer's answer to BEGIN
				return false, fmt.Errorf("%w: %w", ErrStatementPooling, err)
			case err != nil:
				return false, err
			case shared(step.conn, id):
				_, err = second.PgConn().Exec(ctx, `ROLLBACK`).ReadAll()
				return true, err
			}
		}
		first, second = second, first
	}
	return false, nil
}

// ownSession selects the id of the server session.
const ownSession = `SELECT pg_catalog.pg_backend_pid()`

// protocolViolation is the SQLSTATE protocol_violation.
const protocolViolation = "08P01"

// sessionID runs query, whose last row holds the id of the server session, and returns that
// id. It prepares no statement.
func sessionID(ctx context.Context, conn *pgx.Conn, query string) (uint32, error) {
	results, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return 0, err
	}
	for _, r := range slices.Backward(results) {
		if len(r.Rows) == 1 && len(r.Rows[0]) == 1 {
			id, err := strconv.ParseUint(string(r.Rows[0][0]), 10, 32)
			return uint32(id), err
		}
	}
	return 0, errors.New("the server did not tell the id of its session")
}

// refusePooler returns an error unless each connection that cfg opens has a server session
// of its own.
func refusePooler(ctx context.Context, cfg *pgx.ConnConfig) error {
	ctx, cancel := context.WithTimeout(ctx, 2*cfg.ConnectTimeout) // a pooler may have no free session
	defer cancel()
	first, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer first.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is pending
	if proxied, err := Proxied(ctx, first); err != nil || !proxied {
		return err
	}
	second, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return err
	}
	defer second.Close(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is pending
	shares, err := SharesSessions(ctx, first, second)
	switch {
	case err == nil && shares:
		return ErrTransactionPooling
	case ctx.Err() != nil:
		return fmt.Errorf("a connection pooler stands before it and gives no session in time: allow it more of them: %w", err)
	case errors.Is(err, ErrStatementPooling):
		return fmt.Errorf("%w. Use its session or transaction mode", err)
	}
	return err
}
