package tenantdb

import (
	"context"
	"database/sql/driver"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConnector makes connections whose panics are errors and whose settings
// are Stoa's.
type postgresConnector struct {
	driver.Connector                  // with the parameters of the way to pin
	plain            driver.Connector // with those that every pooler takes; nil: that is what Connector does
	state            *sessionState
	log              *slog.Logger
}

func newPostgresConnector(cfg *pgx.ConnConfig, how pinning, state *sessionState, log *slog.Logger) *postgresConnector {
	p := &postgresConnector{Connector: postgresConnections(cfg, how, state), state: state, log: log}
	if how == pinAtStartup {
		p.plain = postgresConnections(cfg, pinByCheck, state)
	}
	return p
}

// postgresConnections makes connections that are pinned in one way.
func postgresConnections(cfg *pgx.ConnConfig, how pinning, state *sessionState) driver.Connector {
	before := func(ctx context.Context, cfg *pgx.ConnConfig) error {
		cfg.RuntimeParams = state.startupParameters(how)
		return screenConnection(ctx, cfg)
	}
	after := func(ctx context.Context, conn *pgx.Conn) error {
		err := registerTypes(ctx, conn)
		if err == nil {
			err = state.established(ctx, conn, how)
		}
		if err != nil {
			_ = conn.PgConn().Conn().Close() // database/sql has not heard of it yet
		}
		return err
	}
	return stdlib.GetConnector(*cfg, stdlib.OptionBeforeConnect(before), stdlib.OptionAfterConnect(after))
}

// Connect implements driver.Connector. A pooler that nobody announced may refuse
// startup parameters; then the settings are what they are, and are looked at.
func (p *postgresConnector) Connect(ctx context.Context) (_ driver.Conn, err error) {
	defer recoverDriver(p.log, &err)
	generation := p.state.generation.Load()
	if p.plain != nil && p.state.plain.Load() {
		return p.wrap(generation)(p.plain.Connect(ctx))
	}
	conn, err := p.Connector.Connect(ctx)
	if p.plain != nil && refusesParameters(err) {
		if conn, err = p.plain.Connect(ctx); err == nil {
			p.state.plain.Store(true)
		}
	}
	return p.wrap(generation)(conn, err)
}

func (p *postgresConnector) wrap(generation int64) func(driver.Conn, error) (driver.Conn, error) {
	return func(conn driver.Conn, err error) (driver.Conn, error) {
		if err != nil {
			return nil, err
		}
		c := conn.(*stdlib.Conn)
		socket := c.Conn().PgConn().Conn()
		return &recoveringConn{sessionConn: c, socket: socket, log: p.log, life: newLife(p.state, generation), check: checkOf(socket)}, nil
	}
}

// nativeConn calls op with the driver's own connection below conn, which is
// one of a postgresConnector.
func nativeConn(conn any, op func(*pgx.Conn) error) (err error) {
	c := conn.(*recoveringConn)
	defer c.recovered(&err)
	return op(c.sessionConn.(*stdlib.Conn).Conn())
}
