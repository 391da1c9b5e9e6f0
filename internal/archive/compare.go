package archive

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Compare reads the tables and returns an error that names the first one whose rows differ
// from the summary. It uses two connections to a server if it gets them.
func Compare(ctx context.Context, db *tenantdb.DB, tables []Table, want []Summary) error {
	c := comparison{db: db, tables: tables, sums: make([]Summary, len(tables))}
	for i := range tables {
		c.order = append(c.order, i)
	}
	// The largest first, so that both end at about the same time.
	slices.SortStableFunc(c.order, func(a, b int) int { return cmp.Compare(want[b].Bytes, want[a].Bytes) })
	if err := c.run(ctx); err != nil {
		return err
	}
	for i, g := range c.sums {
		switch w := want[i]; {
		case g.Rows != w.Rows:
			return stoa.Errorf(stoa.ArchiveRefused, "The table %s has %d rows in the database and %d in the archive. Nothing else may write to the database meanwhile.", g.Table, g.Rows, w.Rows)
		case g != w:
			return stoa.Errorf(stoa.ArchiveRefused, "A row of the table %s is not the same in the database as in the archive: this database cannot store one of its values exactly, "+
				"such as a number of many digits in JSON. Use another engine, or correct the value at its source.", g.Table)
		}
	}
	return nil
}

// comparison reads each table once, on two connections. Each has a snapshot of its own, which
// begins after the load: every table is read as it was at some time since, which is enough
// to compare it with what was loaded.
type comparison struct {
	db     *tenantdb.DB
	tables []Table
	sums   []Summary // of each table

	mu     sync.Mutex
	order  []int // indexes of the tables that nobody reads yet
	helped bool  // the second connection has read a table, or reads one
}

// run reads all tables. The second connection is asked for when the first one reads, and may
// fail or be kept waiting: a server may have no more. Two readers of SQLite, in one process,
// are slower than one.
func (c *comparison) run(ctx context.Context) error {
	return c.db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		if c.db.Engine.Embedded() {
			return c.read(ctx, s, false)
		}
		helping, cancel := context.WithCancel(ctx)
		defer cancel()
		done := make(chan error, 1)
		go func() {
			done <- stoa.CatchPanic(func() error {
				return c.db.Snapshot(helping, func(s *tenantdb.Snapshot) error { return c.read(helping, s, true) })
			})
		}()
		err := stoa.CatchPanic(func() error { return c.read(ctx, s, false) })
		if err != nil || !c.hasHelped() { // no table is left for it
			cancel()
		}
		if helpErr := <-done; err == nil && c.hasHelped() {
			err = helpErr
		}
		return err
	})
}

// read reads tables in a snapshot until none is left.
func (c *comparison) read(ctx context.Context, s *tenantdb.Snapshot, helps bool) error {
	for {
		i, ok := c.take(helps)
		if !ok {
			return nil
		}
		sum, err := source{s, c.db.Engine}.sum(ctx, c.tables[i])
		if err != nil {
			return err
		}
		c.sums[i] = sum
	}
}

// take returns the next table.
func (c *comparison) take(helps bool) (index int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.order) == 0 {
		return 0, false
	}
	index, c.order, c.helped = c.order[0], c.order[1:], c.helped || helps
	return index, true
}

func (c *comparison) hasHelped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.helped
}

// sum returns the summary of a table.
func (s source) sum(ctx context.Context, t Table) (Summary, error) {
	var (
		count container.Tally
		row   []byte
	)
	err := s.rows(ctx, t, func(values []any) (err error) {
		if row, err = appendRow(row[:0], t.Columns, values); err == nil {
			count.Add(row)
		}
		return err
	})
	if err != nil {
		return Summary{}, readFault(ctx, t, err)
	}
	return count.Summary(t.Name), nil
}
