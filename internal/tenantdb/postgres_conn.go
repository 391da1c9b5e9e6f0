package tenantdb

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"runtime"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/stoahq/stoa/internal/keyring"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
	"github.com/stoahq/stoa/internal/tenantdb/screen"
)

// postgresConnector makes connections that return panics as errors and that
// have Stoa's settings.
type postgresConnector struct {
	cfg         *pgx.ConnConfig
	credentials credential.Credentials
	state       *sessionState
	log         *slog.Logger
}

const (
	endpointParameter = "options" // the parameter that carries a server's name at Neon
	searchPath        = "search_path"
)

// Connect implements driver.Connector. A pooler that the credentials do not
// name may refuse startup parameters. In that case the settings remain
// unchanged and are checked.
func (p *postgresConnector) Connect(ctx context.Context) (_ driver.Conn, err error) {
	defer recoverDriver(p.log, &err)
	var conn driver.Conn
	err = p.state.passwords.signIn(ctx, p.credentials.Password, func(password keyring.Secret) (err error) {
		conn, err = p.signIn(ctx, password)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

func (p *postgresConnector) signIn(ctx context.Context, password keyring.Secret) (driver.Conn, error) {
	generation := p.state.generation.Load()
	how, bare := p.state.pinning(p.credentials), p.state.bare.Load() || p.credentials.Endpoint == ""
	conn, err := p.connect(ctx, password, how, bare)
	if refusesParameters(err) && !bare { // Neon only needs the name of the host
		bare = true
		conn, err = p.connect(ctx, password, how, bare)
	}
	if refusesParameters(err) && how == pinAtStartup {
		how = pinByCheck
		conn, err = p.connect(ctx, password, how, bare)
	}
	if err != nil {
		return nil, err
	}
	p.state.bare.Store(bare)
	if how == pinByCheck && p.state.pinning(p.credentials) == pinAtStartup {
		p.state.plain.Store(true)
	}
	c := conn.(*stdlib.Conn)
	socket := c.Conn().PgConn().Conn()
	return &recoveringConn{sessionConn: c, socket: socket, log: p.log, lifetime: newLifetime(p.state, generation), check: checkOf(socket)}, nil
}

func (p *postgresConnector) connect(ctx context.Context, password keyring.Secret, how pinning, bare bool) (driver.Conn, error) {
	cfg := p.cfg.Copy()
	cfg.Password = password.Reveal()
	own := cfg.RuntimeParams
	cfg.RuntimeParams = p.state.startupParameters(how)
	for name, value := range own {
		_, pinned := cfg.RuntimeParams[name]
		refused := name == endpointParameter && bare || name == searchPath && how != pinAtStartup // by poolers
		if !pinned && !refused {
			cfg.RuntimeParams[name] = value
		}
	}
	if p.state.poolerOf(p.credentials) == credential.TransactionPooler {
		unprepared(cfg)
	}
	screen.Postgres(cfg, p.hashingLimits())
	after := func(ctx context.Context, conn *pgx.Conn) error {
		err := registerTypes(ctx, conn)
		if err == nil {
			err = p.state.established(ctx, conn, how, own[searchPath])
		}
		if err != nil {
			_ = conn.PgConn().Conn().Close() // database/sql does not know the connection yet
		}
		return err
	}
	return stdlib.GetConnector(*cfg, stdlib.OptionAfterConnect(after)).Connect(ctx)
}

// unprepared disables prepared and described statements, because no statement
// outlives its transaction behind a transaction pooler. Parameters are then
// sent as text without types. The server determines their types, including
// JSON, as it does for a prepared statement.
func unprepared(cfg *pgx.ConnConfig) {
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity, cfg.DescriptionCacheCapacity = 0, 0
}

// Driver implements driver.Connector.
func (p *postgresConnector) Driver() driver.Driver { return stdlib.GetDefaultDriver() }

// pgxConn calls op with the driver's own connection under conn, which is a
// connection of a postgresConnector.
func pgxConn(conn any, op func(*pgx.Conn) error) (err error) {
	c := conn.(*recoveringConn)
	defer c.recovered(&err)
	return op(c.sessionConn.(*stdlib.Conn).Conn())
}

// hashing limits the passwords of all connections of this process.
var hashing = screen.NewHashingLimits(runtime.GOMAXPROCS(0))

// hashingLimits returns the limits for the server's passwords. Those that take many
// iterations are limited for databases that somebody tests or connects. The stores that
// are connected do not share that limit, or the first could keep them closed, and managed
// databases are on the operator's own servers.
func (p *postgresConnector) hashingLimits() screen.HashingLimits {
	if p.state.leased || p.credentials.Kind == credential.Managed {
		return hashing.Trusted()
	}
	return hashing
}
