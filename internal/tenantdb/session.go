package tenantdb

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/stoahq/stoa"
	"github.com/stoahq/stoa/internal/tenantdb/credential"
)

// sessionState is the state that all connections of one database share and that
// no setting of its server may change. It is safe for concurrent use.
type sessionState struct {
	// leased means that the database is that of a connected store. It is set before
	// the database is opened.
	leased bool
	// schema is the schema of the store's tables, on PostgreSQL. It is nil
	// until it is known.
	schema atomic.Pointer[pinnedSchema]
	// version is the server's major version, on PostgreSQL. It is 0 until it is
	// known.
	version atomic.Int64
	// pooler is the pooler that was detected in front of the server although
	// the credentials name none. It is nil until one is detected.
	pooler atomic.Pointer[credential.Pooler]
	// bare means that the name of Neon's endpoint must not be sent with the
	// log-in.
	bare atomic.Bool
	// plain means that the server, or a pooler in front of it, refuses startup
	// parameters. On MySQL it means that the server lacks a variable that other
	// servers have.
	plain atomic.Bool
	// looked means that the settings of every new connection must be checked if
	// they cannot be set, on PostgreSQL.
	looked atomic.Bool
	// generation is incremented when every earlier connection must be
	// discarded.
	generation atomic.Int64
	// passwords are what new connections to a managed database sign in with.
	passwords passwords
}

// poolerOf returns the pooler between Stoa and the database that c names.
func (s *sessionState) poolerOf(c credential.Credentials) credential.Pooler {
	if found := s.pooler.Load(); found != nil && c.Pooler == credential.NoPooler {
		return *found
	}
	return c.Pooler
}

// found records which pooler is in front of the server. The existing
// connections were set up without this knowledge. They are discarded before
// their next use.
func (s *sessionState) found(p credential.Pooler) {
	s.pooler.Store(&p)
	s.generation.Add(1)
}

// pinnedSchema is the schema of a store and the search path that begins with
// it.
type pinnedSchema struct{ name, path string }

// settingError means that a setting of the server would change what is stored
// or read, and cannot be set for one session.
type settingError struct {
	name, value string // as reported by the server
	remedy      string // what the database's owner should do
}

func (e *settingError) Error() string {
	return fmt.Sprintf("tenantdb: setting %.63q is %.80q", e.name, e.value)
}

func (e *settingError) fault() *stoa.Error {
	return stoa.Errorf(stoa.DatabaseSettingRefused, "The database server's setting %.63q is %.80q for this user, which Stoa cannot work with and cannot change for its own connections here. %s",
		e.name, e.value, e.remedy).WithCause(e)
}

// PinSession ensures that the server's settings change nothing that is stored
// or read through db, and that db's connections use the schema that contains
// the store, if one exists. It fails with database_setting_refused and names
// the setting that prevents this.
func (db *DB) PinSession(ctx context.Context, store stoa.StoreID) error {
	return db.do(ctx, func(ctx context.Context) error { return db.pinSession(ctx, store) })
}

// pinOrClose pins the session of a database that was just opened. It closes the
// database if the database does not answer.
func (db *DB) pinOrClose(ctx context.Context, store stoa.StoreID) error {
	answered := false
	defer func() {
		if !answered {
			_ = db.sqlx.Close()
		}
	}()
	err := db.settle(ctx, func(ctx context.Context) error {
		if db.dialect.embedded {
			return db.roundTrip(ctx)
		}
		return db.pinSession(ctx, store)
	})
	answered = err == nil
	return err
}

func (db *DB) pinSession(ctx context.Context, store stoa.StoreID) (err error) {
	defer recoverDriver(db.log, &err)
	return db.engine.pin(ctx, db, store)
}
