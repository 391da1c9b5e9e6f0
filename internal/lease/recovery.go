package lease

import (
	"context"
	"log/slog"
	"time"

	"github.com/stoahq/stoa/internal/masterdb"
)

// Work is what a Recovery reads of a row.
type Work interface {
	// Key returns the row's primary key.
	Key() any
}

// Recovery resumes lost work: rows that may be leased and have no lease in force. When a
// process ends, Release expires its leases and resumes its work at once. A lease also
// expires when it is not renewed. This covers an owner that ended within a live process (by
// the clock of that process), and a process that is not recorded, such as one of an earlier
// release. Reconcile resumes such work.
type Recovery[W Work] struct {
	DB       *masterdb.DB
	Log      *slog.Logger
	Table    Table
	Columns  string // of the table, read into a W
	Process  *Process
	Duration time.Duration // of a lease; resumed work has as long to start
	// Enqueue enqueues, in tx, a job for each row that has none waiting. It returns the
	// number of jobs.
	Enqueue func(ctx context.Context, tx *masterdb.Tx, lost []W) (int, error)
}

// Watch resumes lost work until ctx is done. Every replica does so.
func (r *Recovery[W]) Watch(ctx context.Context) {
	tick := time.NewTicker(r.Duration)
	defer tick.Stop()
	for {
		if _, err := r.Reconcile(ctx); err != nil && ctx.Err() == nil {
			r.Log.WarnContext(ctx, "lost work not looked for", "table", r.Table.Name, "err", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Reconcile resumes lost work: a lease has expired, or a job did not start in time and is in
// no queue. It returns the number of jobs. Any number of replicas may call it concurrently.
func (r *Recovery[W]) Reconcile(ctx context.Context) (resumed int, err error) {
	var n int
	if err := r.DB.Get(ctx, &n, `SELECT count(*) FROM `+r.Table.Name+r.lost(), r.DB.Now(), r.Process.Name()); err != nil || n == 0 {
		return 0, err // the usual case, in which nothing is locked
	}
	err = r.DB.Tx(ctx, func(tx *masterdb.Tx) (err error) {
		resumed, err = r.resume(ctx, tx)
		return err
	})
	if err == nil && resumed > 0 {
		r.Log.InfoContext(ctx, "lost work resumed", "table", r.Table.Name, "rows", resumed)
	}
	return resumed, err
}

// Release expires, in tx, the leases of a process that has ended, and resumes its work.
func (r *Recovery[W]) Release(ctx context.Context, tx *masterdb.Tx, process string) error {
	n, err := r.Table.ExpireProcess(ctx, tx, process)
	if err != nil || n == 0 {
		return err
	}
	_, err = r.resume(ctx, tx)
	return err
}

// lost returns the SQL condition of lost rows. $1 is the time, $2 the name of this process.
func (r *Recovery[W]) lost() string {
	return ` WHERE ` + r.Table.Where + ` AND ` + r.Table.Expired(1, 2)
}

// resume enqueues jobs for up to 1,000 lost rows, and gives them the duration of a lease to
// start.
func (r *Recovery[W]) resume(ctx context.Context, tx *masterdb.Tx) (resumed int, err error) {
	lock := tx.ForUpdate()
	if lock != "" {
		lock += " SKIP LOCKED" // the row may be locked by another replica or by its owner
	}
	var rows []W
	err = tx.Select(ctx, &rows, `SELECT `+r.Columns+` FROM `+r.Table.Name+r.lost()+` ORDER BY `+r.Table.Key+` LIMIT 1000`+lock, tx.Now, r.Process.Name())
	if err != nil || len(rows) == 0 {
		return 0, err
	}
	if resumed, err = r.Enqueue(ctx, tx, rows); err != nil {
		return 0, err
	}
	for _, row := range rows {
		_, err := tx.Exec(ctx, `UPDATE `+r.Table.Name+` SET claimed_by = NULL, claimed_until = $2 WHERE `+r.Table.Key+` = $1`, row.Key(), tx.Now.Add(r.Duration))
		if err != nil {
			return 0, err
		}
	}
	return resumed, nil
}
