package masterdb

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Expiry describes which rows of a table are deleted once they are old enough. The packages
// that own the tables define the rules. The names are inserted into the SQL text: they must
// be constants of the code.
type Expiry struct {
	Table string
	Key   []string      // the columns of the primary key
	Age   string        // the column whose time counts; it must be the first column of an index
	Only  string        // an additional condition on the row t, or ""
	Keep  time.Duration // how long rows are kept after that time; 0: forever
	Batch int           // rows deleted in one transaction; 0: 1,000
}

// One call of DeleteExpired deletes at most this many batches under one rule. The next call
// deletes the rest.
const (
	expiryBatch   = 1000
	expiryBatches = 100
)

// Statement returns the SQL that deletes the oldest expired rows. $1 is the time before
// which rows have expired, $2 the maximum number of rows to delete.
func (e Expiry) Statement() string {
	only := ""
	if e.Only != "" {
		only = " AND (" + e.Only + ")"
	}
	return fmt.Sprintf(`DELETE FROM %[1]s WHERE (%[2]s) IN (SELECT %[3]s FROM %[1]s t WHERE t.%[4]s < $1%[5]s ORDER BY t.%[4]s LIMIT $2)`,
		e.Table, strings.Join(e.Key, ", "), "t."+strings.Join(e.Key, ", t."), e.Age, only)
}

// DeleteExpired deletes the expired rows of each rule in small transactions. It returns the
// number of deleted rows per table. After an error it continues with the next rule. It is
// safe to run in several processes at once.
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
