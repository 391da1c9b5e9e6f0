package tenantdb

import (
	"context"
	"database/sql/driver"
	"log/slog"
	"maps"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConnector makes connections whose panics are errors and whose settings
// are Stoa's.
type postgresConnector struct {
	ways  []postgresWay // from the most parameters to those that every pooler takes
	state *sessionState
	log   *slog.Logger
}

// postgresWay makes connections with some of the startup parameters.
type postgresWay struct {
	driver.Connector
	how pinning
}

const (
	endpointParameter = "options" // what carries the name of a server at Neon
	searchPath        = "search_path"
)

func newPostgresConnector(cfg *pgx.ConnConfig, how pinning, state *sessionState, log *slog.Logger) *postgresConnector {
	p := &postgresConnector{state: state, log: log}
	add := func(cfg *pgx.ConnConfig, how pinning) {
		p.ways = append(p.ways, postgresWay{postgresConnections(cfg, how, state), how})
	}
	add(cfg, how)
	if _, ok := cfg.RuntimeParams[endpointParameter]; ok { // the host's name is all that Neon needs
		cfg = cfg.Copy()
		delete(cfg.RuntimeParams, endpointParameter)
		add(cfg, how)
	}
	if how == pinAtStartup {
		add(cfg, pinByCheck)
	}
	return p
}

// postgresConnections makes connections that are pinned in one way.
func postgresConnections(cfg *pgx.ConnConfig, how pinning, state *sessionState) driver.Connector {
	before := func(ctx context.Context, cfg *pgx.ConnConfig) error {
		own := maps.Clone(cfg.RuntimeParams)
		if how == pinByCheck { // a transaction pooler takes no search_path
			delete(own, searchPath)
		}
		cfg.RuntimeParams = state.startupParameters(how)
		for name, value := range own {
			if _, pinned := cfg.RuntimeParams[name]; !pinned {
				cfg.RuntimeParams[name] = value
			}
		}
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
	known := int(p.state.way.Load())
	way := known
	conn, err := p.ways[way].Connect(ctx)
	for refusesParameters(err) && way < len(p.ways)-1 {
		way++
		conn, err = p.ways[way].Connect(ctx)
	}
	if err != nil {
		return nil, err
	}
	if way != known {
		p.state.way.Store(int64(way))
		p.state.plain.Store(p.ways[way].how == pinByCheck)
	}
	c := conn.(*stdlib.Conn)
	socket := c.Conn().PgConn().Conn()
	return &recoveringConn{sessionConn: c, socket: socket, log: p.log, life: newLife(p.state, generation), check: checkOf(socket)}, nil
}

// Driver implements driver.Connector.
func (p *postgresConnector) Driver() driver.Driver { return p.ways[0].Driver() }

// nativeConn calls op with the driver's own connection below conn, which is
// one of a postgresConnector.
func nativeConn(conn any, op func(*pgx.Conn) error) (err error) {
	c := conn.(*recoveringConn)
	defer c.recovered(&err)
	return op(c.sessionConn.(*stdlib.Conn).Conn())
}
