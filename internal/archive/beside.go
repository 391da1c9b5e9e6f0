package archive

import (
	"context"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb"
)

// besideWriter inserts a block of rows while the loader inserts the next one, on a second
// connection to the server, which is idle between two blocks of one connection.
type besideWriter struct {
	last   *blockBeside // nil when there is none
	cancel context.CancelFunc
	next   bool // the next block may go here: the table has another one
	denied bool // the server gives no second connection
}

// blockBeside is a block of rows of a table.
type blockBeside struct {
	table Table
	rows  [][]any
	err   error         // after ended is closed
	ended chan struct{} // closed at the end
}

func (b *blockBeside) hasEnded() bool {
	select {
	case <-b.ended:
		return true
	default:
		return false
	}
}

// stop ends the block that is being inserted.
func (b *besideWriter) stop() {
	if b.last != nil {
		b.cancel()
		<-b.last.ended
		b.last = nil
	}
}

// add inserts a block of rows, or begins to: see settle. The first block of a table, which most
// tables have no other than, needs no second connection.
func (l *loader) add(ctx context.Context, t Table, rows [][]any) error {
	b := &l.beside
	if b.last != nil && b.last.hasEnded() {
		if err := l.collect(ctx); err != nil {
			return err
		}
	}
	if b.last == nil && b.next && !b.denied && l.db.ArchiveSQL().CopyIn {
		beside, cancel := context.WithCancel(ctx)
		block := &blockBeside{table: t, rows: rows, ended: make(chan struct{})}
		b.last, b.cancel, b.next = block, cancel, false
		go func() {
			defer close(block.ended)
			block.err = stoa.CatchPanic(func() error { return l.writeRows(beside, t, rows) })
		}()
		return nil
	}
	b.next = true
	err := l.write(ctx, t, rows)
	if b.last != nil && tenantdb.IsConnectFailure(err) { // the block beside has this one's connection
		b.denied = true
		if err := l.collect(ctx); err != nil {
			return err
		}
		return l.write(ctx, t, rows)
	}
	return err
}

// settle waits until every block of the table is inserted.
func (l *loader) settle(ctx context.Context) error {
	l.beside.next = false
	if l.beside.last == nil {
		return nil
	}
	return l.collect(ctx)
}

// collect waits for the block beside. If there was no connection for it, it is inserted now.
func (l *loader) collect(ctx context.Context) error {
	b := &l.beside
	block := b.last
	<-block.ended
	b.cancel()
	b.last = nil
	switch {
	case block.err == nil:
		l.stored(block.rows)
		return nil
	case tenantdb.IsConnectFailure(block.err) && ctx.Err() == nil:
		b.denied = true
		return l.write(ctx, block.table, block.rows)
	}
	return block.err
}

// write inserts a block of rows.
func (l *loader) write(ctx context.Context, t Table, rows [][]any) error {
	if err := l.writeRows(ctx, t, rows); err != nil {
		return err
	}
	l.stored(rows)
	return nil
}

func (l *loader) stored(rows [][]any) {
	if l.opts.OnRows != nil {
		l.opts.OnRows(int64(len(rows)))
	}
}
