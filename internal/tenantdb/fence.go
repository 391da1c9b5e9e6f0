package tenantdb

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/sqlite"
)

// While a store moves to another database, triggers on its tables record the keys of changed
// rows in MoveJournalTable. MoveControlTable has one row, which says whether the database is
// fenced: its triggers then refuse every change with fenceState or, on SQLite, which has no
// such codes, with fenceMessage.
const (
	MoveControlTable = "stoa_move_control"
	MoveJournalTable = "stoa_move_journal"

	fenceState   = "STM01"
	fenceMessage = "stoa: the store has moved to another database"
)

const (
	// successorWait limits how long a writer waits for the end of a move: from the fence to
	// the new credentials it takes one transaction in the master.
	successorWait = 5 * time.Second
	// The pauses between two looks grow, because each looks into the master.
	firstSuccessorPause = 20 * time.Millisecond
	maxSuccessorPause   = 500 * time.Millisecond
)

// IsFenced reports whether err says that a database refuses changes because the store has
// moved. The statement has changed nothing.
func IsFenced(err error) bool {
	var myErr *mysql.MySQLError
	if errors.As(err, &myErr) {
		return string(myErr.SQLState[:]) == fenceState
	}
	if sqlite.HasCode(err, sqlite3.SQLITE_CONSTRAINT_TRIGGER) {
		return strings.Contains(err.Error(), fenceMessage)
	}
	return IsState(err, fenceState)
}

// afterMove repeats an operation if err says that the database is fenced: in the store's new
// database, as soon as there is one, or in this one, if the move was aborted. Otherwise it
// returns err. A database that only pretends to be fenced costs one look into the
// master.
func (db *DB) afterMove(ctx context.Context, err error, again func(*DB) error) error {
	if db.successor == nil || !IsFenced(err) {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, successorWait)
	defer cancel()
	for wait := firstSuccessorPause; ; wait = min(2*wait, maxSuccessorPause) {
		next, moving, missing := db.successor(limited)
		switch {
		case missing != nil:
			return unavailable(errors.Join(missing, err))
		case next.DB != nil:
			defer next.Release()
			return next.afterMove(limited, again(next.DB), again) // the next move may have begun
		}
		if moving && pause(limited, wait) != nil {
			return unavailable(err)
		}
		if err = again(db); !moving || !IsFenced(err) {
			return err
		}
	}
}

// followMoves lets writers that meet a fence continue with credentials that are newer than
// version.
func (m *Manager) followMoves(db *DB, store stoa.StoreID, version int64) {
	if m.master == nil {
		return
	}
	db.successor = func(ctx context.Context) (_ Lease, moving bool, err error) {
		// In one statement: a move that ended between two would be seen by neither.
		var current struct {
			Version int64
			Moving  bool
		}
		err = m.master.Get(ctx, &current, `SELECT credential_version AS version, (SELECT count(*) > 0 FROM store_moves WHERE store_id = $1 AND finished_at IS NULL) AS moving
			FROM store_databases WHERE store_id = $1 AND credentials <> ''`, store)
		if err != nil || current.Version <= version {
			return Lease{}, current.Moving, err
		}
		m.forgetVersion(store, version)
		lease, err := m.Acquire(ctx, store)
		return lease, true, err
	}
}

// forgetVersion does what Forget does, unless the store's pool has been opened with newer
// credentials already.
func (m *Manager) forgetVersion(store stoa.StoreID, version int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.pools[store]; p == nil || p.version <= version {
		m.forget(store)
	}
}
