package tenantdb

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// sessionState is what all connections of one database have in common and what no
// setting of its server may change. It is safe for concurrent use.
type sessionState struct {
	// schema is where the store's tables are, on PostgreSQL; nil until it is known.
	schema atomic.Pointer[pinnedSchema]
	// version is the server's major version, on PostgreSQL; 0 until it is known.
	version atomic.Int64
	// pooler is what was found to stand before the server, where the credentials
	// name none; nil until something was found.
	pooler atomic.Pointer[credential.Pooler]
	// bare: the name of Neon's endpoint is not to be sent with the log-in.
	bare atomic.Bool
	// plain: the server, or a pooler before it, refuses startup parameters; on
	// MySQL, it lacks a variable that others have.
	plain atomic.Bool
	// looked: every new connection is looked at whose settings cannot be set, on
	// PostgreSQL.
	looked atomic.Bool
	// generation is raised when every connection made before is to be discarded.
	generation atomic.Int64
}

// poolerOf returns what stands between Stoa and the database that c names.
func (s *sessionState) poolerOf(c credential.Credentials) credential.Pooler {
	if found := s.pooler.Load(); found != nil && c.Pooler == credential.NoPooler {
		return *found
	}
	return c.Pooler
}

// found notes which pooler stands before the server. What connections there are
// were made for another way, and are discarded before they are used again.
func (s *sessionState) found(p credential.Pooler) {
	s.pooler.Store(&p)
	s.generation.Add(1)
}

// pinnedSchema is the schema of a store, and the search path that begins with it.
type pinnedSchema struct{ name, path string }

// settingError: a setting of the server would change what is stored or read, and
// cannot be set for one session.
type settingError struct {
	name, value string // as the server says them
	remedy      string // what its owner does about it
}

func (e *settingError) Error() string {
	return fmt.Sprintf("tenantdb: setting %.63q is %.80q", e.name, e.value)
}

func (e *settingError) fault() *stoa.Error {
	return stoa.Errorf(stoa.DatabaseSettingRefused, "The database server's setting %.63q is %.80q for this user, which Stoa cannot work with and cannot change for its own connections here. %s",
		e.name, e.value, e.remedy).WithCause(e)
}

// PinSession makes sure that the server's settings change nothing of what is
// stored or read through db, and that db's connections lead to the schema that
// holds the store, if there is one already. It fails with
// database_setting_refused and names the setting that stands in the way.
func (db *DB) PinSession(ctx context.Context, store stoa.StoreID) error {
	return db.do(ctx, func(ctx context.Context) error { return db.pinSession(ctx, store) })
}

// pinOrClose pins the session of a database that was just opened, and closes it
// unless it answers.
func (db *DB) pinOrClose(ctx context.Context, store stoa.StoreID) error {
	answered := false
	defer func() {
		if !answered {
			_ = db.sqlx.Close()
		}
	}()
	err := db.settle(ctx, func(ctx context.Context) error {
		if db.Engine == credential.SQLite {
			return db.roundTrip(ctx)
		}
		return db.pinSession(ctx, store)
	})
	answered = err == nil
	return err
}

func (db *DB) pinSession(ctx context.Context, store stoa.StoreID) (err error) {
	defer recoverDriver(db.log, &err)
	switch db.Engine {
	case credential.PostgreSQL:
		return db.pinPostgres(ctx, store)
	case credential.MySQL:
		return db.checkMySQL(ctx)
	case credential.SQLite, credential.Supabase: // Stoa's own file; no value of DB.Engine
	}
	return nil
}
