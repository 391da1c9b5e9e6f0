package masterdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Expiry says which rows of a table are deleted when they were kept long
// enough. The packages that own the tables have the rules. The names are
// written into SQL: they are constants of the code.
type Expiry struct {
	Table string
	Key   []string      // the columns of the primary key
	Age   string        // the column whose time counts; an index begins with it
	Only  string        // a further condition on the row t, or ""
	Keep  time.Duration // how long rows are kept after that time; 0: for ever
	Batch int           // rows in one transaction; 0: 1,000
}

// A turn deletes at most so many batches under one rule. What is left goes in
// the next turn.
const (
	expiryBatch   = 1000
	expiryBatches = 100
)

// Statement is the SQL that deletes the oldest expired rows: $1 is the time
// before which rows have expired, $2 how many go at most.
func (e Expiry) Statement() string {
	only := ""
	if e.Only != "" {
		only = " AND (" + e.Only + ")"
	}
	return fmt.Sprintf(`DELETE FROM %[1]s WHERE (%[2]s) IN (SELECT %[3]s FROM %[1]s t WHERE t.%[4]s < $1%[5]s ORDER BY t.%[4]s LIMIT $2)`,
		e.Table, strings.Join(e.Key, ", "), "t."+strings.Join(e.Key, ", t."), e.Age, only)
}

// DeleteExpired deletes what has expired under each rule, in small
// transactions, and returns how many rows of each table. After an error it
// goes on with the next rule. It is safe to run in several processes at once.
func (db *DB) DeleteExpired(ctx context.Context, rules []Expiry) (deleted map[string]int64, err error) {
	deleted = map[string]int64{}
	var errs []error
	for _, e := range rules {
		n, err := db.deleteExpired(ctx, e)
		if n > 0 {
			deleted[e.Table] += n
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("delete expired rows of %s: %w", e.Table, err))
		}
	}
	return deleted, errors.Join(errs...)
}

func (db *DB) deleteExpired(ctx context.Context, e Expiry) (total int64, err error) {
	if e.Keep <= 0 {
		return 0, nil
	}
	size := int64(e.Batch)
	if size == 0 {
		size = expiryBatch
	}
	for range expiryBatches {
		var n int64
		err := db.Tx(ctx, func(tx *Tx) (err error) {
			n, err = tx.Exec(ctx, e.Statement(), tx.Now.Add(-e.Keep), size)
			return err
		})
		if err != nil {
			return total, err
		}
		if total += n; n < size {
			break
		}
	}
	return total, nil
}
