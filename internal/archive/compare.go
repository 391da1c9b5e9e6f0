package archive

import (
	"context"
	"sync"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/archive/container"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// Compare reads the tables and returns an error that names the first one whose rows differ
// from the summary. It uses two connections to a server if it gets them.
func Compare(ctx context.Context, db *tenantdb.DB, tables []Table, want []Summary) error {
	c := newComparison(ctx, db, tables)
	for _, sum := range want {
		c.add(sum)
	}
	return c.finish(ctx)
}

// comparison reads each table once, after it was loaded, and compares it with what was loaded.
// It reads while the next tables are loaded. Each snapshot begins after the load of the tables
// that it reads: every table is read as it was at some time since, which is enough.
type comparison struct {
	db     *tenantdb.DB
	tables []Table
	stop   context.CancelFunc // ends the reader beside the load
	ended  chan struct{}      // closed after it has ended

	mu       sync.Mutex
	changed  chan struct{} // has an element after a change for which that reader may wait
	complete bool          // every table was added
	want     []Summary     // of the tables that were loaded: the first ones
	states   []tableState  // of each table
	sums     []Summary     // of each table
}

// tableState says how far the comparison is with a table.
type tableState int

const (
	unread tableState = iota
	reading
	compared
)

// newComparison begins a comparison. finish or stop must follow.
func newComparison(ctx context.Context, db *tenantdb.DB, tables []Table) *comparison {
	c := &comparison{db: db, tables: tables, ended: make(chan struct{}), changed: make(chan struct{}, 1),
		states: make([]tableState, len(tables)), sums: make([]Summary, len(tables))}
	beside, cancel := context.WithCancel(ctx)
	c.stop = func() {
		cancel()
		<-c.ended
	}
	go func() {
		defer close(c.ended)
		for {
			n, ok := c.wait(beside)
			// What it could not read, finish reads: a server may have no more connections.
			if !ok || stoa.CatchPanic(func() error { return c.read(beside, n) }) != nil {
				return
			}
		}
	}()
	return c
}

// add adds the next table, whose load has ended.
func (c *comparison) add(sum Summary) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.want = append(c.want, sum)
	c.change()
}

func (c *comparison) change() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// wait waits until there is a table to read, and returns how many are loaded. ok is false when
// none will be left.
func (c *comparison) wait(ctx context.Context) (loaded int, ok bool) {
	for {
		c.mu.Lock()
		loaded, left, complete := len(c.want), c.count(unread) > 0, c.complete
		c.mu.Unlock()
		if left || complete {
			return loaded, left
		}
		select {
		case <-c.changed:
		case <-ctx.Done():
			return 0, false
		}
	}
}

// count counts the loaded tables in a state.
func (c *comparison) count(state tableState) (n int) {
	for i := range c.want {
		if c.states[i] == state {
			n++
		}
	}
	return n
}

// read reads tables among the first ones, which are loaded, in one snapshot until none is left.
func (c *comparison) read(ctx context.Context, loaded int) error {
	return c.db.Snapshot(ctx, func(s *tenantdb.Snapshot) error {
		for {
			i, want, ok := c.take(loaded)
			if !ok {
				return nil
			}
			state := unread
			sum, err := source{s, c.db.Engine}.sum(ctx, c.tables[i], want)
			if err == nil {
				state = compared
			}
			c.mu.Lock()
			c.states[i], c.sums[i] = state, sum
			c.mu.Unlock()
			if err != nil {
				return err
			}
		}
	})
}

// take returns the largest table among the first ones that nobody reads yet, so that two
// readers end at about the same time, and what was loaded into it.
func (c *comparison) take(loaded int) (index int, want Summary, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range loaded {
		if c.states[i] == unread && (!ok || c.want[i].Bytes > c.want[index].Bytes) {
			index, ok = i, true
		}
	}
	if ok {
		c.states[index], want = reading, c.want[index]
	}
	return index, want, ok
}

// finish reads the tables that are left, and compares all.
func (c *comparison) finish(ctx context.Context) error {
	defer c.stop()
	c.mu.Lock()
	c.complete = true
	c.change()
	c.mu.Unlock()
	if c.db.Engine.Embedded() { // two readers of SQLite, in one process, are slower than one
		<-c.ended
	}
	if err := c.rest(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	helped := c.count(reading) > 0
	c.mu.Unlock()
	if helped {
		<-c.ended
	}
	c.stop() // it may wait for a connection
	if err := c.rest(ctx); err != nil {
		return err
	}
	return c.verdict()
}

// rest reads the tables that nobody reads.
func (c *comparison) rest(ctx context.Context) error {
	c.mu.Lock()
	left := c.count(unread)
	c.mu.Unlock()
	if left == 0 {
		return nil
	}
	return stoa.CatchPanic(func() error { return c.read(ctx, len(c.tables)) })
}

// verdict compares the tables with what was loaded.
func (c *comparison) verdict() error {
	for i, g := range c.sums {
		switch w := c.want[i]; {
		case g.Rows != w.Rows:
			return stoa.Errorf(stoa.ArchiveRefused, "The table %s has %d rows in the database and %d in the archive. Nothing else may write to the database meanwhile.", g.Table, g.Rows, w.Rows)
		case g != w:
			return errInexact(g.Table)
		}
	}
	return nil
}

func errInexact(table string) error {
	return stoa.Errorf(stoa.ArchiveRefused, "A row of the table %s is not the same in the database as in the archive: this database cannot store one of its values exactly, "+
		"such as a number of many digits in JSON. Use another engine, or correct the value at its source.", table)
}

// sum returns the summary of a table. It ends at the first row too many, or the first byte: a
// server may send rows without an end.
func (s source) sum(ctx context.Context, t Table, want Summary) (Summary, error) {
	var count container.Tally
	var excess error
	err := s.rows(ctx, t, func(row []byte) error {
		switch count.Add(row); {
		case count.Rows() > want.Rows:
			excess = stoa.Errorf(stoa.ArchiveRefused, "The table %s has more than %d rows in the database, which is their number in the archive. Nothing else may write to the database meanwhile.", t.Name, want.Rows)
		case count.Bytes() > want.Bytes:
			excess = errInexact(t.Name)
		}
		return excess
	})
	switch {
	case excess != nil:
		return Summary{}, excess
	case err != nil:
		return Summary{}, readFault(ctx, t, err)
	}
	return count.Summary(t.Name), nil
}
