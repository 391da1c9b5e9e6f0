package masterdb

import (
	"context"
	"errors"

	"github.com/stoahq/stoa/internal/tracing"
)

// Trace makes the spans of the statements, of those that Querier, Handle and Tx send. Call it
// before db is used. Without it a statement costs a comparison with nil.
func (db *DB) Trace(t *tracing.Tracer) { db.statements = t.Statements("master", string(db.Engine)) }

// BeginSpan begins the span of what a caller waits for without sending a statement of its own
// by Querier, Handle or Tx: one that callers share, or one that it sends by Pool.
func (db *DB) BeginSpan(ctx context.Context, text string) tracing.Statement {
	return db.statements.Begin(ctx, text)
}

// BeginUnseen begins the span of a statement that a library sends by Pool or Writer: an operation on a table, with batch rows at once.
func (db *DB) BeginUnseen(ctx context.Context, operation, table string, batch int) tracing.Statement {
	return db.statements.BeginUnseen(ctx, operation, table, batch)
}

// BeginUnseen is DB.BeginUnseen for a statement in tx.
func (tx *Tx) BeginUnseen(ctx context.Context, operation, table string, batch int) tracing.Statement {
	return tx.statements.BeginUnseen(ctx, operation, table, batch)
}

// fault returns err, or nil when it says no more than that there is no row.
func fault(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
