package presence

import (
	"context"

	"github.com/stoahq/stoa/internal/masterdb"
)

// fileLock is the lock of a file beside a SQLite master.
type fileLock struct {
	db     *masterdb.DB
	name   string
	unlock func()
}

func (l *fileLock) acquire(ctx context.Context) (err error) {
	l.unlock, err = l.db.LockProcess(ctx, l.name)
	return err
}

func (l *fileLock) look(ctx context.Context) ([]observed, error) {
	var processes []observed
	if err := l.db.Select(ctx, &processes, `SELECT name, host FROM processes`); err != nil {
		return nil, err
	}
	for i := range processes {
		p := &processes[i]
		if p.Name == l.name {
			p.Held = true
			continue
		}
		locked, err := l.db.ProcessLocked(ctx, p.Name)
		if err != nil {
			return nil, err
		}
		p.Held = locked
	}
	return processes, nil
}

func (l *fileLock) release(context.Context) { l.unlock() }
