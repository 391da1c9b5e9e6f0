package masterdb

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgtype"
	"github.com/jackc/pgx/v5/pgxpool"
)

// planning has each statement planned once, by the indexes there are. Every
// statement of the platform is prepared and looks rows up by their keys: to
// plan it anew for each set of parameters costs more than it can gain. The one
// plan may be made while a table is empty, and reading all of it seems best;
// it is kept until the table is analyzed, when that is no longer true. What has
// no index is read as a whole all the same, and is not to be compiled for it.
const planning = `SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off`

func openPostgres(ctx context.Context, url string) (*DB, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("master database URL: %w", err) // pgx leaves the password out
	}
	cfg.ConnConfig.RuntimeParams["application_name"] = "stoa"
	cfg.ConnConfig.ConnectTimeout = 10 * time.Second
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		// In the session and not as parameters of its start, which poolers refuse.
		if _, err := c.PgConn().Exec(ctx, planning).ReadAll(); err != nil {
			return err
		}
		// Times come back in UTC, as they were written and as SQLite gives them.
		c.TypeMap().RegisterType(&pgtype.Type{
			Name: "timestamptz", OID: pgtype.TimestamptzOID,
			Codec: &pgtype.TimestamptzCodec{ScanLocation: time.UTC},
		})
		return nil
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("master database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, fmt.Errorf("master database does not answer: %w", err)
	}
	return &DB{Engine: Postgres, pool: pool}, nil
}
