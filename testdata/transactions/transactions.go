// Package transactions has transactions that wait, for the test that finds them.
package transactions

import (
	"context"
	"net"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
	"github.com/stoahq/stoa/internal/tenantdb"
)

func sleeps(_ *masterdb.Tx) { time.Sleep(1) }

func calls(_ *masterdb.Tx) { helper() }

func helper() { time.Sleep(1) }

func receives(db *masterdb.DB, c chan int) error {
	return db.Tx(context.Background(), func(*masterdb.Tx) error {
		<-c
		return nil
	})
}

func selects(_ *masterdb.Tx, c chan int) {
	select {
	case <-c:
	case <-time.After(1):
	}
}

func sends(_ *masterdb.Tx, c chan int) { c <- 1 }

func ranges(_ *masterdb.Tx, c chan int) {
	for range c {
	}
}

func opens(_ *masterdb.Tx, db *tenantdb.DB) error { return db.Ping(context.Background()) }

func snapshot(db *masterdb.DB) error {
	return db.Snapshot(context.Background(), func(*masterdb.Tx) error {
		time.Sleep(1)
		return nil
	})
}

func dials(_ *masterdb.Tx) { _, _ = (&net.Dialer{}).DialContext(context.Background(), "tcp", "") }

func nested(_ *masterdb.Tx, db *masterdb.DB) error {
	return db.Tx(context.Background(), func(*masterdb.Tx) error { return nil })
}

// What follows waits without a transaction, or not at all.

func later(tx *masterdb.Tx) { tx.AfterCommit(func() { time.Sleep(1) }) }

func aside(_ *masterdb.Tx) { go time.Sleep(1) }

func looks(_ *masterdb.Tx, c chan int) {
	select {
	case <-c:
	default:
	}
}

func without() { time.Sleep(1) }
