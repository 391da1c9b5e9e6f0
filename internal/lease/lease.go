// Package lease gives one owner at a time the right to work on a row of the master
// database, and wakes the callers that wait for the end of such work.
//
// A table with leases has the columns claimed_by, the owner, and claimed_until, the time at
// which the lease expires. A row without an owner is free. A row with an owner whose lease
// has expired may be leased by another owner. The recorded owner tells the new one that the
// work may have been left incomplete.
//
// Every write by the owner must be conditional on claimed_by: an owner that was suspended
// does not know that another one has taken over.
package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// ErrLost means that the row is not leased to the owner and cannot be: another
// owner has it, or nobody may lease it any more.
var ErrLost = errors.New("lease: the row is not leased to this owner")

// ErrExpired means that the lease expired because the master database did not
// answer in time to renew it.
var ErrExpired = errors.New("lease: the lease could not be renewed in time")

// Process creates the owners of one process. It is safe for concurrent use.
type Process struct {
	name   string
	owners atomic.Int64 // created so far
}

// NewProcess returns the Process of the given name, which must not contain a dot.
func NewProcess(name string) *Process { return &Process{name: name} }

// Name returns the name of the process.
func (p *Process) Name() string { return p.name }

// NewOwner returns an owner that differs from every other one.
func (p *Process) NewOwner() Owner {
	return Owner(p.name + "." + strconv.FormatInt(p.owners.Add(1), 10))
}

// Owner names one piece of work in one process: the name of the process, a dot
// and a number.
type Owner string

// process returns the name of the owner's process.
func (o Owner) process() string {
	name, _, _ := strings.Cut(string(o), ".")
	return name
}

// Table describes a table with leases.
type Table struct {
	Name  string
	Key   string // the primary key column
	Where string // SQL condition of the rows that may be leased
	// KeepPresent prevents a lease from expiring while its owner belongs to another process
	// that is recorded in the table processes, whatever the clocks say. ExpireProcess ends
	// such leases.
	KeepPresent bool
}

// Expired returns the SQL condition that a row has no owner whose lease is in
// force. $now and $process are the numbers of the placeholders of the present
// time and of the name of the calling process; the latter is used only with
// KeepPresent.
func (t Table) Expired(now, process int) string {
	condition := fmt.Sprintf(`(claimed_until IS NULL OR claimed_until <= $%d)`, now)
	if t.KeepPresent {
		condition += fmt.Sprintf(` AND NOT EXISTS (SELECT 1 FROM processes p WHERE p.name <> $%d AND substr(claimed_by, 1, length(p.name) + 1) = p.name || '.')`, process)
	}
	return condition
}

// ExpireProcess expires, in tx, the leases of a process that has ended. It returns how many
// there were. The owners stay recorded.
func (t Table) ExpireProcess(ctx context.Context, tx *masterdb.Tx, process string) (int64, error) {
	prefix := process + "."
	return tx.Exec(ctx, `UPDATE `+t.Name+` SET claimed_until = NULL WHERE `+t.Where+` AND substr(claimed_by, 1, $2) = $1`, prefix, len(prefix))
}

// Lease is a row and its owner.
type Lease struct {
	Table    Table
	Key      any // of the row
	Owner    Owner
	Duration time.Duration // from each renewal on
}

// Acquire leases the row to the owner. It fails with ErrLost when another owner
// has it, or the row may not be leased.
func (l Lease) Acquire(ctx context.Context, tx *masterdb.Tx) error {
	args := []any{l.Key, string(l.Owner), tx.Now.Add(l.Duration), tx.Now}
	if l.Table.KeepPresent {
		args = append(args, l.Owner.process())
	}
	n, err := tx.Exec(ctx, `UPDATE `+l.Table.Name+` SET claimed_by = $2, claimed_until = $3
		WHERE `+l.Table.Key+` = $1 AND `+l.Table.Where+` AND (claimed_by IS NULL OR `+l.Table.Expired(4, 5)+`)`, args...)
	return changed(n, err)
}

// Renew extends the lease. It fails with ErrLost when the row has another owner or none.
func (l Lease) Renew(ctx context.Context, tx *masterdb.Tx) error {
	n, err := tx.Exec(ctx, `UPDATE `+l.Table.Name+` SET claimed_until = $3 WHERE `+l.Table.Key+` = $1 AND claimed_by = $2`,
		l.Key, string(l.Owner), tx.Now.Add(l.Duration))
	return changed(n, err)
}

// Release leaves the row without an owner. It fails as Renew does.
func (l Lease) Release(ctx context.Context, tx *masterdb.Tx) error {
	n, err := tx.Exec(ctx, `UPDATE `+l.Table.Name+` SET claimed_by = NULL, claimed_until = NULL WHERE `+l.Table.Key+` = $1 AND claimed_by = $2`,
		l.Key, string(l.Owner))
	return changed(n, err)
}

// Expire ends the lease but keeps the owner recorded, because the outcome of its work is
// unknown. It fails as Renew does.
func (l Lease) Expire(ctx context.Context, tx *masterdb.Tx) error {
	n, err := tx.Exec(ctx, `UPDATE `+l.Table.Name+` SET claimed_until = NULL WHERE `+l.Table.Key+` = $1 AND claimed_by = $2`,
		l.Key, string(l.Owner))
	return changed(n, err)
}

// changed returns ErrLost when a statement on the leased row has changed nothing.
func changed(n int64, err error) error {
	if err == nil && n == 0 {
		return ErrLost
	}
	return err
}

// Keep renews the lease, which was acquired just before, until stop is called.
// The context it returns ends with the lease; its cause is then ErrLost or
// ErrExpired.
func (l Lease) Keep(ctx context.Context, db *masterdb.DB, log *slog.Logger) (_ context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := l.renewUntilDone(ctx, db, log); err != nil {
			cancel(err)
		}
	}()
	return ctx, func() {
		cancel(nil)
		<-ended
	}
}

// renewUntilDone renews the lease until ctx is done, or returns why it has ended.
func (l Lease) renewUntilDone(ctx context.Context, db *masterdb.DB, log *slog.Logger) error {
	tick := time.NewTicker(l.Duration / 3)
	defer tick.Stop()
	for expires := time.Now().Add(l.Duration); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		asked := time.Now()
		switch err := l.renewBefore(ctx, db, expires); {
		case err == nil:
			expires = asked.Add(l.Duration)
		case errors.Is(err, ErrLost):
			return ErrLost
		case time.Now().After(expires):
			return ErrExpired
		default:
			log.WarnContext(ctx, "lease not renewed yet", "table", l.Table.Name, "key", fmt.Sprint(l.Key), "err", err)
		}
	}
}

// renewBefore renews the lease if the master database answers before it expires.
func (l Lease) renewBefore(ctx context.Context, db *masterdb.DB, expires time.Time) error {
	ctx, cancel := context.WithDeadline(ctx, expires)
	defer cancel()
	return db.Tx(ctx, func(tx *masterdb.Tx) error { return l.Renew(ctx, tx) })
}
