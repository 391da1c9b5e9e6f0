package masterdb

import (
	"errors"

	"github.com/stoahq/stoa/internal/tracing"
)

// Trace makes the spans of the statements, of those that Querier, Handle and Tx send. Call it
// before db is used. Without it a statement costs a comparison with nil.
func (db *DB) Trace(t *tracing.Tracer) { db.statements = t.Statements("master", string(db.Engine)) }

// fault returns err, or nil when it says no more than that there is no row.
func fault(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
