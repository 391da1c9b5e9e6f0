package tenantdb

import (
	"context"
	"database/sql/driver"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConnector makes connections whose panics are errors.
type postgresConnector struct {
	log *slog.Logger
	driver.Connector
	// plain connects without Neon's endpoint parameter; nil when there is none.
	plain driver.Connector
}

// endpointParameter is what carries the name of a server at Neon.
const endpointParameter = "options"

// Connect implements driver.Connector.
func (p *postgresConnector) Connect(ctx context.Context) (_ driver.Conn, err error) {
	defer recoverDriver(p.log, &err)
	conn, err := p.Connector.Connect(ctx)
	if p.plain != nil && refusesParameter(err) {
		conn, err = p.plain.Connect(ctx)
	}
	if err != nil {
		return nil, err
	}
	c := conn.(*stdlib.Conn)
	return &recoveringConn{sessionConn: c, socket: c.Conn().PgConn().Conn(), log: p.log}, nil
}

// refusesParameter reports that a server, or a pooler (08P01), takes no such
// parameter with the log-in: it is none of Neon's, and the host's name is all
// that it needs.
func refusesParameter(err error) bool { return isState(err, "42601") || isState(err, "08P01") }

// nativeConn calls op with the driver's own connection below conn, which is
// one of a postgresConnector.
func nativeConn(conn any, op func(*pgx.Conn) error) (err error) {
	c := conn.(*recoveringConn)
	defer c.recovered(&err)
	return op(c.sessionConn.(*stdlib.Conn).Conn())
}
