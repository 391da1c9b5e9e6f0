package masterdb

import (
	"context"
	"log/slog"
	"time"
)

// ChangeLogExpiry returns the rule that deletes messages long after all processes have read
// them.
func ChangeLogExpiry() Expiry {
	return Expiry{Table: "change_log", Key: []string{"id"}, Age: "at", Keep: 10 * time.Minute}
}

// changeWindow is how far back the change log is read on PostgreSQL, by the server's clock.
// It is longer than the time from a transaction's last statement to its commit, and longer
// than the pause between two reads.
const changeWindow = 15 * time.Second

// change is one row of the change log.
type change struct {
	ID      int64
	Origin  string
	Topic   string
	Payload string
}

// pollPostgres reads the change log while no notifications arrive.
func (l *listener) pollPostgres(ctx context.Context) {
	tick := time.NewTicker(l.poll)
	defer tick.Stop()
	var seen map[int64]bool // ids from earlier reads; nil before the first
	var last time.Time
	logged := false
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if !l.db.MissesNotifications() {
			if seen != nil { // changes between the last read and the first notification
				_, _ = l.readRecent(ctx, seen) // on failure nothing is lost: the listener has called every resync
			}
			seen, logged = nil, false
			continue
		}
		if time.Since(last) > changeWindow/2 {
			seen = nil
		}
		now, err := l.readRecent(ctx, seen)
		if err != nil {
			if ctx.Err() == nil && !logged {
				l.log.WarnContext(ctx, "change log unreadable: changes of other replicas are not received", "err", err)
				logged = true
			}
			continue
		}
		if seen == nil {
			l.log.WarnContext(ctx, "changes of other replicas are read from the change log, up to a second late", "every", l.poll.String())
			logged = false
		}
		seen, last = now, time.Now()
	}
}

// readRecent passes the changes that are not in seen to the subscribers, or calls their
// resync if seen is nil. It returns the ids of all recent changes.
func (l *listener) readRecent(ctx context.Context, seen map[int64]bool) (map[int64]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, l.answer)
	defer cancel()
	var changes []change
	err := l.db.Select(ctx, &changes, `SELECT id, origin, topic, payload FROM change_log WHERE at > clock_timestamp() - make_interval(secs => $1) ORDER BY id`,
		changeWindow.Seconds())
	if err != nil {
		return nil, err
	}
	now := make(map[int64]bool, len(changes))
	for _, c := range changes {
		now[c.ID] = true
		if seen != nil && !seen[c.ID] && c.Origin != l.db.listening.origin() {
			l.tell(ctx, c.Topic, c.Payload)
		}
	}
	if seen == nil {
		l.resync(ctx)
	}
	return now, nil
}

// changeBatch is the number of changes that are read at a time on SQLite.
const changeBatch = 1000

// pollSQLite passes the changes of other processes to the subscribers.
func (l *listener) pollSQLite(ctx context.Context) {
	tick := time.NewTicker(l.poll)
	defer tick.Stop()
	last, failed := int64(-1), false
	for {
		var err error
		if last, err = l.readSince(ctx, last); err != nil && ctx.Err() == nil {
			level := slog.LevelDebug
			if !failed {
				level = slog.LevelWarn
			}
			l.log.Log(ctx, level, "change log unreadable: changes of other processes are not received", "err", err)
		}
		failed = err != nil
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// readSince passes the changes after last to the subscribers, none if last is
// negative, and returns the id of the last change.
func (l *listener) readSince(ctx context.Context, last int64) (int64, error) {
	if last < 0 {
		var newest int64
		if err := l.db.Get(ctx, &newest, `SELECT coalesce(max(id), 0) FROM change_log`); err != nil {
			return last, err
		}
		return newest, nil
	}
	for {
		var changes []change
		err := l.db.Select(ctx, &changes, `SELECT id, origin, topic, payload FROM change_log WHERE id > $1 ORDER BY id LIMIT $2`, last, changeBatch)
		if err != nil || len(changes) == 0 {
			return last, err
		}
		for _, c := range changes {
			if c.Origin != l.db.listening.origin() {
				l.tell(ctx, c.Topic, c.Payload)
			}
			last = c.ID
		}
	}
}
