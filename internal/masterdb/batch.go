package masterdb

import (
	"context"
	"errors"

	"github.com/georgysavva/scany/v2/pgxscan"
	"github.com/jackc/pgx/v5"

	"github.com/stoahq/stoa/internal/tracing"
)

// Query is a query of a Batch: see One and All.
type Query struct {
	dst  any
	many bool
	text string
	args []any
}

// One is the query of Querier.Get.
func One(dst any, query string, args ...any) Query { return Query{dst, false, query, args} }

// All is the query of Querier.Select.
func All(dst any, query string, args ...any) Query { return Query{dst, true, query, args} }

// Batch implements Querier outside a transaction.
func (db *DB) Batch(ctx context.Context, queries ...Query) error {
	spans := beginAll(ctx, db.statements, queries)
	err := db.batch(ctx, queries)
	endAll(spans, err)
	return err
}

func (db *DB) batch(ctx context.Context, queries []Query) error {
	if len(queries) == 0 {
		return nil
	}
	if db.pool == nil {
		return db.MapError(ctx, liteBatch(ctx, db.read, queries))
	}
	return db.Retry(ctx, func() error {
		batch := &pgx.Batch{QueuedQueries: queued(queries)}
		return scanBatch(db.pool.SendBatch(ctx, batch), queries)
	})
}

// Batch implements Querier.
func (tx *Tx) Batch(ctx context.Context, queries ...Query) error {
	spans := beginAll(ctx, tx.statements, queries)
	err := tx.batch(ctx, queries)
	endAll(spans, err)
	return err
}

func (tx *Tx) batch(ctx context.Context, queries []Query) error {
	if tx.pg == nil {
		return liteBatch(ctx, tx.lite, queries)
	}
	results, err := tx.pg.send(ctx, queued(queries)...)
	if err != nil {
		return tx.look(err)
	}
	return tx.look(scanBatch(results, queries))
}

func queued(queries []Query) []*pgx.QueuedQuery {
	list := make([]*pgx.QueuedQuery, len(queries))
	for i, q := range queries {
		list[i] = &pgx.QueuedQuery{SQL: q.text, Arguments: q.args}
	}
	return list
}

// scanBatch scans the rows of each query, and closes the results.
func scanBatch(results pgx.BatchResults, queries []Query) error {
	var missing error
	for _, q := range queries {
		err := scanNext(results, q)
		switch {
		case errors.Is(err, ErrNotFound):
			missing = ErrNotFound
		case err != nil:
			_ = results.Close()
			return err
		}
	}
	if err := results.Close(); err != nil {
		return err
	}
	return missing
}

// scanNext scans the rows of the next query of the results. It fails with ErrNotFound.
func scanNext(results pgx.BatchResults, q Query) error {
	rows, err := results.Query()
	switch {
	case err != nil:
	case q.many:
		err = pgxscan.ScanAll(q.dst, rows)
	default:
		err = pgxscan.ScanOne(q.dst, rows)
	}
	if pgxscan.NotFound(err) {
		return ErrNotFound
	}
	return err
}

func liteBatch(ctx context.Context, from liteQuerier, queries []Query) error {
	var missing error
	for _, q := range queries {
		read := liteGet
		if q.many {
			read = liteSelect
		}
		err := read(ctx, from, q.dst, q.text, q.args)
		switch {
		case errors.Is(err, ErrNotFound):
			missing = ErrNotFound
		case err != nil:
			return err
		}
	}
	return missing
}

func beginAll(ctx context.Context, statements *tracing.Statements, queries []Query) []tracing.Statement {
	if statements == nil {
		return nil
	}
	spans := make([]tracing.Statement, len(queries))
	for i, q := range queries {
		spans[i] = statements.Begin(ctx, q.text)
	}
	return spans
}

func endAll(spans []tracing.Statement, err error) {
	for _, span := range spans {
		span.End(fault(err))
	}
}
