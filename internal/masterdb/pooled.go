package masterdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// maxSessions limits the sessions of a master that is reached through a pooler in transaction
// mode. A migration takes two. Presence and the listeners have connections of their own.
const maxSessions = 4

// trackedSettings are the settings that a pooler keeps for each of its clients, whichever
// session it gives them. Source: the manual of PgBouncer, track_extra_parameters.
var trackedSettings = map[string]bool{"client_encoding": true, "DateStyle": true, "TimeZone": true, "standard_conforming_strings": true}

// connectPooled opens the pool of a master behind a pooler in transaction mode, which gives
// each transaction any session of the server, and a small one for what needs a session:
// LISTEN, locks and migrations.
//
// On a connection of the pooler nothing can be set beforehand. Statements are sent with their
// text, not prepared, and the settings that Stoa pins elsewhere must be those of the role.
func connectPooled(ctx context.Context, cfg *serverConfig, sessionURL string) (pooled, sessions *server, err error) {
	direct, err := parsePostgres(sessionURL)
	if err != nil {
		return nil, nil, fmt.Errorf("the URL for sessions: %w", err)
	}
	direct.level, direct.MaxConns = cfg.level, maxSessions
	sessions, err = connectSessions(ctx, direct)
	switch {
	case errors.Is(err, ErrTransactionPooling):
		return nil, nil, errSwapped
	case err != nil:
		return nil, nil, fmt.Errorf("the server at the URL for sessions: %w", err)
	}
	if pooled, err = connectPooler(ctx, cfg, direct, sessions); err != nil {
		sessions.end()
		return nil, nil, err
	}
	return pooled, sessions, nil
}

var errSwapped = errors.New("the URL for sessions leads to a connection pooler in transaction mode, which has none to give: " +
	"give it the address of the database server itself. Are the two URLs swapped?")

// settingsFor is how long a connection to a pooler is used. Its sessions may get other settings
// meanwhile, which are checked when a connection is opened.
const settingsFor = time.Minute

// connectPooler opens the pool of the pooler before the server of the sessions.
func connectPooler(ctx context.Context, cfg, direct *serverConfig, sessions *server) (*server, error) {
	// Any other failure is found again below, where the settings are looked at first: one of them
	// may be its cause.
	if err := refusePooler(ctx, cfg.ConnConfig); errors.Is(err, ErrStatementPooling) || errors.Is(err, context.DeadlineExceeded) {
		return nil, err
	}
	want, err := placeOf(ctx, sessions)
	if err != nil {
		return nil, err
	}
	for _, s := range pinned {
		if trackedSettings[s.name] {
			cfg.ConnConfig.RuntimeParams[s.name] = s.value
		}
	}
	cfg.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeCacheDescribe
	cfg.ConnConfig.StatementCacheCapacity = 0
	cfg.lifetime = settingsFor
	cfg.breaker.beyond = direct.breaker.probeConfig
	pooled, err := connectServer(ctx, cfg, func(ctx context.Context, c *pgx.Conn) error { return checkSession(ctx, c, cfg.level, want.schema) })
	if err != nil {
		return nil, err
	}
	at, err := placeOf(ctx, pooled)
	switch {
	case err != nil:
	case at.started != want.started || at.database != want.database:
		err = errors.New("the pooler and the URL for sessions lead to different databases: give both the same server and database")
	case at.role != want.role:
		err = fmt.Errorf("the pooler uses the role %q and the URL for sessions the role %q: give both the same", at.role, want.role)
	}
	if err != nil {
		pooled.end()
		return nil, err
	}
	return pooled, nil
}

// place is where, and as whom, statements are run.
type place struct{ started, database, role, schema string }

func placeOf(ctx context.Context, s *server) (p place, err error) {
	err = s.QueryRow(ctx, `SELECT pg_postmaster_start_time()::text, current_database()::text, current_user::text, coalesce(current_schema()::text, '')`).
		Scan(&p.started, &p.database, &p.role, &p.schema)
	return p, err
}

var errSettings = errors.New("a pooler in transaction mode keeps no settings of a session, and the role's are not those that Stoa needs")

// checkSession returns an error that names the settings of a pooler's session that are not those
// that Stoa needs, or says that its statements do not go to the schema.
func checkSession(ctx context.Context, c *pgx.Conn, level, schema string) error {
	needed := append([]setting{{isolationSetting, level}, {"session_replication_role", "origin"}}, pinned...)
	needed = append(needed, newerSettings...)
	names := make([]string, len(needed))
	for i, s := range needed {
		names[i] = s.name
	}
	var at string
	if err := c.QueryRow(ctx, `SELECT coalesce(current_schema()::text, '')`).Scan(&at); err != nil {
		return err
	}
	if at != schema {
		return fmt.Errorf("%w: the tables are in the schema %q, and its sessions look in %q first. "+
			"Put that schema first with ALTER ROLE … SET search_path, and reconnect the pooler (PgBouncer: RECONNECT)", errSettings, schema, at)
	}
	rows, err := c.Query(ctx, `SELECT coalesce(current_setting(name, true), '') FROM unnest($1::text[]) WITH ORDINALITY n (name, place) ORDER BY place`, names)
	if err != nil {
		return err
	}
	values, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	var faults []string
	for i, s := range needed {
		unknown := values[i] == "" && i >= len(needed)-len(newerSettings)
		if values[i] != s.value && !unknown {
			faults = append(faults, fmt.Sprintf("%s is %q, not %q", s.name, values[i], s.value))
		}
	}
	if faults == nil {
		return nil
	}
	return fmt.Errorf("%w: %s. Set them with ALTER ROLE … SET …, and reconnect the pooler (PgBouncer: RECONNECT)", errSettings, strings.Join(faults, "; "))
}
